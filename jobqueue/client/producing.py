"""The calls of a queue that make jobs: enqueue, join or replay one, many, or one to wait for.

`Producing.enqueue` and `Producing.enqueue_and_wait` are the path of every job, and written out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any, Generic

from jobqueue.client.explain import stored_or_not
from jobqueue.client.registration import Registration
from jobqueue.client.results import EnqueueRequest, EnqueueResult
from jobqueue.client.room import OnFull, check_on_full
from jobqueue.client.session import QueueSession
from jobqueue.client.waiter import TimeIsUpError
from jobqueue.errors import InvalidArgumentError
from jobqueue.events import JobEnqueued
from jobqueue.model.checks import check_seconds
from jobqueue.model.generics import P, R
from jobqueue.model.states import ENDED
from jobqueue.storage.values import Conflict, InsertStatus, NewJob, Reuse

__all__ = ["Producing"]

_RAISE = OnFull.RAISE
_PATIENCE = 30.0
"""Seconds that `Producing.enqueue_and_wait` waits by default. Known by its identity: it needs no check."""
_CREATED = InsertStatus.CREATED  # looked up once: see `jobqueue.client.asking`


class Producing(Registration[P, R], Generic[P, R]):
    """A part of `Queue`, which sets what its bases declare."""

    async def enqueue(
        self,
        id: str | None,
        payload: P,
        *,
        max_attempts: int | None = None,
        result_ttl: float | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        reuse: Reuse | str = Reuse.RETURN,
        group: str = "",
        conflict: Conflict | str = Conflict.JOIN,
        on_full: OnFull | str = OnFull.RAISE,
        expires: float | None = None,
        connection: object | None = None,
    ) -> EnqueueResult[R]:
        """Create a job, or find the one that has this id.

        Args:
            id: 1 to 256 bytes of UTF-8 without control characters; ``None`` makes a unique one.
            payload: the handler gets it as ``job.payload``.
            max_attempts, result_ttl: override the queue's.
            delay: seconds until the job is due, by the store's clock.
            run_at: instant at which it is due, as an aware datetime; not together with ``delay``.
            priority: -1000 to 1000; higher starts first.
            reuse: how to treat an id whose job has *ended*: ``"return"`` finds that job, ``"rerun_failed"``
                replaces it if it failed, ``"rerun"`` always.
            group: text that several jobs share, such as a tenant; at most 256 bytes.
            conflict: how to treat an id whose job *waits*: ``"join"`` finds that job, ``"replace"`` makes it
                this one, ``"debounce"`` too, and puts its start off until ``delay`` from now. A running job
                is always joined.
            on_full: what to do when there is no room (``max_length``, a full disk or server): ``"raise"``
                `QueueFullError`, or ``"wait"`` for some, however long it takes.
            expires: seconds after it is due within which it has to start; if it has not, it never does and
                fails as ``expired``. A job that has started once does not expire.
            connection: create the job in the open transaction of this connection (PostgreSQL; of asyncpg or
                psycopg 3): it exists if and only if that commits.

        Raises `InvalidArgumentError`, `SerializationError`, `QueueFullError`, `StorageError`.
        """
        session = self._started()
        if self._around_enqueue is not None:
            request = EnqueueRequest(
                id, payload, max_attempts, result_ttl, delay, run_at, priority, reuse, group=group,
                conflict=conflict, on_full=on_full, expires=expires,
            )  # fmt: skip
            return await self._around_enqueue.send_one(partial(session.inserting, connection), request)
        new = self._builder.build(
            id, payload, max_attempts, result_ttl, delay, run_at, priority, reuse, group, conflict, expires
        )
        if connection is not None or on_full is not _RAISE:
            (inserted,) = await session.inserting(connection, (check_on_full(on_full),))((new,))
        elif session.merges:
            inserted = await session.insert_merged(new)
        else:
            (inserted,) = await session.insert_now((new,))
        return self._enqueued(new, inserted)

    async def _insert(self, new: NewJob) -> EnqueueResult[Any]:
        """Enqueue a job as it is, past the middleware."""
        (inserted,) = await self._started().insert((new,))
        return self._enqueued(new, inserted)

    async def _send(self, request: EnqueueRequest, connection: object | None = None) -> EnqueueResult[Any]:
        """Enqueue what a task asks for."""
        session = self._started()
        if self._around_enqueue is not None:
            return await self._around_enqueue.send_one(partial(session.inserting, connection), request)
        new = self._builder.build_requested(request)
        (inserted,) = await session.inserting(connection, (request.on_full,))((new,))
        return self._enqueued(new, inserted)

    async def _send_and_wait(self, request: EnqueueRequest, timeout: float) -> Any:
        """Enqueue what a task asks for, and wait for its result."""
        session = self._started()
        check_seconds("wait_timeout", timeout)
        if self._around_enqueue is not None:
            return await self._around_enqueue.send_and_wait(session, request, timeout)
        new = self._builder.build_requested(request, wait=True)
        return await self._insert_and_wait(session, new, timeout, request.on_full)

    async def enqueue_many(
        self,
        requests: Iterable[tuple[str | None, P] | EnqueueRequest],
        *,
        connection: object | None = None,
    ) -> list[EnqueueResult[R]]:
        """Create many jobs with few round trips; return the answers in the order of the requests.

        All are checked before the first is stored. Raises as `enqueue` does; `QueueFullError` if any
        was refused, and those before it may be stored: calling again with the same ids is safe.
        ``connection`` is that of `enqueue`.
        """
        session = self._started()
        if not isinstance(requests, Iterable):
            raise InvalidArgumentError("requests", f"must be an iterable, not {type(requests).__name__}")
        if self._around_enqueue is not None:
            return await self._around_enqueue.send_all(partial(session.inserting, connection), requests)
        known = list(requests)
        jobs = [self._builder.build_requested(request, place) for place, request in enumerate(known)]
        patience = [_RAISE if isinstance(request, tuple) else request.on_full for request in known]
        inserted = await session.inserting(connection, patience)(jobs)
        return [self._enqueued(job, answer) for job, answer in zip(jobs, inserted, strict=True)]

    async def enqueue_and_wait(  # noqa: C901 - the path of every call, written out
        self,
        id: str | None,
        payload: P,
        *,
        timeout: float = _PATIENCE,
        max_attempts: int | None = None,
        result_ttl: float | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        reuse: Reuse | str = Reuse.RETURN,
        group: str = "",
        conflict: Conflict | str = Conflict.JOIN,
        on_full: OnFull | str = OnFull.RAISE,
        expires: float | None = None,
    ) -> R:
        """Create the job, join the live one, or replay the ended one; return the result.

        ``timeout`` in seconds counts from the call, and includes the storing, and waiting for room with
        ``on_full="wait"``. Other arguments as for `enqueue`.

        Raises `WaitTimeoutError` (the job goes on; the message says what is known of it),
        `JobFailedError` or its `MaxRetriesError`, `JobCancelledError`, `JobNotFoundError` (the job is gone,
        or another has its id now, and its outcome was not heard of), `ResultExpiredError`, and what
        `enqueue` raises.
        """
        session = self._started()
        result: R
        if timeout is not _PATIENCE:
            check_seconds("timeout", timeout)
        if self._around_enqueue is not None:
            request = EnqueueRequest(
                id, payload, max_attempts, result_ttl, delay, run_at, priority, reuse, group=group,
                conflict=conflict, on_full=on_full, expires=expires,
            )  # fmt: skip
            result = await self._around_enqueue.send_and_wait(session, request, timeout)
            return result
        new = self._builder.build(
            id, payload, max_attempts, result_ttl, delay, run_at, priority, reuse, group, conflict, expires,
            True,  # noqa: FBT003 - it waits
        )  # fmt: skip
        if on_full is not _RAISE:
            result = await self._insert_and_wait(session, new, timeout, check_on_full(on_full))
            return result
        # From here on it is `_insert_and_wait` once more: to call that takes 2 % of a call.
        waiters, id = session.waiters, new.id
        # It stands before the job does: the reply may come before the answer of the insert.
        waiter = waiters.add(id, timeout)
        try:
            if not waiters.subscribed:
                await waiters.subscribe()
            if session.merges:
                inserted = await session.insert_merged(new)
            else:
                (inserted,) = await session.insert_now((new,))
            status, seq, state, _, _ = inserted
            if status is not _CREATED or JobEnqueued in self._emitter.heard:
                self._tell_of(new, inserted)
            if state in ENDED:  # found; or created by a call whose answer was lost, and ended since
                return self._outcome(id, inserted)
            if waiter.bind(seq):
                waiters.fetch(waiter)
            try:
                reply = await waiter.future
            except TimeIsUpError:
                reply = await waiters.last_look(waiter)
            return self._outcome(id, reply)
        except asyncio.CancelledError:
            waiter.check_late(stored_or_not(id))
            raise
        finally:
            waiters.remove(waiter)

    async def _insert_and_wait(
        self, session: QueueSession, new: NewJob, timeout: float, on_full: OnFull | str
    ) -> Any:
        waiters = session.waiters
        with waiters.waiting(new.id, timeout, partial(stored_or_not, new.id)) as waiter:
            if not waiters.subscribed:
                await waiters.subscribe()
            (inserted,) = await session.inserting(None, (on_full,), session.now() + timeout)((new,))
            self._tell_of(new, inserted)
            if inserted.state in ENDED:
                return self._outcome(new.id, inserted, new.task)
            waiters.bind(waiter, inserted.seq)
            return self._outcome(new.id, await waiters.reply(waiter), new.task)
