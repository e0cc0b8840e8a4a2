"""arq: ``guard(pool, ledger)`` returns the pool, guarded."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from jobqueue.errors import InvalidArgumentError, StorageUnavailableError
from jobqueue.guard.foreign import ForeignGuard, Kept
from jobqueue.model.checks import MAX_MILLIS
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import random_secret
from jobqueue.storage.guard import PostgresLedger

__all__ = ["guard"]

T = TypeVar("T")

_JOB, _RUNS, _RESULT = "arq:job:", "arq:in-progress:", "arq:result:"
_HEAD = struct.Struct(">QQ")
"""In front of the serialized job: when it is due, and the instant at which it expires."""
_PUT = """
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
redis.call('PSETEX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[4])
return 1
"""


def guard(pool: Any, ledger: PostgresLedger, *, interval: float = 5.0) -> Any:
    """Return an arq pool like ``pool`` whose jobs survive the loss of Redis.

    What is enqueued with it, into its default queue, is in the ledger first. From the first enqueue, or
    ``await pool.guard.start()``, it looks after the queue every ``interval`` seconds, until ``await
    pool.guard.close()``; see `ForeignGuard`. Workers need nothing. Raises `InvalidArgumentError` for anything
    but a pool, and at an enqueue into another queue.
    """
    if not hasattr(pool, "enqueue_job") or not hasattr(pool, "default_queue_name"):
        raise InvalidArgumentError("pool", "must be an arq.ArqRedis, as arq.create_pool returns")
    kind: Any = pool.__class__
    guarded: Any = object.__new__(_guarded(kind))
    guarded.__dict__ = {**pool.__dict__, "guard": ForeignGuard(_Arq(pool), ledger, interval=interval)}
    return guarded


class _Arq:
    """The three calls, on arq's keys."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._queue: str = pool.default_queue_name
        self.name = f"arq:{self._queue}"
        self._mark = f"jobqueue-guard:{self.name}"

    async def mark(self) -> tuple[bytes, int]:
        pipe = self._pool.pipeline()
        pipe.hsetnx(self._mark, "epoch", random_secret(16).hex())
        pipe.hget(self._mark, "epoch")
        pipe.hincrby(self._mark, "asked", 1)
        _, epoch, asked = await _asked(pipe.execute())
        return bytes(epoch), int(asked)

    async def look(self, ids: Sequence[str]) -> list[JobState | None]:
        pipe = self._pool.pipeline(transaction=False)
        for id in ids:
            pipe.exists(_RESULT + id)
            pipe.exists(_RUNS + id)
            pipe.exists(_JOB + id)
            pipe.zscore(self._queue, id)
        found = await _asked(pipe.execute())
        now = SYSTEM_CLOCK.time() * 1000
        return [_state(found[at : at + 4], now) for at in range(0, len(found), 4)]

    def check(self, job: Kept) -> None:
        if len(job.data) <= _HEAD.size:
            raise ValueError("the payload is none of an arq job")
        if max(_HEAD.unpack_from(job.data)) > MAX_MILLIS:
            raise ValueError("the payload has no instants of an arq job")

    async def put(self, jobs: Sequence[Kept]) -> None:
        now = int(SYSTEM_CLOCK.time() * 1000)
        script = self._pool.register_script(_PUT)
        for job in jobs:
            due, expires = _HEAD.unpack_from(job.data)
            keys = [_JOB + job.id, _RESULT + job.id, self._queue]
            args = [max(1, expires - now), job.data[_HEAD.size :], max(due, now), job.id]
            await _asked(script(keys=keys, args=args))


def _state(found: Sequence[Any], now: float) -> JobState | None:
    ended, runs, kept, score = found
    if ended:
        return JobState.COMPLETED  # or failed: the result says it, and is not unpickled here
    if runs:
        return JobState.PROCESSING
    if kept and score is not None:
        return JobState.SCHEDULED if score > now else JobState.QUEUED
    return None


def _guarded(kind: type[Any]) -> type[Any]:
    """Return a class of pools whose enqueues are recorded first."""

    class Guarded(kind):  # type: ignore[misc]
        guard: ForeignGuard

        async def enqueue_job(
            self,
            function: str,
            *args: Any,
            _job_id: str | None = None,
            _queue_name: str | None = None,
            _defer_until: datetime | None = None,
            _defer_by: float | timedelta | None = None,
            _expires: float | timedelta | None = None,
            _job_try: int | None = None,
            **kwargs: Any,
        ) -> Any:
            """Enqueue a job as arq does, after the ledger has it."""
            if _queue_name not in {None, self.default_queue_name}:
                raise InvalidArgumentError("_queue_name", "must be the pool's own: guard another pool for it")
            id = _job_id or random_secret(16).hex()
            now = int(SYSTEM_CLOCK.time() * 1000)
            due = now if _defer_until is None else int(_defer_until.timestamp() * 1000)
            due += _millis(_defer_by)
            expires = (now + _millis(_expires)) if _expires else due + self.expires_extra_ms
            serialize = importlib.import_module("arq.jobs").serialize_job
            data = serialize(function, args, kwargs, _job_try, now, serializer=self.job_serializer)
            token = await self.guard.record(id, _HEAD.pack(due, expires) + data, due if due > now else 0)
            base: Any = super()
            made: Any = await base.enqueue_job(
                function, *args, _job_id=id, _defer_until=_defer_until, _defer_by=_defer_by,
                _expires=_expires, _job_try=_job_try, **kwargs,
            )  # fmt: skip
            if made is None:
                self.guard.drop(token)
            else:
                self.guard.confirm(token)
            return made

    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{kind.__name__}"
    return Guarded


def _millis(span: float | timedelta | None) -> int:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span or 0.0
    return int(seconds * 1000)


async def _asked(call: Awaitable[T]) -> T:
    """Await a call; whatever Redis raises is that it is away."""
    try:
        return await call
    except Exception as error:
        raise StorageUnavailableError(f"Redis: {error}") from error
