"""docs/guides/deployment.md: the commands in its units and manifests are commands of this version."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from jobqueue.cli.commands.reaper import reaper
from jobqueue.cli.commands.worker import worker

PAGE = (Path(__file__).parents[2] / "docs/guides/deployment.md").read_text()
COMMANDS = {"worker": worker, "reaper": reaper}


def commands() -> list[list[str]]:
    """Return the arguments of every worker and reaper in a unit, a compose file or a manifest."""
    lines = re.findall(r"^ExecStart=\S*/jobqueue (.*)$", PAGE, re.MULTILINE)
    lists = re.findall(r'(?:command|args): (\["jobqueue".*?\])', PAGE, re.DOTALL)
    return [shlex.split(line) for line in lines] + [json.loads(one)[1:] for one in lists]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_command(arguments: list[str]) -> None:
    name, *rest = arguments
    with click.Context(COMMANDS[name]) as parent:
        made = COMMANDS[name].make_context(name, [*rest, "-s", "redis://localhost"], parent=parent)
    assert made.params["health_port"] in {None, 8080}


def test_the_page_shows_all_three_ways() -> None:
    assert len(commands()) == 6


def test_grace_is_longer_than_the_timeout_of_the_worker() -> None:
    timeout = {int(found) for found in re.findall(r'--timeout"?,? "?(\d+)', PAGE)}
    grace = re.findall(r"(?:TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: )(\d+)", PAGE)
    assert timeout == {60}
    assert {int(found) for found in grace} == {75}
