"""demo --chaos: as a process on every store, and the judgement at its end."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from jobqueue.cli.commands import main
from jobqueue.cli.demo.chaos_check import ChaosVerdict, Kill, judge_chaos
from jobqueue.cli.demo.chaos_view import viewing
from jobqueue.cli.demo.chaos_work import Outcome, Run, read_runs
from jobqueue.cli.demo.check import Expected
from jobqueue.cli.demo.files import Answer
from jobqueue.job import JobState
from jobqueue.storage.base import Record, Storage
from tests.lifecycle.conftest import FULL
from tests.lifecycle.processes import Start


async def test_a_worker_and_the_leading_reaper_are_killed_and_nothing_is_lost(
    shared: Any, storage: Storage, start: Start
) -> None:
    files = "2000" if FULL else "200"
    demo = await start.cli("demo", "--chaos", "-s", shared.url, "--max-files", files, "-o", "json")
    assert await demo.wait() == 0, demo.said
    await demo.expect("SIGKILL for worker")
    await demo.expect("SIGKILL for the leading reaper")
    await demo.expect("leads, term")
    numbers = json.loads(next(line for line in demo.lines if line.startswith("{")))
    jobs = numbers["jobs"]
    assert jobs == int(files)
    assert (numbers["ended"], numbers["lost"], numbers["wrong"]) == (jobs, 0, [])
    assert numbers["verified"] + numbers["changed"] == jobs
    assert [kill["role"] for kill in numbers["kills"]] == ["worker", "reaper"]
    assert numbers["attributed"] == numbers["duplicates"] <= 8
    assert numbers["terms"][-1] > numbers["terms"][0]
    for queue in await storage.queues():  # it leaves no jobs behind
        assert sum((await storage.counts(queue))[:-1]) == 0


async def test_a_store_with_a_leader_is_refused(shared: Any, storage: Storage, start: Start) -> None:
    assert await storage.acquire("reaper", "somebody", 600_000)
    demo = await start.cli("demo", "--chaos", "-s", shared.url, "--max-files", "10")
    await demo.expect("Error: a reaper leads on this store")
    assert await demo.wait() == 1


def test_a_store_of_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQUEUE_STORAGE", raising=False)
    result = CliRunner().invoke(main, ["demo", "--chaos", "-s", "memory://"], prog_name="jobqueue")
    assert result.exit_code == 2
    assert "lives in one process" in result.stderr


ANSWER = Answer(sha256="x", lines=1, words=2, bytes=3)
RECORD = Record(
    "a", 1, JobState.COMPLETED, 0, 0, 0, 0, 1, 3, 0, 2, 1, 7, None, None, False, None, None, None, 1, None
)
FIRST, SECOND = Run("a", 6, 100, 1.0), Run("a", 7, 200, 5.0, 6.0)
KILLED = Kill("worker", 100, 2.5)


def judged(**changes: Any) -> ChaosVerdict:
    """Judge a job that a killed worker began and another one ended, with some of it changed."""
    facts: dict[str, Any] = {
        "expected": Expected({"a": ANSWER}),
        "told": {"a": Outcome(answer=ANSWER, fence=7)},
        "records": {"a": RECORD},
        "runs": [FIRST, SECOND],
        "kills": [KILLED, Kill("reaper", 300, 2.6)],
        "slots": 1,
    }
    return judge_chaos(**{**facts, **changes})


def test_a_run_that_was_cut_off_by_a_kill_is_attributed() -> None:
    verdict = judged()
    assert (verdict.ended, verdict.lost, verdict.equal, verdict.wrong) == (1, 0, 1, [])
    assert (verdict.duplicates, verdict.attributed, verdict.recovery) == (1, 1, [2.5])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"told": {}}, "lost"),
        ({"records": {"a": None}}, "lost"),
        ({"told": {"a": None}}, "failed"),
        ({"told": {"a": Outcome(answer=ANSWER, fence=6)}}, "told the outcome of run 6"),
        ({"told": {"a": Outcome(answer={**ANSWER, "lines": 9}, fence=7)}}, "computed"),
        ({"records": {"a": RECORD._replace(state=JobState.QUEUED)}}, "holds it as queued"),
        ({"runs": [FIRST]}, "of no run"),
        ({"runs": [SECOND, SECOND]}, "of no run"),
        ({"kills": []}, "process 100 ran it too"),
        ({"kills": [Kill("reaper", 100, 2.5)]}, "process 100 ran it too"),
        ({"slots": 0}, "1 duplicates, and at most 0"),
        ({"runs": [FIRST, SECOND, Run("b", 9, 200, 7.0)]}, "b: ran, and nobody asked"),
    ],
)
def test_what_must_not_happen_is_told(changes: dict[str, Any], says: str) -> None:
    verdict = judged(**changes)
    assert len(verdict.wrong) == 1
    assert says in verdict.wrong[0]


def test_a_file_that_changed_or_cannot_be_read_is_not_held_against_anybody() -> None:
    changed = Expected({"a": {**ANSWER, "lines": 9}}, {"a"})
    verdict = judged(expected=changed)
    assert (verdict.ended, verdict.changed, verdict.wrong) == (1, 1, [])
    failed = RECORD._replace(state=JobState.FAILED)
    verdict = judged(expected=Expected({"a": None}), told={"a": None}, records={"a": failed})
    assert (verdict.ended, verdict.wrong) == (1, [])


def test_notes_are_read_even_without_an_end(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "none") == []
    notes = tmp_path / "notes"
    lines = [["start", "a", 6, 100, 1.0], ["start", "a", 7, 200, 5.0], ["end", "a", 7, 200, 6.0]]
    notes.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_runs(notes) == [FIRST, SECOND]
    assert replace(FIRST).ended is None


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
    with viewing(console) as view:
        view.tell("something\x1b[2Jhappens")
        view.show(children, {"queued": 5, "failed": 0}, {"worker-1": 8})
    text = out.getvalue()
    states = ["runs 8 jobs", "killed", "leads, term 9, recovered 3 jobs", "ended", "jobs: 5 queued"]
    for part in ["something\\x1b[2Jhappens", *states]:
        assert part in text
