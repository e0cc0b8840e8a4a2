"""`python -m bench chaos`: as a process on every store, and the judgement at its end."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.chaos.check import Kill, Verdict, judge
from bench.chaos.view import View
from bench.chaos.work import Outcome, Run, read_runs
from jobqueue import JobState, Storage
from jobqueue.storage.values import Record
from tests.lifecycle.conftest import FULL
from tests.lifecycle.processes import Process, Start


async def left_in(storage: Storage) -> int:
    """Return how many jobs a store has."""
    return sum([sum((await storage.counts(queue))[:-1]) for queue in await storage.queues()])


async def test_a_worker_and_the_leading_reaper_are_killed_and_nothing_is_lost(
    storage: Storage, start: Start
) -> None:
    jobs = 2000 if FULL else 200
    chaos = await start.chaos("--jobs", str(jobs), "--json")
    assert await chaos.wait() == 0, chaos.said
    await chaos.expect("SIGKILL for worker")
    await chaos.expect("SIGKILL for the leading reaper")
    await chaos.expect("leads, term")
    numbers = json.loads(next(line for line in chaos.lines if line.startswith("{")))
    assert (numbers["jobs"], numbers["ended"], numbers["lost"], numbers["wrong"]) == (jobs, jobs, 0, [])
    assert [kill["role"] for kill in numbers["kills"]] == ["worker", "reaper"]
    assert numbers["attributed"] == numbers["duplicates"] <= 8
    assert numbers["terms"][-1] > numbers["terms"][0]
    assert await left_in(storage) == 0


async def test_interrupted_it_leaves_no_jobs_that_nobody_will_run(storage: Storage, start: Start) -> None:
    chaos = await start.chaos("--jobs", "1000")
    await chaos.expect("SIGKILL for the leading reaper")
    chaos.signal(signal.SIGINT)
    assert await chaos.wait() == 130
    assert chaos.lines[-1] == "Error: interrupted"
    assert await left_in(storage) <= 8  # the killed worker's, which a reaper will end


async def test_a_store_with_a_leader_is_refused(storage: Storage, start: Start) -> None:
    assert await storage.lock_acquire("reaper", "somebody", 600_000)
    chaos = await start.chaos("--jobs", "10")
    await chaos.expect("Error: a reaper leads on this store")
    assert await chaos.wait() == 1


async def test_a_store_of_one_process_is_refused() -> None:
    chaos = await Process.start("-P", "-m", "bench", "chaos", "-s", "memory://")
    await chaos.expect("lives in one process")
    assert await chaos.wait() == 1


RECORD = Record(
    "a", 1, JobState.COMPLETED, 0, 0, 0, 0, 1, 3, 0, 2, 1, 7, None, None, False, None, None, None, 1, None
)
FIRST, SECOND = Run("a", 6, 100, 1.0), Run("a", 7, 200, 5.0, 6.0)
KILLED = Kill("worker", 100, 2.5)


def judged(**changes: Any) -> Verdict:
    """Judge a job that a killed worker began and another one ended, with some of it changed."""
    facts: dict[str, Any] = {
        "expected": {"a": "x"},
        "answered": {"a": Outcome(digest="x", fence=7)},
        "records": {"a": RECORD},
        "runs": [FIRST, SECOND],
        "kills": [KILLED, Kill("reaper", 300, 2.6)],
        "slots": 1,
    }
    return judge(**{**facts, **changes})


def test_a_run_that_was_cut_off_by_a_kill_is_attributed() -> None:
    verdict = judged()
    assert (verdict.ended, verdict.lost, verdict.wrong) == (1, 0, [])
    assert (verdict.duplicates, verdict.attributed, verdict.recovery) == (1, 1, [2.5])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answered": {}}, "lost"),
        ({"records": {"a": None}}, "lost"),
        ({"answered": {"a": Outcome(digest="x", fence=6)}}, "answered with run 6"),
        ({"answered": {"a": Outcome(digest="y", fence=7)}}, "answered y, computed x"),
        ({"records": {"a": RECORD._replace(state=JobState.QUEUED)}}, "holds it as queued"),
        ({"runs": [FIRST]}, "of no run"),
        ({"runs": [SECOND, SECOND]}, "of no run"),
        ({"kills": []}, "process 100 ran it too"),
        ({"kills": [Kill("reaper", 100, 2.5)]}, "process 100 ran it too"),
        ({"slots": 0}, "1 duplicates, and at most 0"),
        ({"runs": [FIRST, SECOND, Run("b", 9, 200, 7.0)]}, "b: ran, and nobody asked"),
    ],
)
def test_each_broken_promise_is_reported(changes: dict[str, Any], says: str) -> None:
    verdict = judged(**changes)
    assert len(verdict.wrong) == 1
    assert says in verdict.wrong[0]


def test_notes_are_read_even_without_an_end(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "none") == []
    notes = tmp_path / "notes"
    lines = [["start", "a", 6, 100, 1.0], ["start", "a", 7, 200, 5.0], ["end", "a", 7, 200, 6.0]]
    notes.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_runs(notes) == [FIRST, SECOND]


class Pretended:
    """A child as the picture sees it."""

    def __init__(self, role: str, pid: int, term: int | None = None, *, killed: bool = False) -> None:
        self.role, self.pid, self.term, self.killed = role, pid, term, killed
        self.alive, self.recovered = not killed, 3 if term else 0


def test_the_picture_on_a_terminal_shows_who_lives_and_leads() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    gone = Pretended("reaper", 4)
    gone.alive = False
    children: Any = [
        Pretended("worker", 1),
        Pretended("worker", 2, killed=True),
        Pretended("reaper", 3, 9),
        gone,
    ]
    with View(console).drawing() as view:
        view.tell("something happens")
        view.show(children, {"queued": 5, "failed": 0}, {"worker-1": 8})
    text = out.getvalue()
    states = ["runs 8 jobs", "killed", "leads, term 9, recovered 3 jobs", "ended", "jobs: 5 queued"]
    for part in ["something happens", *states]:
        assert part in text
