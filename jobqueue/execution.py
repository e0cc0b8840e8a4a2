"""One run of a handler: from a claimed job to its settlement.

A run is a list of steps: read the payload, call the handler, classify what came of it, let
``after_execution`` have its say on final outcomes, write the result, settle. Whatever a step raises
becomes an outcome: nothing that a handler does harms the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from jobqueue.backoff import Backoff
from jobqueue.errors import ErrorInfo, InvalidArgumentError
from jobqueue.job import (
    Aborted,
    AbortedReason,
    FailureReason,
    Fatal,
    Outcome,
    Raised,
    Retry,
    RetryAsked,
    Returned,
    Settlement,
    settle,
)
from jobqueue.options import check_callable, check_seconds, millis
from jobqueue.serde import Serde, dump, load
from jobqueue.storage.base import Claimed

__all__ = ["AfterExecution", "Execution", "Handler", "Hook", "Job", "Run", "error_info", "is_async"]

P = TypeVar("P")
R = TypeVar("R")


class Job(Generic[P]):
    """What a handler gets."""

    __slots__ = (
        "_aborted", "_created_at", "_report", "aborted_reason", "attempts", "fence", "id",
        "max_attempts", "payload", "queue", "worker_id",
    )  # fmt: skip

    def __init__(
        self,
        claimed: Claimed,
        payload: P,
        queue: str,
        worker_id: str,
        report: Callable[[Job[Any], Any], Awaitable[None]],
    ) -> None:
        self.id = claimed.id
        self.payload = payload
        self.queue = queue
        self.worker_id = worker_id
        self.attempts = claimed.attempts
        """Which attempt this is, from 1. Runs that were given back are not counted."""
        self.max_attempts = claimed.max_attempts
        self.fence = claimed.fence
        """Grows with every claim. Pass it to your own systems, and let them refuse older ones."""
        self.aborted_reason: AbortedReason | None = None
        """Why `aborted` is set."""
        self._created_at = claimed.created_at
        self._report = report
        self._aborted: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id!r} of {self.queue}, attempt {self.attempts} of {self.max_attempts}>"

    @property
    def created_at(self) -> datetime:
        """When the job was enqueued."""
        return datetime.fromtimestamp(self._created_at / 1000, UTC)

    @property
    def aborted(self) -> asyncio.Event:
        """Set when the run is to end. An async handler is also cancelled; a thread reads this."""
        if self._aborted is None:
            self._aborted = asyncio.Event()
            if self.aborted_reason is not None:
                self._aborted.set()
        return self._aborted

    async def progress(self, value: Any) -> None:
        """Store how far the job is; `get_status` shows it. Any value that the result serde takes.

        Raises `LeaseLostError` if this run no longer owns the job, `SerializationError`, or
        `StorageError`.
        """
        await self._report(self, value)


Handler = Callable[[Job[P]], Awaitable[R]] | Callable[[Job[P]], R]


@dataclass(slots=True)
class AfterExecution:
    """What ``after_execution`` gets. Changes to ``result``, ``error`` and ``ttl`` are stored."""

    job: Job[Any]
    result: Any
    """What the handler returned; ``None`` on failure."""
    error: ErrorInfo | None
    """Set it to fail a job that succeeded; clear it to complete, with ``result``, one that failed."""
    ttl: float
    """Seconds that the outcome and the dedup mark are kept."""


Hook = Callable[[AfterExecution], Awaitable[None] | None]


class Run:
    """A job that runs in this process, with its lease."""

    __slots__ = (
        "abandoned", "aborted", "claimed", "confirmed_at", "fence", "id", "job", "renew_until",
        "result", "started_at", "task", "thread", "tick",
    )  # fmt: skip

    def __init__(self, claimed: Claimed, now: float, renew_until: float | None) -> None:
        self.claimed = claimed
        self.id = claimed.id
        self.fence = claimed.fence
        self.started_at = self.confirmed_at = now
        """``confirmed_at``: start of the last step, by the monotonic clock, that held the lease."""
        self.renew_until = renew_until
        """Monotonic instant from which the lease is left to expire; ``None``: never."""
        self.aborted: AbortedReason | None = None
        self.abandoned = False
        """Settled without waiting for its end: what it still does is ignored."""
        self.job: Job[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[Any] | None = None
        self.tick = 0
        self.result: Any = None

    def expire(self) -> None:
        """Abort: `job_timeout` is over."""
        self.abort(AbortedReason.TIMEOUT)

    def abort(self, reason: AbortedReason) -> None:
        """Ask the run to end; the first reason stands."""
        if self.aborted is not None:
            return
        self.aborted = reason
        job = self.job
        if job is not None:
            job.aborted_reason = reason
            if job._aborted is not None:  # noqa: SLF001
                job._aborted.set()  # noqa: SLF001
        # Before its first step a task has no job, and cancelled then it would never see why: it
        # looks at `aborted` itself. A thread cannot be cancelled: at a shutdown it gets the time to
        # read `job.aborted`.
        if self.task is None or job is None:
            return
        if self.thread is None or reason is not AbortedReason.SHUTDOWN:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Execution:
    """What the runs of one queue have in common."""

    queue: str
    worker_id: str
    handler: Callable[[Job[Any]], Any]
    payload_serde: Serde[Any]
    result_serde: Serde[Any]
    max_bytes: int
    backoff: Backoff
    uniform: Callable[[float, float], float]
    hook: Hook | None
    tracebacks: bool
    report: Callable[[Job[Any], Any], Awaitable[None]]
    on_error: Callable[[BaseException, str], None]
    threaded: bool

    async def perform(self, run: Run) -> Settlement | None:
        """Run the handler; return what to store, ``None`` if the lease is lost. Never raises."""
        claimed = run.claimed
        value: Any = None
        try:
            payload = load(self.payload_serde, claimed.payload, "the payload")
        except BaseException as error:  # noqa: BLE001
            outcome: Outcome = self._unserializable(error)
        else:
            job = run.job = Job(claimed, payload, self.queue, self.worker_id, self.report)
            try:
                if run.aborted is not None:
                    raise asyncio.CancelledError  # before the handler began
                value = await (self._in_thread(run, job) if self.threaded else self.handler(job))
            except BaseException as error:  # noqa: BLE001 - SystemExit too is just how a handler ended
                if _is_closing(run, error):
                    raise
                outcome = self._classify(run, error)
            else:
                outcome = self._returned(run, value)
        ttl = claimed.ttl
        if self.hook is not None and self._is_final(outcome, claimed):
            value, outcome, ttl = await self._after(run, value, outcome)
        run.result = value
        return settle(claimed, outcome, ttl, self._delay)

    # -- steps ------------------------------------------------------------------------------------

    def _returned(self, run: Run, value: Any) -> Outcome:
        # A result that is there in spite of a shutdown is taken; any other abort stands.
        if run.aborted is not None and run.aborted is not AbortedReason.SHUTDOWN:
            return Aborted(run.aborted)
        try:
            return Returned(dump(self.result_serde, value, "the result", self.max_bytes))
        except BaseException as error:  # noqa: BLE001
            return self._unserializable(error)

    def _unserializable(self, error: BaseException) -> Raised:
        return Raised(error_info(error, with_traceback=self.tracebacks), FailureReason.SERIALIZATION)

    def _classify(self, run: Run, error: BaseException) -> Outcome:
        if run.aborted is not None:
            return Aborted(run.aborted)
        if isinstance(error, asyncio.CancelledError) and _cancelled_from_outside():
            return Aborted(AbortedReason.SHUTDOWN)
        info = error_info(error, with_traceback=self.tracebacks)
        if isinstance(error, Fatal):
            return Raised(info, FailureReason.FATAL)
        if isinstance(error, Retry):
            if error.delay is None:
                return RetryAsked(info, None)
            try:
                return RetryAsked(info, check_seconds("delay", error.delay, zero=True))
            except InvalidArgumentError as bad:
                return Raised(error_info(bad, with_traceback=self.tracebacks))
        return Raised(info)

    async def _in_thread(self, run: Run, job: Job[Any]) -> Any:
        job.aborted  # noqa: B018 - made here: made later, by two threads at once, it could be two
        run.thread = start_thread(self.handler, job)
        # Shielded: the thread goes on whatever happens to this task, and its end frees the slot.
        failed, value = await asyncio.shield(run.thread)
        if failed:
            raise value
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise TypeError("the handler returned an awaitable: declare it with `async def`")
        return value

    @staticmethod
    def _is_final(outcome: Outcome, claimed: Claimed) -> bool:
        match outcome:
            case Returned():
                return True
            case Raised():
                return not outcome.retryable or claimed.attempts >= claimed.max_attempts
            case Aborted(AbortedReason.TIMEOUT):
                return claimed.attempts >= claimed.max_attempts
            case _:
                return False

    async def _after(self, run: Run, value: Any, outcome: Outcome) -> tuple[Any, Outcome, int]:
        original = value, outcome, run.claimed.ttl
        job, error, reason = run.job, None, FailureReason.ERROR
        if isinstance(outcome, Aborted):
            error, reason = TIMED_OUT, FailureReason.TIMEOUT
        elif isinstance(outcome, Raised):
            error, reason = outcome.error, outcome.reason
        if job is None:  # the payload could not be read
            job = Job(run.claimed, None, self.queue, self.worker_id, self.report)
        assert self.hook is not None
        context = AfterExecution(job, value, error, run.claimed.ttl / 1000)
        try:
            answer = self.hook(context)
            if inspect.isawaitable(answer):
                await answer
            ttl = millis(check_seconds("ttl", context.ttl))
            if context.error is not None:
                if type(context.error) is not ErrorInfo:
                    raise InvalidArgumentError("error", "must be an ErrorInfo or None")
                return None, Raised(context.error, reason) if context.error is not error else outcome, ttl
            if error is None and context.result is value:
                return value, outcome, ttl
            data = dump(self.result_serde, context.result, "the result", self.max_bytes)
            return context.result, Returned(data), ttl
        except BaseException as bad:  # noqa: BLE001
            if _is_closing(run, bad):
                raise
            self.on_error(bad, f"after_execution of job {run.id!r}")
            return original

    def _delay(self, attempts: int) -> int:
        try:
            return millis(self.backoff.delay(attempts, self.uniform))
        except BaseException as error:  # noqa: BLE001 - a custom rule is the user's code
            self.on_error(error, f"backoff after {attempts} attempts")
            return 1000


TIMED_OUT = ErrorInfo("TimeoutError", "the attempt exceeded job_timeout")


def start_thread(handler: Callable[[Job[Any]], Any], job: Job[Any]) -> asyncio.Future[tuple[bool, Any]]:
    """Call a plain function in a thread of its own; the future gives (raised, value or error).

    A daemon thread and no pool: an executor's threads are joined at exit, so that one handler that
    never ends would keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[bool, Any]] = loop.create_future()
    context = contextvars.copy_context()

    def post(outcome: tuple[bool, Any]) -> None:
        if not future.done():
            future.set_result(outcome)

    def call() -> None:
        try:
            outcome = False, context.run(handler, job)
        except BaseException as error:  # noqa: BLE001
            outcome = True, error
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(post, outcome)

    threading.Thread(target=call, name=f"jobqueue-{job.id}", daemon=True).start()
    return future


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling the handler gives a coroutine."""
    check_callable("handler", handler)
    call = getattr(handler, "__call__", None)  # noqa: B004 - the method, to look into
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def error_info(error: BaseException, *, with_traceback: bool = False) -> ErrorInfo:
    """Turn an exception into text. Never raises, whatever its ``__str__`` does."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException as bad:  # noqa: BLE001
        message = f"<str() of this exception raised {type(bad).__name__}>"
    if not with_traceback:
        return ErrorInfo(name, message)
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException as bad:  # noqa: BLE001
        text = f"<formatting the traceback raised {type(bad).__name__}>"
    return ErrorInfo(name, message, text)


def _is_closing(run: Run, error: BaseException) -> bool:
    """Whether this coroutine is being closed, so that it can neither await nor store anything.

    Python then throws `GeneratorExit` into it, outside of its task. A handler may raise one, too.
    """
    if not isinstance(error, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not run.task
    except RuntimeError:  # the event loop is gone
        return True


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
