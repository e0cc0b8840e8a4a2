"""The programs in tests/typing pass the type checkers, except where they say that they do not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import jobqueue.maintenance.reaper
import jobqueue.queue
from jobqueue.events import QueueEventName, ReaperEventName

ROOT = Path(__file__).parents[1]
CHECKERS = {"mypy": ["--strict", "--no-incremental"], "pyright": ["--pythonpath", sys.executable]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_typed_programs(checker: str) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    command = [sys.executable, "-m", checker, *CHECKERS[checker], "tests/typing"]
    run = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "names"), [(jobqueue.queue, QueueEventName), (jobqueue.maintenance.reaper, ReaperEventName)]
)
def test_a_type_checker_knows_the_name_of_every_event(module, names) -> None:
    assert {kind.name for kind in module._EVENTS} == set(get_args(names))
