"""RQ: ``guard(queue, ledger)`` returns the queue, guarded."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from jobqueue.errors import InvalidArgumentError, StorageUnavailableError
from jobqueue.guard.foreign import ForeignGuard, Kept, check_options
from jobqueue.model.states import JobState
from jobqueue.runtime.ids import random_secret
from jobqueue.runtime.threads import start_loop
from jobqueue.storage.guard import GuardEvent, PostgresLedger, Reconciled

__all__ = ["RqGuard", "guard"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that an enqueue waits for the ledger at the most."""
MOST_FIELDS = 1000
"""Fields of a job: RQ has some twenty."""
MOST_TTL = 10**10
_STATES = {
    b"finished": JobState.COMPLETED, b"failed": JobState.FAILED, b"stopped": JobState.FAILED,
    b"canceled": JobState.CANCELLED, b"started": JobState.PROCESSING, b"scheduled": JobState.SCHEDULED,
}  # fmt: skip
_PUT = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('SADD', 'rq:queues', KEYS[2])
if ARGV[1] == '' then
  redis.call('RPUSH', KEYS[2], ARGV[2])
else
  redis.call('ZADD', KEYS[3], ARGV[1], ARGV[2])
end
if tonumber(ARGV[3]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
"""


def guard(queue: Any, ledger: PostgresLedger, *, interval: float = 5.0) -> Any:
    """Return an RQ queue like ``queue`` whose jobs survive the loss of Redis.

    What is enqueued with it is in the ledger first. From the first enqueue on a thread of this process looks
    after the queue, every ``interval`` seconds; its attribute ``guard`` is a `RqGuard`. Workers need nothing.
    Raises `InvalidArgumentError` for a queue that is not asynchronous, and at an enqueue with ``pipeline=``,
    ``depends_on=`` or ``rate_limit=``, and at ``enqueue_many``: these cannot be guarded.
    """
    if not getattr(queue, "is_async", False) or not hasattr(queue, "enqueue_job"):
        raise InvalidArgumentError("queue", "must be an rq.Queue that is asynchronous")
    kind: Any = queue.__class__
    guarded: Any = object.__new__(_guarded(kind))
    guarded.__dict__ = {**queue.__dict__, "guard": RqGuard(queue, ledger, interval)}
    return guarded


class RqGuard:
    """Looks after an RQ queue, in a thread that the first use starts, also after a fork."""

    def __init__(self, queue: Any, ledger: PostgresLedger, interval: float) -> None:
        self._queue = _Rq(queue)
        self._ledger = ledger
        self._interval = check_options(ledger, interval)
        self._starting: dict[int, threading.Lock] = {}
        """By process: that of a parent may have been held at the fork, and is never released in a child."""
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inner: ForeignGuard | None = None
        self._stopping: asyncio.Event | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Look after the queue from now on. Raises `StorageError` if the ledger has no tables."""
        with self._starting.setdefault(os.getpid(), threading.Lock()):
            if self._loop is not None and self._pid == os.getpid():
                return
            ready, failed = threading.Event(), list[BaseException]()
            self._pid, self._ended = os.getpid(), threading.Event()
            ended = self._ended

            async def main() -> None:
                self._stopping = asyncio.Event()
                self._inner = ForeignGuard(self._queue, self._ledger, interval=self._interval)
                await self._inner.start()
                ready.set()
                await self._stopping.wait()
                await self._inner.close()

            def over(error: BaseException | None) -> None:
                failed.extend([] if error is None else [error])
                self._loop = None
                ready.set()
                ended.set()

            self._loop = start_loop(main, over, "jobqueue-rq-guard")
            ready.wait()
            if failed:
                raise failed[0]

    def close(self) -> None:
        """Write what the ledger does not have yet, and end."""
        loop, stopping = self._loop, self._stopping
        if loop is None or stopping is None or self._pid != os.getpid():
            return
        loop.call_soon_threadsafe(stopping.set)
        self._ended.wait(PATIENCE)

    def reconcile(self) -> Reconciled:
        """Compare the ledger with the queue now. Raises `StorageUnavailableError`."""
        return self._call(lambda inner: inner.reconcile())

    def history(self, id: str, *, limit: int = 10) -> list[GuardEvent]:
        """Return what happened to the last ``limit`` jobs of an id, oldest first."""
        return self._call(lambda inner: inner.history(id, limit=limit))

    def record(self, id: str, data: bytes, due: int) -> str:
        """Write a job into the ledger."""
        return self._call(lambda inner: inner.record(id, data, due))

    def confirm(self, token: str) -> None:
        """Say that the queue has a job."""
        loop, inner = self._loop, self._inner
        if loop is not None and inner is not None:
            loop.call_soon_threadsafe(inner.confirm, token)

    def _call(self, make: Callable[[ForeignGuard], Coroutine[Any, Any, T]]) -> T:
        self.start()
        loop, inner = self._loop, self._inner
        if loop is None or inner is None:
            raise StorageUnavailableError("the guard has ended: make a new one")
        try:
            return asyncio.run_coroutine_threadsafe(make(inner), loop).result(PATIENCE)
        except TimeoutError:
            raise StorageUnavailableError(f"the ledger has not answered in {PATIENCE:g} seconds") from None


class _Rq:
    """The three calls, on RQ's keys."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._redis = queue.connection
        self.name = f"rq:{queue.name}"
        self._mark = f"jobqueue-guard:{self.name}"

    async def mark(self) -> tuple[bytes, int]:
        def call() -> tuple[bytes, int]:
            pipe = self._redis.pipeline()
            pipe.hsetnx(self._mark, "epoch", random_secret(16).hex())
            pipe.hget(self._mark, "epoch")
            pipe.hincrby(self._mark, "asked", 1)
            _, epoch, asked = pipe.execute()
            return bytes(epoch, "ascii") if isinstance(epoch, str) else epoch, asked

        return await _in_thread(call)

    async def look(self, ids: Sequence[str]) -> list[JobState | None]:
        def call() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for id in ids:
                pipe.hget(_key(id), "status")
            found: list[Any] = pipe.execute()
            return found

        return [
            None if one is None else _STATES.get(_bytes(one), JobState.QUEUED)
            for one in await _in_thread(call)
        ]

    def check(self, job: Kept) -> None:
        unpacked(job.data)

    async def put(self, jobs: Sequence[Kept]) -> None:
        def call() -> None:
            script = self._redis.register_script(_PUT)
            for job in jobs:
                fields, ttl = unpacked(job.data)
                fields[b"status"] = b"scheduled" if job.due else b"queued"
                keys = [_key(job.id), self._queue.key, self._queue.scheduled_job_registry.key]
                flat = [part for pair in fields.items() for part in pair]
                script(keys=keys, args=[job.due // 1000 if job.due else "", job.id, ttl, *flat])

        await _in_thread(call)


def _guarded(kind: type[Any]) -> type[Any]:
    """Return a class of queues whose enqueues are recorded first."""

    class Guarded(kind):  # type: ignore[misc]
        guard: RqGuard

        # Options by name: what an error tracker puts around RQ's methods may take no others.

        def enqueue_job(
            self,
            job: Any,
            pipeline: Any = None,
            at_front: bool = False,  # noqa: FBT001, FBT002 - as RQ has it
            **options: Any,
        ) -> Any:
            """Enqueue a job as RQ does, after the ledger has it."""
            token = self._record(job, pipeline, 0)
            base: Any = super()
            made: Any = base.enqueue_job(job, at_front=at_front, **options)
            self.guard.confirm(token)
            return made

        def schedule_job(self, job: Any, datetime: Any, pipeline: Any = None, **options: Any) -> Any:
            """Schedule a job as RQ does, after the ledger has it."""
            token = self._record(job, pipeline, int(datetime.timestamp() * 1000))
            base: Any = super()
            made: Any = base.schedule_job(job, datetime, **options)
            self.guard.confirm(token)
            return made

        def enqueue_many(self, *_args: Any, **_options: Any) -> Any:
            """Refuse: the ledger would not know which of them were made."""
            raise InvalidArgumentError("enqueue_many", "cannot be guarded: enqueue them one by one")

        def _record(self, job: Any, pipeline: Any, due: int) -> str:
            for name, given in (
                ("pipeline", pipeline is not None),
                ("depends_on", bool(getattr(job, "_dependency_ids", None))),
                ("rate_limit", bool(getattr(job, "has_rate_limit", False))),
            ):
                if given:
                    raise InvalidArgumentError(
                        name, "cannot be guarded: use a queue without a guard for such jobs"
                    )
            job.origin = self.name
            if job.timeout is None:
                job.timeout = self._default_timeout
            return self.guard.record(job.id, packed(job.to_dict(), job.ttl), due)

    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{kind.__name__}"
    return Guarded


def packed(fields: dict[Any, Any], ttl: int | None) -> bytes:
    """Return what RQ keeps of a job as bytes; what is pickled in it stays so."""
    named = {str(name): b64encode(_bytes(value)).decode("ascii") for name, value in fields.items()}
    return json.dumps({"fields": named, "ttl": ttl or 0}).encode()


def unpacked(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """Undo `packed`. Raises `ValueError` for anything else."""
    try:
        read = json.loads(data)
        fields = {name.encode(): b64decode(value) for name, value in read["fields"].items()}
        ttl = int(read["ttl"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("the payload is none of an RQ job") from error
    if not 0 < len(fields) <= MOST_FIELDS or not 0 <= ttl < MOST_TTL:
        raise ValueError("the payload is none of an RQ job: no fields, too many, or a wrong ttl")
    return fields, ttl


def _key(id: str) -> str:
    return f"rq:job:{id}"


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def _in_thread(call: Callable[[], T]) -> T:
    """Make a blocking call; whatever Redis raises is that it is away."""
    try:
        return await asyncio.to_thread(call)
    except Exception as error:
        raise StorageUnavailableError(f"Redis: {error}") from error
