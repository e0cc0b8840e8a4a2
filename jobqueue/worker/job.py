"""The `Job` through which a handler sees its run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from jobqueue.model.checks import instant
from jobqueue.model.generics import P
from jobqueue.model.headers import decode_headers
from jobqueue.model.outcomes import AbortedReason
from jobqueue.model.serde import Serde
from jobqueue.worker.run import Run
from jobqueue.worker.saved import SavedState

__all__ = ["CURRENT", "NO_ARGUMENTS", "Arguments", "Job", "RunContext", "current_job"]

T = TypeVar("T")


class Arguments(TypedDict):
    """The arguments of a task's job: also its payload, as a serde writes it."""

    args: list[Any]
    kwargs: dict[str, Any]


NO_ARGUMENTS: Arguments = {"args": [], "kwargs": {}}
"""Those of a job without a task. Never changed."""

CURRENT: ContextVar[Job[Any] | None] = ContextVar("jobqueue_job", default=None)


def current_job() -> Job[Any]:
    """Return the job that runs around the caller, in its handler or anywhere below, threads included.

    Raises `LookupError` outside of a job.
    """
    job = CURRENT.get()
    if job is None:
        raise LookupError("no job runs here: current_job() is for code that a handler calls")
    return job


class RunContext(Protocol):
    """The part of a queue that `Job` uses."""

    @property
    def queue(self) -> str:
        """Name of the queue."""
        ...

    @property
    def worker_id(self) -> str:
        """Name of the worker."""
        ...

    @property
    def resources(self) -> Any:
        """What the queue's lifespan gave."""
        ...

    @property
    def result_serde(self) -> Serde[Any]:
        """Turns what a job saves into bytes."""
        ...

    @property
    def max_bytes(self) -> int:
        """Largest number of bytes that a job may save."""
        ...

    def on_progress(self, job: Job[Any], value: Any, /) -> Awaitable[None]:
        """Store the progress that a handler reports."""
        ...

    def on_saved(self, job: Job[Any], data: bytes, /) -> Awaitable[None]:
        """Store what a handler saves for its next attempt."""
        ...

    def transaction(self, run: Run, /) -> AbstractAsyncContextManager[Any]:
        """Open a transaction that ends with the run."""
        ...


class Job(Generic[P]):
    """One job in its handler: id, payload, attempt, progress."""

    __slots__ = ("_aborted", "_arguments", "_context", "_run", "_saved", "payload")

    def __init__(
        self, run: Run, payload: P, context: RunContext, arguments: Arguments = NO_ARGUMENTS
    ) -> None:
        self.payload = payload
        self._arguments = arguments
        self._run = run
        self._context = context
        self._aborted: asyncio.Event | None = None
        self._saved: SavedState | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id!r} of {self.queue}, attempt {self.attempts} of {self.max_attempts}>"

    @property
    def id(self) -> str:
        """The job's id, as enqueued."""
        return self._run.claimed.id

    @property
    def queue(self) -> str:
        """Name of its queue."""
        return self._context.queue

    @property
    def task(self) -> str:
        """Name of its task; ``""``: none."""
        return self._run.claimed.task

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of its task."""
        return tuple(self._arguments["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments of its task."""
        return dict(self._arguments["kwargs"])

    @property
    def group(self) -> str:
        """The group it was enqueued with; ``""``: none."""
        return self._run.claimed.group

    @property
    def worker_id(self) -> str:
        """Name of the worker that runs it."""
        return self._context.worker_id

    @property
    def attempts(self) -> int:
        """Number of this attempt, from 1. Runs that were given back are not counted."""
        return self._run.claimed.attempts

    @property
    def max_attempts(self) -> int:
        """Number of attempts allowed, unless the handler raises `Retry`."""
        return self._run.claimed.max_attempts

    @property
    def fence(self) -> int:
        """A number that grows with every claim: pass it to your own systems, let them refuse smaller ones."""
        return self._run.claimed.fence

    @property
    def created_at(self) -> datetime:
        """Instant at which the job was enqueued."""
        return instant(self._run.claimed.created_at)

    @property
    def headers(self) -> Mapping[str, str]:
        """The texts that travel with the job: `EnqueueRequest.headers`; empty if there are none."""
        return decode_headers(self._run.claimed.headers)

    @property
    def resources(self) -> Any:
        """What the ``lifespan`` of its queue gave; ``None`` without one."""
        return self._context.resources

    @property
    def aborted(self) -> asyncio.Event:
        """Event, set when the run is to end. An async handler is also cancelled; a thread reads this."""
        if self._aborted is None:
            self._aborted = asyncio.Event()
            if self._run.aborted is not None:
                self._aborted.set()
        return self._aborted

    @property
    def aborted_reason(self) -> AbortedReason | None:
        """The reason for `aborted`, ``None`` while it is not set."""
        return self._run.aborted

    async def progress(self, value: Any) -> None:
        """Store the job's progress, any value that the result serde takes; `get_status` shows it.

        Raises `LeaseLostError` if this run no longer owns the job, `SerializationError`, or
        `StorageError`.
        """
        await self._context.on_progress(self, value)

    @property
    def saved(self) -> Any:
        """The last `checkpoint` of this job, of whichever attempt; ``None`` if there is none.

        Raises `SerializationError` if it cannot be read.
        """
        return self._state().checkpoint()

    async def checkpoint(self, value: Any) -> None:
        """Store where the handler is, for the next attempt, which finds it in `saved`.

        Any value that the result serde takes; it replaces the last one, and stays over retries, stalls and
        shutdowns, until the job ends. At most ``max_payload_bytes`` together with the steps of `run_once`.

        Raises `LeaseLostError` if this run no longer owns the job, `SerializationError`, or `StorageError`.
        """
        await self._state().save(value)

    async def run_once(self, key: str, function: Callable[[], Awaitable[T] | T]) -> T:
        """Call ``function`` unless an attempt of this job has completed it; return its stored result.

        ``key`` names the step within the job. It *completes* at most once: a run that is cut off after the
        function has acted and before its result is stored begins it again, so an effect outside needs a key
        of its own, such as the job's id. Plain or asynchronous; the result is any value that the result
        serde takes. What it raises is raised, and nothing is stored.

        Raises as `checkpoint` does, and `InvalidArgumentError`.
        """
        result: T = await self._state().run_once(key, function)
        return result

    def _state(self) -> SavedState:
        if self._saved is None:
            context = self._context
            self._saved = SavedState(
                self._run.claimed.saved,
                context.result_serde,
                context.max_bytes,
                partial(context.on_saved, self),
            )
        return self._saved

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Open a transaction in the database of the store; what the job comes to is committed with it.

        Yields a connection (PostgreSQL: of asyncpg). The transaction stays open until the handler has
        returned; then its result and the job's completion are written in it, and it commits. All is rolled
        back if the handler raises, the job was cancelled, or its lease was lost. One for each run, for async
        handlers. Raises `UnsupportedError` where the store has no transactions, `StorageError`.
        """
        return self._context.transaction(self._run)

    def tell_aborted(self) -> None:
        """Set `aborted`; called by the run."""
        if self._aborted is not None:
            self._aborted.set()
