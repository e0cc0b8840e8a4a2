"""A short chaos run on each store; `python -m tests.chaos` makes long ones.

``JOBQUEUE_CHAOS_SECONDS`` and ``JOBQUEUE_CHAOS_SEED`` choose the length and the faults.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.__main__ import storm
from tests.chaos.storm import Plan

SECONDS = float(os.environ.get("JOBQUEUE_CHAOS_SECONDS", "6"))
SEED = int(os.environ.get("JOBQUEUE_CHAOS_SEED", "1"))
FEWEST = 5
"""Jobs that even a machine with a load of ten gets through in six seconds."""


@pytest.mark.parametrize("name", ["file", "redis", "valkey", "guard", "postgres"])
async def test_processes_under_random_faults_leave_a_history_that_fits(name: str, tmp_path: Path) -> None:
    report = await storm(name, tmp_path, Plan(SECONDS, SEED, every=0.4))
    assert report.verdict.problems == [], report.told()
    assert report.verdict.lost == 0
    # A rollback soon after a slow start takes most of what there was.
    assert report.verdict.ended + report.verdict.forgotten >= FEWEST
    assert report.faults["kill"] > 0
