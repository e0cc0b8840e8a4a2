"""Runs a handler: from a claimed job to its settlement.

A run is a list of steps: read the payload, call the handler, classify what came of it, let
``after_execution`` have its say on final outcomes, write the result, settle. Whatever a step raises
becomes an outcome: nothing that a handler does harms the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from jobqueue.backoff import Backoff
from jobqueue.errors import ErrorInfo, InvalidArgumentError
from jobqueue.failures import deciding, error_info
from jobqueue.generics import P, R
from jobqueue.job import (
    TIMED_OUT,
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
    is_final,
    settle,
)
from jobqueue.options import check_callable, check_seconds, millis
from jobqueue.run import Job, Run
from jobqueue.runtime import end_cancellation, make_tuple
from jobqueue.serde import Serde, dump, unreadable

__all__ = ["AfterExecution", "Execution", "Handler", "Hook", "Job", "Run", "is_async"]

Handler = Callable[[Job[P]], Awaitable[R]] | Callable[[Job[P]], R]


@dataclass(slots=True)
class AfterExecution:
    """The outcome passed to ``after_execution``, which may change ``result``, ``error`` and ``ttl``."""

    job: Job[Any]
    result: Any
    """The handler's result; ``None`` on failure."""
    error: ErrorInfo | None
    """Set it to fail a job that succeeded; clear it to complete, with ``result``, one that failed."""
    ttl: float
    """Seconds until the outcome and the dedup mark expire."""


Hook = Callable[[AfterExecution], Awaitable[None] | None]


@dataclass(slots=True, kw_only=True)
class Execution:
    """Everything a run needs: handler, serdes, retry policy, callbacks."""

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

    async def perform(self, run: Run, ended: Callable[[Run, Settlement | None], None]) -> None:
        """Run the handler, then call ``ended`` with the settlement, or with ``None`` if the lease is lost.

        What a handler does becomes an outcome; a defect of this package is reported, and the job runs
        again when its lease has expired.
        """
        claimed = run.claimed
        settlement: Settlement | None = None
        try:
            value: Any = None
            try:
                payload = self.payload_serde.loads(claimed.payload)
            except BaseException as error:  # noqa: BLE001 - a serde is the user's code
                outcome: Outcome = self._unreadable(run, error)
            else:
                job = run.job = Job(run, payload, self)
                try:
                    if run.aborted is not None:
                        raise asyncio.CancelledError  # before the handler began
                    value = await (self._in_thread(run, job) if self.threaded else self.handler(job))
                except BaseException as error:
                    if _is_closing(run, error):
                        raise
                    outcome = self._classify(run, error)
                else:
                    outcome = self._returned(run, value)
            ttl = claimed.ttl
            if self.hook is not None and is_final(claimed, outcome):
                value, outcome, ttl = await self._after(run, value, outcome)
            run.result = value
            settlement = settle(claimed, outcome, ttl, self._delay)
        except Exception as error:  # noqa: BLE001
            self.on_error(error, f"running job {run.id!r}")
        run.job = None  # they hold each other, and no run should have to wait for the cycle collector
        ended(run, settlement)

    def cut_off(self, run: Run) -> Settlement | None:
        """Return the settlement of a run that was aborted and does not end."""
        assert run.aborted is not None
        return settle(run.claimed, Aborted(run.aborted), run.claimed.ttl, self._delay)

    # -- steps ------------------------------------------------------------------------------------

    def _returned(self, run: Run, value: Any) -> Outcome:
        # A result that is there in spite of a shutdown is taken; any other abort stands.
        if run.aborted is not None and run.aborted is not AbortedReason.SHUTDOWN:
            return Aborted(run.aborted)
        try:
            return make_tuple(Returned, (dump(self.result_serde, value, "the result", self.max_bytes),))
        except BaseException as error:  # noqa: BLE001
            return self._unserializable(run, error)

    def _unreadable(self, run: Run, error: BaseException) -> Raised:
        failure = unreadable("the payload", self.payload_serde, error)
        failure.__cause__ = error
        return self._unserializable(run, failure)

    def _unserializable(self, run: Run, error: BaseException) -> Raised:
        run.error = error
        return Raised(error_info(error, with_traceback=self.tracebacks), FailureReason.SERIALIZATION)

    def _classify(self, run: Run, error: BaseException) -> Outcome:
        if run.aborted is not None:
            if run.aborted is AbortedReason.TIMEOUT:
                run.error = error  # its traceback tells where the time went
            return Aborted(run.aborted)
        run.error = error
        info = error_info(error, with_traceback=self.tracebacks)
        if isinstance(error, asyncio.CancelledError) and not info.message:
            return Raised(replace(info, message=CANCELLED))
        match deciding(error):
            case Fatal():
                return Raised(info, FailureReason.FATAL)
            case Retry(delay=None):
                return RetryAsked(info, None)
            case Retry(delay=delay):
                try:
                    return RetryAsked(info, check_seconds("delay", delay, zero=True))
                except InvalidArgumentError as bad:
                    return Raised(error_info(bad, with_traceback=self.tracebacks))
            case _:
                return Raised(info)

    async def _in_thread(self, run: Run, job: Job[Any]) -> Any:
        job.aborted  # noqa: B018 - made here: made later, by two threads at once, it could be two
        run.thread = start_thread(self.handler, job)
        try:
            # Shielded: the thread goes on whatever happens to this task, and its end frees the slot.
            failed, value = await asyncio.shield(run.thread)
        except asyncio.CancelledError:
            run.thread.add_done_callback(_drop_late)
            raise
        if failed:
            raise value
        if not inspect.isawaitable(value):
            return value
        # A plain function around an asynchronous one: from here on the run is one of the event loop.
        run.thread = None
        if run.aborted is not None:
            _drop(value)
            raise asyncio.CancelledError
        return await value

    async def _after(self, run: Run, value: Any, outcome: Outcome) -> tuple[Any, Outcome, int]:
        original = value, outcome, run.claimed.ttl
        # A job that succeeded and is failed here is not tried again: this call decides what is final.
        job, error, reason = run.job, None, FailureReason.FATAL
        if isinstance(outcome, Aborted):
            outcome = TIMED_OUT
        if isinstance(outcome, Raised):
            value, error, reason = None, outcome.error, outcome.reason
        if job is None:  # the payload could not be read
            job = Job(run, None, self)
        assert self.hook is not None
        context = AfterExecution(job, value, error, run.claimed.ttl / 1000)
        await end_cancellation()
        try:
            answer = self.hook(context)
            if inspect.isawaitable(answer):
                await answer
            ttl = millis(check_seconds("ttl", context.ttl))
            if context.error is not None:
                _check_error(context.error)
                return None, Raised(context.error, reason) if context.error is not error else outcome, ttl
            # Written again even if it is the same object: that may have been changed in place.
            data = dump(self.result_serde, context.result, "the result", self.max_bytes)
            run.error = None
            return context.result, Returned(data), ttl
        except BaseException as bad:
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


def _check_error(error: object) -> None:
    """Refuse what is no `ErrorInfo` of texts, before it is to be stored."""
    if type(error) is not ErrorInfo:
        raise InvalidArgumentError("error", "must be an ErrorInfo or None")
    for field in ("type", "message", "traceback"):
        text: object = getattr(error, field)
        if not isinstance(text, str) and not (field == "traceback" and text is None):
            raise InvalidArgumentError(f"error.{field}", f"must be a str, not {type(text).__name__}")


CANCELLED = (
    "the run was cancelled, but not by its queue: by the handler itself, or by other code of this process"
)


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


def _drop_late(thread: asyncio.Future[tuple[bool, Any]]) -> None:
    """Drop what a thread returns after its run has ended."""
    if not thread.cancelled():
        _drop(thread.result()[1])


def _drop(value: Any) -> None:
    """Close a coroutine that nobody is going to await, which Python would complain of."""
    if inspect.iscoroutine(value):
        value.close()


def is_async(handler: Callable[..., Any]) -> bool:
    """Return whether calling the handler gives a coroutine."""
    check_callable("handler", handler)
    call = getattr(handler, "__call__", None)  # noqa: B004 - the method, to look into
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def _is_closing(run: Run, error: BaseException) -> bool:
    """Return whether this coroutine is being closed, so that it can neither await nor store anything.

    Python then throws `GeneratorExit` into it, outside of its task. A handler may raise one, too.
    """
    if not isinstance(error, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not run.task
    except RuntimeError:  # the event loop is gone
        return True
