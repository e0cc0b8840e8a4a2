# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A guarded store is a store; what the guard answers has types."""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from jobqueue import GuardedStorage, PostgresLedger, Queue, RedisStorage, Storage
from jobqueue.storage.guard import GuardEvent, GuardNotice, GuardStats, Reconciled

ledger = PostgresLedger("postgresql://localhost/app", pool_size=10)
storage = GuardedStorage(RedisStorage("redis://localhost"), ledger, on_ledger_failure="refuse", rate=50.0)
as_storage: Storage = storage
queue: Queue[int, str] = Queue(storage, "numbers")


async def operate() -> None:
    """Ask everything that a guard answers."""
    guard = storage.guard
    stats = await guard.stats("numbers")
    assert_type(stats, GuardStats)
    assert_type(stats.pending, int)
    assert_type(guard.breaker, str)
    assert_type(guard.buffered, int)
    assert_type(guard.waited, float)
    assert_type(await guard.reconcile(), Reconciled)
    history = await guard.history("numbers", "a", limit=3)
    assert_type(history, list[GuardEvent])
    assert_type(history[0].at, datetime)
    guard.listen(hear)
    guard.listen(mishear)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await guard.stats(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    GuardedStorage(storage, "postgresql://localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def hear(notice: GuardNotice) -> None:
    """Hear what befalls a guard."""
    assert_type(notice.kind, str)


def mishear(notice: int) -> None:
    """Expect something else."""
    assert_type(notice, int)
