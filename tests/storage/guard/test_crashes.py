"""Processes die by SIGKILL between the ledger and the store: whatever had returned is there afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.guard.reconcile import Reconciler
from jobqueue.storage.guard.session import GuardSession
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.guard.support import rows
from tests.storage.guard.test_losses import told
from tests.storage.postgres.server import postgres_url

STEPS = [
    (PostgresLedger, "write", "before"),
    (PostgresLedger, "write", "after"),
    (RedisStorage, "insert", "before"),
    (RedisStorage, "insert", "after"),
    (PostgresLedger, "record", "before"),
    (PostgresLedger, "record", "after"),
]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(of: type, name: str, place: str, at: int = 1) -> None:
    """Have the process die at the ``at``-th call of a method, before or after it."""
    call: Callable[..., Awaitable[Any]] = getattr(of, name)
    calls = 0

    async def called(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and place == "before":
            die()
        answer = await call(*args, **options)
        if calls == at:
            die()
        return answer

    setattr(of, name, called)


async def in_child(work: Callable[[], Awaitable[None]], prepare: Callable[[], None]) -> int:
    """Do something in a forked process; return the signal that ended it, or 0."""
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            asyncio.run(_as_coroutine(work))
        finally:
            os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize(("of", "name", "place"), STEPS)
def test_a_producer_that_is_killed_leaves_one_job_or_none(
    redis: Server, schema: str, of: type, name: str, place: str, joins: bool
) -> None:
    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    async def produce() -> None:
        store = make()
        await store.open()
        await store.insert("q", [NewJob("a", b"killed")])
        await store.close()

    async def before() -> None:
        if joins:
            store = make()
            await store.open()
            await store.insert("q", [NewJob("a", b"first")])
            await told(store)
            await store.close()

    async def after() -> None:
        store = make()
        await store.open()
        written = joins or (name, place) != ("write", "before")
        for _ in range(2):  # as it is, and when the store is wiped as well
            await store.guard.reconcile()
            jobs = (await store.exchange("q", "w", [], 9, 60_000)).jobs
            assert [job.payload for job in jobs] == ([b"first" if joins else b"killed"] if written else [])
            await told(store)
            redis.command("FLUSHALL")
        await store.close()

    asyncio.run(before())
    killed = asyncio.run(in_child(produce, lambda: dying(of, name, place)))
    records = name == "record"
    assert killed == (signal.SIGKILL if joins or not records else 0), "a job that is new is told of nothing"
    asyncio.run(after())


def test_a_comparison_that_is_killed_in_the_midst_is_done_by_the_next(redis: Server, schema: str) -> None:
    ids = [f"job-{n:05}" for n in range(2500)]

    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    async def before() -> None:
        store = make()
        await store.open()
        await store.insert("q", [NewJob(id, id.encode()) for id in ids])
        await store.close()
        redis.command("FLUSHALL")

    async def compare() -> None:
        store = make()
        await store.open()
        await store.guard.reconcile()

    async def after() -> None:
        store = make()
        await store.open()
        found = (await store.counts("q")).queued
        assert 0 < found < len(ids), "it was killed in the midst"
        beat = await store._open_session().ledger.beat()
        assert beat.restored < beat.lost_at, "and the loss is not mended"
        assert (await store.guard.reconcile()).requeued == len(ids) - found
        jobs = []
        while some := (await store.exchange("q", "w", [], 500, 60_000)).jobs:
            jobs += some
        assert [(job.id, job.payload) for job in jobs] == [(id, id.encode()) for id in ids]
        assert [id for id, _ in await rows(schema)] == ids
        await store.close()

    asyncio.run(before())
    assert asyncio.run(in_child(compare, lambda: dying(Reconciler, "_insert", "after", 4))) == signal.SIGKILL
    asyncio.run(after())


def test_a_worker_that_is_killed_before_the_ledger_has_heard_of_the_end(redis: Server, schema: str) -> None:
    """The store has the outcome, and the comparison tells the ledger."""

    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    async def work() -> None:
        from jobqueue.model.outcomes import Settlement
        from jobqueue.model.states import Action

        store = make()
        await store.open()
        await store.insert("q", [NewJob("a", b"")])
        (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
        await store.exchange("q", "w", [Settlement("a", job.fence, Action.COMPLETE, b"r", 60_000)], 0, 60_000)
        die()

    async def after() -> None:
        store = make()
        await store.open()
        assert [state for _, state in await rows(schema)] != [5]
        assert (await store.guard.reconcile()).updated == 1
        redis.command("FLUSHALL")
        assert (await store.guard.reconcile()).requeued == 0
        (record,) = await store.get("q", ["a"])
        assert record is not None
        assert record.result == b"r"
        await store.close()

    assert asyncio.run(in_child(work, lambda: None)) == signal.SIGKILL
    asyncio.run(after())


def test_a_store_that_was_opened_before_a_fork_is_refused_in_the_child(redis: Server, schema: str) -> None:
    async def parent() -> None:
        store = GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))
        await store.open()
        session = store._open_session()
        assert isinstance(session, GuardSession)
        await store.insert("q", [NewJob("a", b"")])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store._open_session()
            except Exception as error:
                code = 0 if "before a fork" in str(error) else 2
            os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert (await store.guard.stats()).total == 1, "and the parent goes on"
        await store.close()

    asyncio.run(parent())
