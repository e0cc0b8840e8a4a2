"""Commands whose surroundings fail: no output, no input, no working directory. One line, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import BOUND, environ


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, in which ``$J`` is the command."""
    command = f"J='{sys.executable} -P -m jobqueue'; {line}"
    return subprocess.run(
        ["sh", "-c", command], env=environ(**env), capture_output=True, text=True, timeout=BOUND, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("options", ["", "-o json"])
def test_output_that_cannot_be_written(made: str, options: str) -> None:
    ended = shell(f"$J enqueue a 1 {options} > /dev/full", JOBQUEUE_STORAGE=made)
    assert ended.returncode == 1
    assert ended.stderr == "Error: cannot write the output: No space left on device\n"


def test_a_reader_that_has_enough(made: str) -> None:
    ended = shell("$J enqueue a 1 | true", JOBQUEUE_STORAGE=made)
    assert ended.stderr == ""


def test_a_closed_stdin(made: str) -> None:
    ended = shell("$J enqueue a - <&-", JOBQUEUE_STORAGE=made)
    assert ended.returncode == 2
    assert "stdin is closed" in ended.stderr


@pytest.mark.parametrize("command", ["worker tasks:queue", "worker tasks:queue --reload"])
def test_a_working_directory_that_was_removed(tmp_path: Path, command: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = shell(f"cd {gone} && rmdir {gone} && $J {command}")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "Error: the working directory was removed: change to another one"
    )
