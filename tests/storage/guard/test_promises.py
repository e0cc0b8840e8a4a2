"""What an operator relies on: stuck jobs, the rate, several queues, a closing that writes the rest."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.guard import GuardedStorage
from jobqueue.storage.guard.reconcile import Reconciler
from jobqueue.storage.values import NewJob, Renewal
from tests.services import Server
from tests.storage.guard.support import rows
from tests.storage.guard.test_losses import told
from tests.storage.guard.test_mended import another, sql


async def test_a_job_whose_lease_is_long_over_is_stuck_and_runs_again(
    store: GuardedStorage, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = store._open_session()
    options = opened.reconciler._options
    monkeypatch.setattr(opened.reconciler, "_options", options._replace(stuck_after=0.05))
    await store.insert("q", [NewJob("dead", b""), NewJob("long", b"")])
    jobs = {job.id: job for job in (await store.exchange("q", "w", [], 2, 100)).jobs}
    await store.extend("q", "w", [Renewal("long", jobs["long"].fence)], 60_000)  # a heartbeat
    await asyncio.sleep(0.3)
    await told(store)
    assert (await store.guard.reconcile()).stuck == 1
    assert (await store.guard.stats()).stuck == 1
    dead, long = await store.get("q", ["dead", "long"])
    assert dead is not None
    assert long is not None
    assert (dead.state, dead.stalls) == (JobState.QUEUED, 1)
    assert (long.state, long.stalls) == (JobState.PROCESSING, 0), "its lease was renewed"
    assert (await store.guard.reconcile()).stuck == 0
    assert (await store.guard.stats()).stuck == 0


async def test_lost_jobs_come_back_at_the_rate_that_was_asked_for(
    redis: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = another(redis, schema, rate=20.0, batch_size=50)
    await store.open()
    ids = [f"job-{n}" for n in range(90)]
    await store.insert("q", [NewJob(id, b"") for id in ids])
    await sql("update {s}.job set created = created - 60000", schema)
    await store._inner.forget("q", ids)  # type: ignore[attr-defined]
    paused: list[float] = []

    async def pause(_self: Reconciler, seconds: float) -> None:
        paused.append(round(seconds, 2))

    monkeypatch.setattr(Reconciler, "_pause", pause)
    done = await store._open_session().reconciler.once()
    assert (done.compared, done.requeued) == (90, 90)
    # a second look for each page, and a second for each twenty jobs
    assert paused == [1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]
    await store.close()


async def test_queues_are_counted_and_compared_each_by_itself(redis: Server, store: GuardedStorage) -> None:
    for queue in ("a", "b"):
        await store.insert(queue, [NewJob("same-id", queue.encode())])
    await store.exchange("a", "w", [], 1, 60_000)
    await told(store)
    assert [(await store.guard.stats(queue)).processing for queue in ("a", "b")] == [1, 0]
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile("b")).requeued == 1
    assert (await store.counts("a")).queued == 0
    assert (await store.guard.reconcile()).requeued == 1
    for queue in ("a", "b"):
        assert [job.payload for job in (await store.exchange(queue, "w", [], 9, 60_000)).jobs] == [
            queue.encode()
        ]


async def test_closing_writes_the_rest(redis: Server, schema: str) -> None:
    store = another(redis, schema)
    await store.open()
    await store.insert("q", [NewJob("a", b"")])
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    await store.exchange("q", "w", [Settlement("a", job.fence, Action.COMPLETE, b"r", 60_000)], 0, 60_000)
    assert store.guard.buffered > 0
    await store.close()
    assert await rows(schema, "id, state, outcome") == [("a", 5, b"r")]
