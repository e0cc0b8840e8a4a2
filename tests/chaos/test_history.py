"""The check of histories: one that fits is passed, and each thing that does not is named."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from jobqueue import Job, JobNotFoundError, MemoryStorage, Queue
from tests.chaos.check import Model, Verdict, judge
from tests.chaos.history import (
    Answer,
    Fault,
    Final,
    Invoke,
    Line,
    Outcome,
    Recorder,
    Run,
    decode,
    encode,
    history,
    lines_of,
    read,
)

pytestmark = pytest.mark.quick

CALLER, FIRST, SECOND, HARNESS = 7, 8, 9, 1
MODEL = Model(lease=2.0)


def invoke(t: float, op: str = "enqueue", call: int = 1, expect: Any = None) -> Invoke:
    return Invoke(t=t, pid=CALLER, call=call, op=op, id="a", expect=expect)


def answer(t: float, said: str, value: Any = None, call: int = 1) -> Answer:
    return Answer(t=t, pid=CALLER, call=call, id="a", said=said, value=value)


def run(t: float, fence: int, pid: int = FIRST, id: str = "a") -> Run:
    return Run(t=t, pid=pid, id=id, fence=fence)


def outcome(t: float, fence: int, how: str = "returned", value: Any = "A", pid: int = FIRST) -> Outcome:
    return Outcome(t=t, pid=pid, id="a", fence=fence, how=how, value=value)


def fault(
    t: float, kind: str = "kill", target: int | None = FIRST, until: float = 0.0, since: float | None = None
) -> Fault:
    return Fault(t=t, pid=HARNESS, kind=kind, target=target, until=until or t, since=since)


def final(
    state: str | None = "completed", fence: int = 1, value: Any = "A", reason: str | None = None
) -> Final:
    return Final(t=50.0, pid=HARNESS, id="a", state=state, fence=fence, value=value, reason=reason)


ENQUEUED: list[Line] = [invoke(1.0), answer(1.1, "queued")]
PLAIN: list[Line] = [*ENQUEUED, run(2.0, 1), outcome(2.5, 1), final()]
TWICE: list[Line] = [*ENQUEUED, run(2.0, 1), run(6.0, 3, SECOND), outcome(6.5, 3, pid=SECOND), final(fence=3)]


def judged(*lines: Line) -> Verdict:
    return judge(history(list(lines)), MODEL)


@pytest.mark.parametrize(
    "lines",
    [
        PLAIN,
        [*PLAIN, invoke(3.0, "wait", 2), answer(3.1, "completed", "A", 2)],
        [*PLAIN, invoke(1.2, "wait", 2), answer(31.2, "unknown", None, 2)],
        [*PLAIN, invoke(1.0, "enqueue", 2), answer(1.3, "duplicate", None, 2)],
        [*ENQUEUED, run(2.0, 1), outcome(2.1, 1, "raised"), run(3.0, 2), outcome(3.1, 2), final(fence=2)],
        [*ENQUEUED, run(2.0, 1), outcome(2.1, 1, "raised"), final("failed", 1, None, "error")],
        [*ENQUEUED, invoke(1.5, "cancel", 2), answer(1.6, "cancelled", None, 2), final("cancelled", 0, None)],
        [invoke(1.0), answer(1.1, "refused"), final(None)],
        [invoke(1.0), answer(1.1, "unknown"), final(None)],
        [invoke(1.0), fault(1.1, target=CALLER), run(40.0, 1), outcome(40.1, 1), final()],
        [invoke(1.0), answer(1.1, "unknown"), invoke(2.0, call=2), answer(2.1, "duplicate", None, 2),
         *PLAIN[2:]],
        [*ENQUEUED, run(2.0, 1), fault(2.1), final()],  # it died after its result was stored
        [*ENQUEUED, *(run(2.0 + n, n) for n in range(4)), fault(2.6),  # it died before its failure was
         *(outcome(2.5 + n, n, "raised") for n in range(4)), final("failed", 3, None, "error")],
    ],
)  # fmt: skip
def test_what_fits_has_no_problem(lines: list[Line]) -> None:
    assert judged(*lines).problems == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([*ENQUEUED, final(None)], "was accepted and is gone"),
        ([*ENQUEUED, final("processing")], "was accepted and is processing"),
        (ENQUEUED, "nobody looked how it ended"),
        ([invoke(1.0), answer(1.1, "unknown"), final("queued")], "is still queued"),
        ([*PLAIN, invoke(3.0, "wait", 2)], "was never answered"),
        ([*PLAIN, answer(3.0, "completed", "A", 2)], "nobody had called"),
        ([*PLAIN, answer(3.0, "queued")], "answered twice"),
        ([*PLAIN, invoke(3.0, "enqueue", 2), answer(3.1, "queued", None, 2)], "was created 2 times"),
        ([invoke(1.0), answer(1.1, "duplicate"), *PLAIN[2:]], "nobody had created it"),
        ([*PLAIN, invoke(0.5, call=2), answer(0.6, "duplicate", None, 2)], "before it was created"),
        ([*PLAIN, invoke(1.2, "wait", 2), answer(1.9, "completed", "A", 2)], "no run had returned one"),
        ([*PLAIN, invoke(3.0, "wait", 2), answer(3.1, "completed", "B", 2)], "got 'B', and the store has"),
        ([*PLAIN, invoke(3.0, "wait", 2), answer(3.1, "failed", None, 2)], "told failed"),
        ([*PLAIN, invoke(3.0, "wait", 2), answer(3.1, "not_found", None, 2)], "did not find it"),
        (
            [*PLAIN, invoke(3.0, "status", 2), answer(3.1, "completed", "A", 2),
             invoke(4.0, "status", 3), answer(4.1, "processing", None, 3)],
            "after it had ended",
        ),
        ([*PLAIN, run(0.5, 5, id="b"), outcome(0.6, 5)], "b: ran in process 8, and nobody had asked"),
        ([*PLAIN, run(3.0, 1, id="b")], "fence 1 was given to 2 runs"),
        ([*ENQUEUED, run(2.0, 1), final()], "never ended, and nobody ended the process"),
        ([*PLAIN[:-1], final(fence=2)], "is of no run that was seen"),
        ([*ENQUEUED, run(2.0, 1), outcome(2.1, 1, "raised"), final()], "fence 1 raised"),
        ([*PLAIN, run(7.0, 5, SECOND), outcome(7.1, 5, pid=SECOND)], "ran again after its outcome"),
        ([invoke(1.0, expect="X"), *PLAIN[1:]], "and not as 'X'"),
        ([*ENQUEUED, final("failed", 4, None, "stalled")], "no fault was there"),
        ([*PLAIN[:-1], final("failed", 1, None, "error")], "no run of it did"),
        ([*ENQUEUED, final("cancelled")], "cancelled by nobody"),
        ([*PLAIN, invoke(1.5, "cancel", 2), answer(1.6, "cancelled", None, 2)], "and is completed"),
        (
            [*ENQUEUED, *(run(2.0 + n, n) for n in range(4)),
             *(outcome(2.5 + n, n, "raised") for n in range(4)), final("failed", 3, None, "error")],
            "was tried 4 times",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(lines: list[Line], says: str) -> None:
    problems = judged(*lines).problems
    assert any(says in problem for problem in problems), problems


@pytest.mark.parametrize(
    "cause",
    [
        fault(2.2),
        fault(2.2, "stop"),
        fault(2.2, "freeze", until=5.5),
        fault(2.2, "cut", None, until=3.0),
        fault(2.2, "starved", until=4.0),
        fault(2.2, "restart", None),
        fault(2.2, "clock", None),
    ],
)
def test_a_second_run_is_explained_by_a_fault(cause: Fault) -> None:
    verdict = judged(*TWICE, cause, outcome(7.0, 1, "lease_lost"))
    assert verdict.problems == []
    assert (verdict.duplicates, dict(verdict.causes)) == (1, {cause.kind: 1})


def test_recovery_is_the_time_from_the_kill_to_the_next_run() -> None:
    assert judged(*TWICE, fault(2.2)).recovery == [pytest.approx(3.8)]


@pytest.mark.parametrize(
    "cause",
    [
        fault(2.2, target=SECOND),
        fault(7.0),
        fault(2.2, "freeze", until=2.5),  # shorter than a third of the lease
        fault(2.2, "cut", None, until=2.3),
    ],
)
def test_a_second_run_is_not_explained_by_just_any_fault(cause: Fault) -> None:
    problems = judged(*TWICE, cause, outcome(7.0, 1, "lease_lost")).problems
    assert any("nothing explains that" in problem for problem in problems)


def test_short_freezes_add_up() -> None:
    freezes = [fault(2.2 + n, "freeze", until=2.5 + n) for n in range(3)]
    assert judged(*TWICE, *freezes, outcome(7.0, 1, "lease_lost")).problems == []


def test_what_a_rollback_may_have_taken_is_forgotten_and_not_lost() -> None:
    verdict = judged(*ENQUEUED, final(None), fault(1.5, "rollback", None, since=0.5))
    assert (verdict.lost, verdict.forgotten, verdict.problems) == (0, 1, [])
    assert judged(*ENQUEUED, final(None), fault(1.5, "rollback", None, since=1.2)).lost == 1


def test_a_call_over_all_of_a_rollback_may_have_had_its_effect_in_it() -> None:
    waited = [invoke(1.0, "enqueue_and_wait"), answer(4.0, "not_found")]
    verdict = judged(*waited, final(None), fault(3.0, "rollback", None, since=2.0))
    assert (verdict.lost, verdict.forgotten, verdict.problems) == (0, 1, [])
    assert judged(*waited, final(None), fault(6.0, "rollback", None, since=5.0)).lost == 1


def test_a_run_that_failed_after_it_had_been_replaced_is_no_attempt() -> None:
    lines: list[Line] = [
        *ENQUEUED, run(2.0, 1), outcome(2.1, 1, "raised"), run(3.0, 2), outcome(3.1, 2, "raised"),
        run(4.0, 3), fault(4.1, "freeze", until=8.0), run(6.0, 4, SECOND),
        outcome(6.1, 4, "raised", pid=SECOND), outcome(8.1, 3, "raised"), final("failed", 4, None, "error"),
    ]  # fmt: skip
    assert judged(*lines).problems == []


def test_the_lines_of_what_does_not_fit_are_told() -> None:
    lines = [*PLAIN, invoke(1.0, call=2), run(3.0, 5, id="b"), fault(9.0)]
    assert lines_of(history(lines), ["b: ran, and nobody had asked"]) == [lines[-2], lines[-1]]


def test_a_guard_may_end_a_job_by_what_its_ledger_knows() -> None:
    lines = [*PLAIN[:-1], final(fence=2)]
    read = history(lines)
    assert judge(read, MODEL._replace(guarded=True)).problems == []
    another = history([*PLAIN[:-1], final(fence=2, value="other")])
    assert judge(another, MODEL._replace(guarded=True)).problems != []


def test_lines_survive_the_file(tmp_path: Path) -> None:
    lines = [*TWICE, fault(2.2, since=1.0)]
    assert [decode(encode(line)) for line in lines] == lines
    file = tmp_path / "history"
    file.write_bytes(b"".join(map(encode, lines)))
    assert read(file) == history(lines)


@pytest.mark.parametrize("line", [b'{"event": "other"}', b'{"event": "run", "t": 1}', b"[1", b"{}"])
def test_a_line_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"line|char"):
        decode(line)


async def test_a_queue_is_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "history")
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q", max_length=2)

    @queue.execute
    async def handle(job: Job[Any]) -> Any:
        recorder.run(job.id, job.fence)
        recorder.outcome(job.id, job.fence, "returned", job.payload)
        return job.payload

    async with queue:
        await asyncio.gather(
            *(recorder.call("enqueue_and_wait", id, queue.enqueue_and_wait(id, id), id) for id in "ab")
        )
        assert (await recorder.call("enqueue", "a", queue.enqueue("a", "a"))).result == "a"
        assert isinstance(await recorder.call("wait", "x", queue.wait("x")), JobNotFoundError)
        await recorder.call("enqueue", "c", queue.enqueue("c", object()))
        await recorder.call("status", "b", queue.get_status("b"))
        for id in "abc":
            status = await queue.get_status(id)
            record = (await queue.storage.get("q", [id]))[0]
            recorder.final(
                id, None if status is None else status.state, 0 if record is None else record.fence, id
            )
    with recorder.fault("clock", os.getpid(), lost=0.0):
        pass
    found = read(tmp_path / "history")
    assert [answer.said for answer in found.answers][2:] == ["completed", "not_found", "refused", "completed"]
    verdict = judge(found, MODEL)
    assert verdict.problems == []
    assert str(verdict).startswith("2 accepted, 2 ended, 0 lost, 0 forgotten, 2 runs, 0 duplicates (none)")
