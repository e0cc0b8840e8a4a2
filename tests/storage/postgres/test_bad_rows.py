"""Rows that were edited by hand stop nobody: they are left out, shown by fsck, and all else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from jobqueue import Job, JobState, Queue, Reaper
from jobqueue.events import ErrorOccurred
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import NewJob
from tests.storage.postgres.support import connection, postgres_storage

BOUND = 30.0
GOOD = {"a0", "a2", "b0"}
MOST = 2**63 - 1

BAD = {
    "a group that its place does not have": "update job set group_name = E'\\x01' where id = 'a1'",
    "ready without its job": "delete from job where id = 'a1'",
    "due without its job": "delete from job where id = 'later'",
    "a lease without its job": "delete from job where id = 'runs'",
    "an outcome without its job": "delete from job where id = 'ended'",
    "a job that is nowhere": "delete from ready where id = 'a1'",
    "a job that waits and is to come": "insert into due (queue, at, seq, updated, priority, id)"
    " select queue, 0, seq, 0, 0, id from ready where id = 'a1'",
    "a job that waits and has ended": "insert into ready (queue, priority, place, seq, due, updated, slot,"
    " id) select queue, 0, seq, seq, 0, 0, 0, id from job where id = 'ended'",
    "an outcome of no state": "update outcome set state = 99 where id = 'ended'",
    "an outcome of a live state": "update outcome set state = 2 where id = 'ended'",
    "attempts at their largest": "update ready set attempts = 2147483647 where id = 'a1'",
    "attempts of a due job at their largest": "update due set at = 0, attempts = 2147483647",
    "stalls at their largest": "update lease set stalls = 2147483647",
    "negative attempts": "update due set attempts = -5",
    "limits below zero": "update job set max_attempts = -1, max_stalls = -1 where id in ('a1', 'runs')",
}
"""What fsck shows."""
ODD = {
    "a result that is missing": "update outcome set data = null where id = 'ended'",
    "an error that cannot be read": "update outcome set data = '\\xff00' where id = 'failed'",
    "an attempt that cannot be read": "update attempt set error = '\\xff00'",
    "a checkpoint that cannot be read": "update detail set error = '\\xff00', saved = '\\xff00'",
    "headers that cannot be read": "update job set headers = '\\xff00' where id = 'a1'",
    "a payload that cannot be read": "update job set payload = '\\xff00' where id = 'a1'",
    "instants without end": f"update lease set until = {MOST}; update due set at = {MOST}, updated = {MOST};"
    f" update ready set due = {MOST}, updated = {MOST} where id = 'a1'; update job set created = {MOST}",
    "instants before the beginning": f"update lease set until = -{MOST}; update due set updated = -{MOST};"
    f" update ready set due = -{MOST}, updated = -{MOST} where id = 'a1'; update job set created = -{MOST}",
    "an id that is empty": "update job set id = '' where id = 'a1'; update ready set id = '' where id = 'a1'",
    "a task without a name": "update job set task = E'\\n' where id = 'a1'",
    "a waiter at no address": "insert into waiter select seq, E'\\n', 0 from ready",
    "a worker without a name": "insert into worker select queue, '', 0 from queue",
    "a queue of a strange name": "insert into queue (name) values (E'\\n\\u202e')",
    "a lock without end": f"insert into lock values ('reaper', 'nobody', -1, {MOST})",
}
"""What a store does not judge: contents are opaque to it, and the rest contradicts nothing."""
REFUSED = {
    "a time to live without end": f"update job set ttl = {MOST} where id = 'a1'",
    "a negative time to live": "update job set ttl = -5 where id = 'a1'",
}
"""What the tables refuse."""


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage() as store:
        await store.open()
        await fill(store)
        yield store
        await store.close()


async def fill(store: PostgresStorage) -> None:
    """Make a job in each state; that which runs is lost soon."""
    await store.insert("q", [NewJob(id, b"1", ttl=600_000) for id in ("ended", "failed", "runs")])
    ended, failed, _ = (await store.exchange("q", "dead", (), 3, 50)).jobs
    await store.exchange(
        "q",
        "dead",
        [
            Settlement("ended", ended.fence, Action.COMPLETE, b"1", 600_000),
            Settlement("failed", failed.fence, Action.RETRY, b'{"type": "E", "message": ""}', delay=0),
        ],
        0,
        50,
    )
    (failed,) = (await store.exchange("q", "dead", (), 1, 600_000)).jobs
    error = Settlement("failed", failed.fence, Action.FAIL, b'{"type": "E", "message": ""}', 600_000)
    await store.exchange("q", "dead", [error], 0, 50)
    jobs = [NewJob(id, b"1", ttl=600_000) for id in ("a0", "a1", "a2")]
    await store.insert("q", [*jobs, NewJob("later", b"1", delay=300), NewJob("b0", b"1")])


async def harm(store: PostgresStorage, sql: str) -> None:
    async with connection() as admin:
        await admin.execute(f"set search_path = {quoted(store._settings.schema)}; {sql}")


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED)
async def test_what_no_worker_could_hand_in_is_refused(storage: PostgresStorage, edit: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await harm(storage, edit)


@pytest.mark.parametrize("name", [*BAD, *ODD])
async def test_everything_else_goes_on(storage: PostgresStorage, name: str) -> None:
    await harm(storage, {**BAD, **ODD}[name])
    assert bool(await storage.check()) is (name in BAD)
    ran, done, errors = set[str](), asyncio.Event(), list[str]()

    async def handler(job: Job[Any]) -> None:
        ran.add(job.id)
        if ran >= GOOD:
            done.set()

    queue = Queue[Any, Any](storage.clone(), name="q", block_timeout=0.2)
    reaper = Reaper(storage.clone(), sweep_interval=0.1)
    queue.execute(handler)
    for source in (queue, reaper):
        source.on(ErrorOccurred, lambda event: errors.append(f"{event.doing}: {event.error}"))
    async with asyncio.timeout(BOUND), queue, reaper:
        await done.wait()
        await queue.enqueue_and_wait("new", 1, timeout=BOUND)
        for state in JobState:
            await storage.scan("q", state, 100)
        ids = ["a0", "a1", "a2", "b0", "later", "runs", "ended", "failed", ""]
        for id in ids[:-1]:
            await queue.get_status(id)
            await queue.jobs.get(id)
        listed = {job.id for job in (await queue.jobs.list(limit=100)).jobs}
        assert listed >= GOOD
        await storage.counts("q")
        await storage.workers("q")
        await storage.queues()
        await storage.cancel("q", ids[:-1])
        await storage.set_ttl("q", [(id, 1000) for id in ids[:-1]])
        await storage.revive("q", ids[:-1])
        assert (await queue.enqueue("a1", 1)).status in ("queued", "duplicate", "completed")
        await storage.purge("q", 100)
        assert queue.ready
    assert errors == []
