"""Runs a handler: from a claimed job to its settlement.

A run is a list of steps: read the payload, call the handler, classify what came of it, let
``after_execution`` have its say on final outcomes, write the result, settle. Whatever a step raises
becomes an outcome: nothing that a handler does harms the worker. The file is long because the steps share the
run and are read best in their order.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from jobqueue.errors import InvalidArgumentError, JobQueueError, user_code
from jobqueue.middleware import Chain
from jobqueue.model.backoff import Backoff
from jobqueue.model.checks import check_callable, check_seconds, millis
from jobqueue.model.failures import deciding, error_info
from jobqueue.model.generics import P, R
from jobqueue.model.missing_handler import left_to_others, missing_handler
from jobqueue.model.outcomes import (
    AbortedReason,
    FailureReason,
    Fatal,
    Outcome,
    Raised,
    Retry,
    RetryAsked,
    Returned,
    Settlement,
    aborted_outcome,
    completion,
    is_final,
    settle,
)
from jobqueue.model.serde import Serde, dump, unreadable
from jobqueue.model.states import Action
from jobqueue.runtime.tasks import end_cancellation
from jobqueue.runtime.threads import start_thread
from jobqueue.storage.transactions import OpenTransaction
from jobqueue.storage.values import Claimed
from jobqueue.worker.after_execution import AfterExecution, Hook, check_error
from jobqueue.worker.job import CURRENT, NO_ARGUMENTS, Arguments, Job
from jobqueue.worker.run import Run
from jobqueue.worker.transactions import commit, transaction

__all__ = [
    "AroundRun",
    "Execution",
    "Handler",
    "Routine",
    "RunNext",
    "is_async",
]

_set_current = CURRENT.set  # looked up once: half of what the call takes

Handler = Callable[[Job[P]], Awaitable[R]] | Callable[[Job[P]], R]
RunNext = Callable[[Job[P]], Awaitable[R]]
"""The ``call_next`` of a middleware around runs."""
AroundRun = Callable[[Job[P], RunNext[P, R]], Awaitable[R]]
"""A middleware around runs."""


class Routine(Protocol):
    """How the jobs of one task run."""

    @property
    def threaded(self) -> bool:
        """Whether the call blocks, so that it runs in a thread."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that one attempt may take; ``None``: the queue's ``job_timeout``."""
        ...

    @property
    def backoff(self) -> Backoff | None:
        """The pause before the next attempt; ``None``: the queue's."""
        ...

    def read(self, payload: Any, /) -> Arguments:
        """Make the arguments of a job; raises what tells that the payload cannot be read."""
        ...

    def written(self, result: Any, /) -> Any:
        """Return a result as the serde writes it; raises what tells that it cannot be written."""
        ...

    def calling(self, job: Job[Any], /) -> AbstractAsyncContextManager[Callable[[], Any]]:
        """Prepare for a job, and clean up after it; gives the call, which takes nothing."""
        ...


@dataclass(slots=True, kw_only=True)
class Execution:
    """Everything a run needs: handlers, serdes, retry policy, callbacks."""

    queue: str
    worker_id: str
    handler: Callable[[Job[Any]], Any] | None
    """For the jobs without a task."""
    tasks: Mapping[str, Routine]
    """For all others, by the name of the task. More may come while jobs run."""
    handler_patience: float
    """Seconds for which a job may meet no handler."""
    payload_serde: Serde[Any]
    result_serde: Serde[Any]
    max_bytes: int
    backoff: Backoff
    uniform: Callable[[float, float], float]
    hook: Hook | None
    tracebacks: bool
    on_progress: Callable[[Job[Any], Any], Awaitable[None]]
    on_saved: Callable[[Job[Any], bytes], Awaitable[None]]
    on_error: Callable[[BaseException, str], None]
    begin: Callable[[], Awaitable[OpenTransaction]]
    """Opens a transaction for `Job.transaction`."""
    resources: Any = None
    """What the queue's lifespan gave."""
    threaded: bool
    """Whether ``handler`` runs in threads."""
    around: Chain[Job[Any], Any] | None = None
    only: frozenset[str] | None = None
    """The tasks that are served, if all other jobs are left to other workers."""
    direct: Callable[[Job[Any]], Any] | None = dataclasses.field(init=False)
    """``handler``, if it is called as it is: it is asynchronous, and nothing is around it."""
    pauses: Callable[[int], int] = dataclasses.field(init=False)
    """The queue's pauses between attempts. Kept, as to bind a method takes longer than to settle a job."""

    _ending: set[asyncio.Task[None]] = dataclasses.field(init=False, default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        self.direct = self.handler if not self.threaded and self.around is None else None
        self.pauses = self._delay

    def handle(self, handler: Callable[[Job[Any]], Any], *, threaded: bool) -> None:
        """Take a handler for the jobs without a task, unless these are left to others."""
        if self.only is not None:
            return
        self.handler, self.threaded = handler, threaded
        self.__post_init__()

    def timeout(self, claimed: Claimed) -> float | None:
        """Return the seconds that an attempt may take; ``None``: those of the queue."""
        task = self.tasks.get(claimed.task)
        return None if task is None else task.timeout

    async def perform(  # noqa: C901 - the path of every job: a call more is 1 % of it
        self, run: Run, ended: Callable[[Run, Settlement | None], None]
    ) -> None:
        """Run the handler, then call ``ended`` with the settlement, or with ``None`` if the lease is lost.

        What a handler does becomes an outcome; a defect of this package is reported, and the job runs
        again when its lease has expired.
        """
        claimed = run.claimed
        settlement: Settlement | None = None
        outcome: Outcome | None
        task = claimed.task
        routine: Routine | None
        direct, routine = self.direct, None
        if task:
            direct, routine = None, self.tasks.get(task)
        try:
            value: Any = None
            if direct is None and routine is None and (task or self.handler is None):
                outcome = self._not_served(claimed, claimed.attempts - 1 + run.extras.uncounted)
            else:
                try:
                    payload = self.payload_serde.loads(claimed.payload)
                    arguments = NO_ARGUMENTS if routine is None else routine.read(payload)
                except BaseException as error:  # noqa: BLE001 - a serde is the user's code
                    outcome = self._unreadable(run, error)
                else:
                    job = run.job = Job(run, payload, self, arguments)
                    _set_current(job)
                    try:
                        if run.aborted is not None:
                            raise asyncio.CancelledError  # before the handler began
                        if direct is not None:
                            value = await direct(job)
                        else:
                            value = await self._call_indirectly(run, job, routine)
                    except BaseException as error:
                        if _is_closing(run, error):
                            raise
                        outcome = self._classify(run, error)
                    else:
                        returned = self._returned(run, value, routine)
                        if not isinstance(returned, bytes):
                            outcome = returned
                        elif self.hook is not None or run.extras.transaction is not None:
                            outcome = Returned(returned)
                        else:  # nearly all runs: `_concluded` would do the same
                            run.result, outcome = value, None
                            settlement = completion(claimed.id, run.fence, returned, claimed.ttl)
            if outcome is not None:
                settlement = await self._concluded(run, value, outcome, routine)
        except Exception as error:  # noqa: BLE001
            self.on_error(error, f"running job {run.id!r}")
        # They hold each other, the task by its context: the cycle collector would pause all.
        run.job = run.task = None
        ended(run, settlement)

    def cut_off(self, run: Run) -> Settlement | None:
        """Return the settlement of a run that was aborted and does not end."""
        assert run.aborted is not None
        claimed = run.claimed
        pauses = self._pauses(self.tasks.get(claimed.task))
        return settle(claimed, aborted_outcome(run.aborted), claimed.ttl, pauses)

    def transaction(self, run: Run) -> AbstractAsyncContextManager[Any]:
        """Open a transaction that ends with the run."""
        return transaction(run, self.begin)

    def _not_served(self, claimed: Claimed, claims: int) -> Outcome:
        if self.only is not None:
            return left_to_others(self.only, claimed.history, claims)
        return missing_handler(claimed.task, claimed.history, claims, self.handler_patience)

    # -- steps ------------------------------------------------------------------------------------

    async def _concluded(
        self, run: Run, value: Any, outcome: Outcome, routine: Routine | None
    ) -> Settlement | None:
        """Let ``after_execution`` have its say; settle, within the run's transaction if it has one."""
        ttl = run.claimed.ttl
        if self.hook is not None and is_final(run.claimed, outcome):
            value, outcome, ttl = await self._after(run, value, outcome, routine)
        run.result = value
        settlement = settle(run.claimed, outcome, ttl, self._pauses(routine))
        if run.extras.transaction is not None:
            settlement = await self._end_transaction(run, settlement, self._pauses(routine))
        return settlement

    def _returned(self, run: Run, value: Any, routine: Routine | None) -> bytes | Outcome:
        """Write the result; return its bytes, or the outcome that takes its place."""
        # A result that is there in spite of a shutdown is taken; any other abort stands.
        if run.aborted is not None and run.aborted is not AbortedReason.SHUTDOWN:
            return aborted_outcome(run.aborted)
        try:
            if routine is not None:
                value = routine.written(value)
            return dump(self.result_serde, value, "the result", self.max_bytes)
        except BaseException as error:  # noqa: BLE001
            return self._unserializable(run, error)

    def _unreadable(self, run: Run, error: BaseException) -> Raised:
        failure = unreadable("the payload", self.payload_serde, error)
        failure.__cause__ = error
        return self._unserializable(run, failure)

    def _unserializable(self, run: Run, error: BaseException) -> Raised:
        run.own_extras().error = error
        return Raised(error_info(error, with_traceback=self.tracebacks), FailureReason.SERIALIZATION)

    def _classify(self, run: Run, error: BaseException) -> Outcome:
        if run.aborted is not None:
            if run.aborted is AbortedReason.TIMEOUT:
                run.own_extras().error = error  # its traceback tells where the time went
            return aborted_outcome(run.aborted)
        run.own_extras().error = error
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

    def _call_indirectly(self, run: Run, job: Job[Any], routine: Routine | None) -> Awaitable[Any]:
        """Call a task, or the handler in a thread, inside of the middleware."""
        if self.around is None:
            return self._call(run, job, routine)
        called = False

        async def handle(given: Job[Any]) -> Any:
            nonlocal called
            if given is not job:
                raise InvalidArgumentError("job", "call_next takes the job that the middleware was given")
            if called:
                raise JobQueueError(
                    "call_next was called twice: an attempt calls its handler once. Raise Retry for another"
                )
            called = True
            extras = run.own_extras()
            extras.handler_task = asyncio.current_task()
            try:
                return await self._call(run, job, routine)
            finally:
                extras.handler_task = None

        return self.around.around(handle)(job)

    async def _call(self, run: Run, job: Job[Any], routine: Routine | None) -> Any:
        if routine is None:
            assert self.handler is not None
            plain = partial(self.handler, job)
            return await (self._in_thread(run, job, plain) if self.threaded else plain())
        calling = routine.calling(job)
        call = await calling.__aenter__()
        try:
            value = await (self._in_thread(run, job, call) if routine.threaded else call())
        except BaseException as error:
            thread = run.extras.thread
            if thread is not None and not thread.done():
                self._end_after(thread, calling)  # the thread goes on with what it was given
            elif _is_closing(run, error):
                pass
            else:
                await calling.__aexit__(type(error), error, error.__traceback__)
            raise  # also what a dependency has swallowed: its end decides nothing about the job
        await calling.__aexit__(None, None, None)
        return value

    def _end_after(
        self, thread: asyncio.Future[Any], calling: AbstractAsyncContextManager[Callable[[], Any]]
    ) -> None:
        """Clean up when a thread has ended whose run was aborted."""

        async def end() -> None:
            await asyncio.wait([thread])
            try:
                await calling.__aexit__(None, None, None)
            except Exception as error:  # noqa: BLE001 - the user's code
                self.on_error(error, "ending the dependencies of a thread that outlived its job")

        task = asyncio.get_running_loop().create_task(end(), name="jobqueue-dependencies")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _in_thread(self, run: Run, job: Job[Any], call: Callable[[], Any]) -> Any:
        job.aborted  # noqa: B018 - made here: made later, by two threads at once, it could be two
        extras = run.own_extras()
        thread = extras.thread = start_thread(call, f"jobqueue-{job.id}")
        extras.in_thread = True
        try:
            # Shielded: the thread goes on whatever happens to this task, and its end frees the slot.
            failed, value = await asyncio.shield(thread)
        except asyncio.CancelledError:
            thread.add_done_callback(_drop_late)
            raise
        finally:
            extras.in_thread = False  # a middleware goes on in the event loop
        if failed:
            raise value
        if not inspect.isawaitable(value):
            return value
        # A plain function around an asynchronous one: from here on the run is one of the event loop.
        extras.thread = None
        if run.aborted is not None:
            _drop(value)
            raise asyncio.CancelledError
        return await value

    async def _end_transaction(
        self, run: Run, settlement: Settlement | None, pauses: Callable[[int], int]
    ) -> Settlement | None:
        """Commit what the handler wrote together with its completion; roll back with anything else."""
        if settlement is None or settlement.action is not Action.COMPLETE:
            await run.take_transaction().rollback()
            return settlement
        try:
            await commit(run, self.queue, settlement)
        except Exception as error:  # noqa: BLE001 - the database refuses what the handler wrote
            run.result = None
            return settle(run.claimed, self._classify(run, error), run.claimed.ttl, pauses)
        return settlement

    async def _after(
        self, run: Run, value: Any, outcome: Outcome, routine: Routine | None
    ) -> tuple[Any, Outcome, int]:
        original = value, outcome, run.claimed.ttl
        # A job that succeeded and is failed here is not tried again: this call decides what is final.
        job, error, reason = run.job, None, FailureReason.FATAL
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
                check_error(context.error)
                return None, Raised(context.error, reason) if context.error is not error else outcome, ttl
            # Written again even if it is the same object: that may have been changed in place.
            plain = context.result if routine is None else routine.written(context.result)
            data = dump(self.result_serde, plain, "the result", self.max_bytes)
            run.own_extras().error = None
            return context.result, Returned(data), ttl
        except BaseException as bad:
            if _is_closing(run, bad):
                raise
            self.on_error(bad, f"after_execution of job {run.id!r}")
            return original

    def _pauses(self, routine: Routine | None) -> Callable[[int], int]:
        """Return what gives the milliseconds to wait after so many attempts."""
        if routine is None or routine.backoff is None:
            return self.pauses
        return partial(self._delay, backoff=routine.backoff)

    def _delay(self, attempts: int, backoff: Backoff | None = None) -> int:
        def otherwise(error: BaseException) -> int:
            self.on_error(error, f"backoff after {attempts} attempts")
            return 1000

        return user_code(lambda: millis((backoff or self.backoff).delay(attempts, self.uniform)), otherwise)


CANCELLED = (
    "the run was cancelled, but not by its queue: by the handler itself, or by other code of this process"
)


def _drop_late(thread: asyncio.Future[tuple[bool, Any]]) -> None:
    """Drop the result of a thread whose run has ended."""
    if not thread.cancelled():
        _drop(thread.result()[1])


def _drop(value: Any) -> None:
    """Close a coroutine that is never awaited, before Python warns about it."""
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
