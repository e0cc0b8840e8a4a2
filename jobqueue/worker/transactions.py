"""`Job.transaction`: what a handler writes and the end of its job are committed together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from jobqueue.errors import JobQueueError
from jobqueue.model.outcomes import Settlement
from jobqueue.storage.transactions import OpenTransaction
from jobqueue.storage.values import SettleStatus
from jobqueue.worker.run import Run

__all__ = ["commit", "transaction"]


@asynccontextmanager
async def transaction(run: Run, begin: Callable[[], Awaitable[OpenTransaction]]) -> AsyncGenerator[Any]:
    """Open the transaction of a run. It is left open at the end, for `commit`; an error rolls it back."""
    if run.extras.transaction is not None:
        raise JobQueueError(f"job {run.id!r} has a transaction already: pass its connection on")
    opened = await begin()
    run.own_extras().transaction = opened
    try:
        yield opened.connection
    except BaseException:
        run.own_extras().transaction = None
        await opened.rollback()
        raise


async def commit(run: Run, queue: str, settlement: Settlement) -> None:
    """Settle a run whose handler has returned in its transaction; a failure is raised, and all rolled back.

    A settlement that was cancelled meanwhile is left to the worker, like that of any other run.
    """
    opened = run.take_transaction()
    step = asyncio.ensure_future(opened.settle(queue, settlement))
    while not step.done():
        try:
            await asyncio.wait({step})
        except asyncio.CancelledError:  # an abort comes too late: what the database says counts
            continue
    status = step.result()
    run.own_extras().settled = None if status is SettleStatus.CANCELLED else status
