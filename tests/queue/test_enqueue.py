"""Creating jobs, joining live ones, and replaying ended ones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import (
    CancelStatus,
    EnqueueRequest,
    EnqueueStatus,
    Fatal,
    Job,
    JobFailedError,
    JobState,
    MsgpackSerde,
    QueueFullError,
    UpdateTtlStatus,
)
from jobqueue.testing import FakeClock
from tests.support import Gate, Lab, Recorder, echo, within

FALSY = [None, False, 0, "", [], {}, 0.0]


async def test_an_enqueued_job_waits_until_somebody_runs_it(lab: Lab) -> None:
    queue = await lab.start()
    answer = await queue.enqueue("a", {"w": 200})
    assert (answer.id, answer.status, answer.state, answer.result) == ("a", "queued", "queued", None)
    assert answer.status is EnqueueStatus.QUEUED
    assert await lab.state("a") == "queued"
    queue.execute(echo)
    assert await within(queue.wait("a")) == {"w": 200}


async def test_no_id_makes_a_unique_one(lab: Lab) -> None:
    queue = await lab.start()
    answers = [await queue.enqueue(None, n) for n in range(50)]
    assert len({answer.id for answer in answers}) == 50
    assert {answer.status for answer in answers} == {"queued"}
    assert await lab.total() == 50


async def test_a_live_job_is_joined_and_its_payload_kept(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    await queue.enqueue("a", "first")
    await within(gate.began.wait())
    answer = await queue.enqueue("a", "second", reuse="rerun")
    assert (answer.status, answer.state) == ("duplicate", JobState.PROCESSING)
    gate.go.set()
    assert await within(queue.wait("a")) == "done"
    assert [job.payload for job in gate.jobs] == ["first"]


@pytest.mark.parametrize("result", FALSY, ids=repr)
async def test_a_falsy_result_is_a_result(lab: Lab, result: Any) -> None:
    queue = await lab.start(echo)
    assert await within(queue.enqueue_and_wait("a", result)) == result
    assert await within(queue.wait("a")) == result
    replay = await queue.enqueue("a", "another")
    assert (replay.status, replay.state, replay.result) == ("completed", "completed", result)
    assert type(replay.result) is type(result)
    assert await queue.get_result("a", default="none") == result
    assert await within(queue.enqueue_and_wait("a", "another")) == result


async def test_an_ended_job_is_replayed_or_rerun_as_asked(lab: Lab) -> None:
    runs: list[Any] = []

    async def handler(job: Job[Any]) -> Any:
        runs.append(job.payload)
        if job.payload == "bad":
            raise Fatal("no")
        return job.payload

    queue = await lab.start(handler)
    assert await within(queue.enqueue_and_wait("good", 1)) == 1
    assert (await queue.enqueue("good", 2, reuse="rerun_failed")).result == 1
    assert await within(queue.enqueue_and_wait("good", 3, reuse="rerun")) == 3
    with pytest.raises(JobFailedError):
        await within(queue.enqueue_and_wait("bad", "bad"))
    again = await queue.enqueue("bad", 4)
    assert (again.status, again.state) == ("duplicate", "failed")
    assert await within(queue.enqueue_and_wait("bad", 5, reuse="rerun_failed")) == 5
    assert runs == [1, 3, "bad", 5]


async def test_waiting_for_a_failed_id_raises_its_error_at_once(lab: Lab) -> None:
    async def handler(job: Job[Any]) -> None:
        raise Fatal("broken")

    queue = await lab.start(handler)
    for _ in range(2):
        with pytest.raises(JobFailedError) as caught:
            await within(queue.enqueue_and_wait("a", 1))
        error = caught.value
        assert (error.job_id, error.attempts, error.reason) == ("a", 1, "fatal")
        assert error.error.message == "broken"
    with pytest.raises(JobFailedError):
        await within(queue.wait("a"))


async def test_a_cancelled_id_is_free_at_once(lab: Lab) -> None:
    queue = await lab.start()
    await queue.enqueue("a", "old")
    assert await queue.cancel("a") is CancelStatus.CANCELLED
    assert (await queue.enqueue("a", "new")).status == "queued"
    queue.execute(echo)
    assert await within(queue.wait("a")) == "new"


async def test_cancel_says_what_it_found(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate)
    assert await queue.cancel("a") == "not_found"
    await queue.enqueue("a", 1)
    await within(gate.began.wait())
    assert await queue.cancel("a") == "processing"
    gate.go.set()
    await within(queue.wait("a"))
    assert await queue.cancel("a") == "completed"
    assert await queue.cancel("a", running=True) == "completed"


async def test_many_are_stored_in_order_and_answered_in_order(lab: Lab) -> None:
    ran: list[Any] = []

    async def handler(job: Job[Any]) -> None:
        ran.append(job.id)

    queue = await lab.start()
    await queue.enqueue("b", 0)
    answers = await queue.enqueue_many(
        [
            ("a", 1),
            ("b", 2),
            EnqueueRequest("late", 3, delay=60),
            (None, 4),
            EnqueueRequest("top", 5, priority=9),
            ("a", 6),
        ]
    )
    assert [answer.status for answer in answers] == [
        "queued",
        "duplicate",
        "queued",
        "queued",
        "queued",
        "duplicate",
    ]
    assert [answer.state for answer in answers] == [
        "queued",
        "queued",
        "scheduled",
        "queued",
        "queued",
        "queued",
    ]
    queue.execute(handler)
    await within(queue.wait(answers[3].id))
    assert ran == ["top", "b", "a", answers[3].id]


async def test_a_thousand_at_once(lab: Lab) -> None:
    queue = await lab.start(echo, concurrency=50)
    answers = await queue.enqueue_many((f"j{n}", n) for n in range(1200))
    assert {answer.status for answer in answers} == {"queued"}
    assert await within(asyncio.gather(*(queue.wait(f"j{n}") for n in range(1200)))) == list(range(1200))


async def test_no_requests_need_no_store(lab: Lab) -> None:
    queue = await lab.start()
    assert await queue.enqueue_many([]) == []


async def test_priority_first_then_first_in_first_out(lab: Lab) -> None:
    ran: list[str] = []

    async def handler(job: Job[Any]) -> None:
        ran.append(job.id)

    queue = await lab.start()
    for id, priority in (("a", 0), ("b", 5), ("c", -1000), ("d", 5), ("e", 0), ("f", 1000)):
        await queue.enqueue(id, None, priority=priority)
    queue.execute(handler)
    await within(queue.wait("c"))
    assert ran == ["f", "b", "d", "a", "e", "c"]


async def test_a_full_queue_refuses_but_still_joins(lab: Lab) -> None:
    queue = await lab.start(max_length=2)
    await queue.enqueue_many([("a", 1), EnqueueRequest("b", 2, delay=60)])
    with pytest.raises(QueueFullError, match="max_length of 2"):
        await queue.enqueue("c", 3)
    with pytest.raises(QueueFullError):
        await within(queue.enqueue_and_wait("c", 3))
    with pytest.raises(QueueFullError):
        await queue.enqueue_many([("a", 1), ("c", 3)])
    assert (await queue.enqueue("a", 1)).status == "duplicate"
    assert await queue.get_status("c") is None


async def test_delay_and_run_at_make_a_job_due_later(lab: Lab, clock: FakeClock) -> None:
    ran: list[tuple[str, float]] = []

    async def handler(job: Job[Any]) -> None:
        ran.append((job.id, clock.monotonic()))

    queue = await lab.start(handler)
    at = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=7)
    assert (await queue.enqueue("d", None, delay=12)).state == "scheduled"
    assert (await queue.enqueue("r", None, run_at=at)).state == "scheduled"
    assert (await queue.enqueue("past", None, run_at=at - timedelta(days=1))).state == "queued"
    await clock.advance(6.9)
    assert [id for id, _ in ran] == ["past"]
    await clock.advance(10)
    assert [id for id, _ in ran] == ["past", "r", "d"]
    assert [round(when, 2) for _, when in ran[1:]] == [7.0, 12.0]


@pytest.mark.parametrize(
    ("at", "read"),
    [
        (datetime.min.replace(tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)),
        (datetime.max.replace(tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
async def test_the_first_and_the_last_instant_can_be_asked_for(
    lab: Lab, at: datetime, read: datetime
) -> None:
    queue = await lab.start()
    await queue.enqueue("a", None, run_at=at)
    status = await queue.get_status("a")
    assert status is not None
    assert status.run_at == read


async def test_run_at_may_be_in_any_time_zone(lab: Lab) -> None:
    from datetime import timezone

    queue = await lab.start()
    at = datetime(2990, 5, 1, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    await queue.enqueue("a", None, run_at=at)
    status = await queue.get_status("a")
    assert status is not None
    assert status.run_at == at
    assert status.run_at.utcoffset() == timedelta(0)


async def test_outcome_and_dedup_mark_expire_together(lab: Lab, clock: FakeClock) -> None:
    queue = await lab.start(echo, result_ttl=100)
    await within(queue.enqueue_and_wait("a", 1))
    await within(queue.enqueue_and_wait("short", 1, result_ttl=10))
    await clock.advance(11)
    assert (await queue.enqueue("a", 2)).result == 1
    assert await queue.get_status("short") is None
    assert await queue.get_result("short", "gone") == "gone"
    assert (await queue.enqueue("short", 2)).status == "queued"
    assert await queue.update_result_ttl("a", 500) is UpdateTtlStatus.UPDATED
    await clock.advance(400)
    assert await queue.get_result("a") == 1
    await clock.advance(101)
    assert await queue.get_result("a") is None


async def test_update_result_ttl_says_what_it_found(lab: Lab) -> None:
    queue = await lab.start()
    assert await queue.update_result_ttl("a", 1) == "not_found"
    await queue.enqueue("a", 1)
    assert await queue.update_result_ttl("a", 1) == "not_terminal"
    queue.execute(echo)
    await within(queue.wait("a"))
    assert await queue.update_result_ttl("a", 60) == "updated"


async def test_status_tells_what_is_known(lab: Lab) -> None:
    gate = Gate("value")
    queue = await lab.start(gate, worker_id="w-1", max_attempts=4)
    assert await queue.get_status("a") is None
    before = datetime.fromtimestamp(lab.storage.clock.time() - 1, UTC)
    await queue.enqueue("a", 1, priority=7)
    await within(gate.began.wait())
    await gate.jobs[0].progress({"done": 3})
    status = await queue.get_status("a")
    assert status is not None
    assert (status.id, status.state, status.attempts, status.max_attempts) == ("a", "processing", 1, 4)
    assert (status.priority, status.worker_id, status.progress) == (7, "w-1", {"done": 3})
    assert (status.result, status.error, status.expires_at) == (None, None, None)
    assert before < status.created_at <= status.updated_at
    assert status.created_at.tzinfo is UTC
    assert gate.jobs[0].created_at == status.created_at
    gate.go.set()
    await within(queue.wait("a"))
    status = await queue.get_status("a")
    assert status is not None
    assert (status.state, status.result, status.worker_id) == ("completed", "value", None)
    assert status.expires_at is not None
    assert status.expires_at > status.updated_at


async def test_what_a_handler_gets(lab: Lab) -> None:
    gate = Gate()
    queue = await lab.start(gate, worker_id="w-1", max_attempts=5)
    await queue.enqueue("a", {"deep": [1, {"x": None}]})
    await within(gate.began.wait())
    (job,) = gate.jobs
    assert (job.id, job.payload, job.attempts, job.max_attempts) == ("a", {"deep": [1, {"x": None}]}, 1, 5)
    assert (job.queue, job.worker_id, job.aborted_reason) == ("q", "w-1", None)
    assert not job.aborted.is_set()
    assert job.fence > 0
    assert "'a'" in repr(job)
    assert "deep" not in repr(job)


@pytest.mark.parametrize(
    "id", ["a:b", "../x", "{}", "*", "a b", "ü", "😀", "x" * 256, "é", "e\u0301", "A", "%s", "\u202e"]
)
async def test_ids_are_compared_byte_by_byte(lab: Lab, id: str) -> None:
    queue = await lab.start(echo)
    for other in ("a", "E\u0301", "É"):
        await queue.enqueue(other, "other")
    assert await within(queue.enqueue_and_wait(id, "mine")) == "mine"
    assert (await queue.enqueue(id, "again")).result == "mine"


async def test_queues_of_other_names_are_apart(lab: Lab) -> None:
    one, two = await lab.start(echo, name="one"), await lab.start(name="two")
    await two.enqueue("a", "two")
    assert await within(one.enqueue_and_wait("a", "one")) == "one"
    assert await lab.state("a", "two") == "queued"


async def test_queues_of_one_name_share_their_jobs(lab: Lab) -> None:
    producer, consumer = await lab.start(), await lab.start(echo)
    events = Recorder(consumer)
    assert await within(producer.enqueue_and_wait("a", 1)) == 1
    assert await consumer.get_result("a") == 1
    await events.wait("completed")


async def test_msgpack_carries_bytes(lab: Lab) -> None:
    queue = await lab.start(echo, payload_serde=MsgpackSerde(), result_serde=MsgpackSerde())
    value = {"raw": b"\x00\xff", 1: [None, 2.5]}
    assert await within(queue.enqueue_and_wait("a", value)) == value
    status = await queue.get_status("a")
    assert status is not None
    assert status.result == value
