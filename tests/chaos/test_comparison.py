"""The comparison with other libraries: its judgement, and the end of a worker with all its processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.cast import kill_tree
from bench.chaos.contenders import CONTENDERS
from bench.chaos.report import report
from bench.chaos.tally import Facts, Run, Tally, read_notes, tally

FACTS = Facts(
    accepted={"job-3": 1.0},
    outcomes={"job-3": ["completed", 9]},
    runs=[Run("job-3", "worker-0", 2.0), Run("job-3", "worker-1", 8.0, 8.05)],
    kills={"worker-0": 2.1},
    outage=(20.0, 21.0),
)
ONCE = [Run("job-3", "worker-1", 2.0, 2.05)]


def test_a_run_that_a_kill_cut_off_is_counted_with_its_recovery() -> None:
    judged = tally(FACTS)
    assert (judged.lost, judged.failed, judged.wrong, judged.unexplained) == (0, 0, 0, 0)
    assert (judged.cut_off, judged.recovery, judged.seconds) == (1, [pytest.approx(5.9)], pytest.approx(7.05))


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"outcomes": {}}, "lost"),
        ({"outcomes": {"job-3": None}}, "lost"),
        ({"outcomes": {"job-3": ["failed", "abandoned"]}}, "failed"),
        ({"outcomes": {"job-3": ["completed", 8]}}, "wrong"),
        ({"runs": []}, "wrong"),  # completed, and nobody ran it
        ({"kills": {}}, "unexplained"),
        ({"kills": {"worker-1": 2.1}}, "unexplained"),
        ({"kills": {}, "outage": (1.9, 2.5)}, "outage"),
    ],
)
def test_everything_else_is_counted_by_its_kind(changes: dict[str, Any], counted: str) -> None:
    assert getattr(tally(replace(FACTS, **changes)), counted) == 1


def test_a_run_that_ended_long_before_the_kill_was_not_cut_off() -> None:
    runs = [Run("job-3", "worker-0", 1.0, 1.05), *ONCE]
    assert tally(replace(FACTS, runs=runs)).unexplained == 1
    assert tally(replace(FACTS, runs=runs, kills={"worker-0": 1.2})).cut_off == 1


def test_what_was_refused_is_not_lost() -> None:
    judged = tally(Facts(refused={"job-3": "ConnectionError()"}))
    assert (judged.accepted, judged.refused, judged.lost) == (0, 1, 0)


def test_notes_of_one_job_in_two_workers_are_kept_apart() -> None:
    lines = [["start", "a", "w0", 1.0], ["start", "a", "w1", 2.0], ["end", "a", "w1", 2.5]]
    assert read_notes(map(json.dumps, lines)) == [Run("a", "w0", 1.0), Run("a", "w1", 2.0, 2.5)]


def test_the_report_has_a_row_and_a_bar_for_each_library() -> None:
    table, drawing = report({name: Tally() for name in CONTENDERS}, "a machine")
    assert table.count("\n| ") == 2 * (len(CONTENDERS) + 1)
    assert drawing.count(">jobqueue<") == 4


def test_a_worker_is_killed_with_its_children_in_groups_of_their_own() -> None:
    grandchild = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], process_group=0)"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        kill_tree(process.pid)
        assert process.wait(10) == -9
        assert process.stdout.read() == b""  # nobody is left to hold it open
