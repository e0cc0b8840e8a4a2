"""One event loop in a thread of its own for each process, for code that is not asyncio.

It starts on first use, and ends with the process. A forked child begins without one, whatever its parent has:
what is open in the parent's loop is neither used nor closed there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

from jobqueue.errors import StoppedError, StorageUnavailableError, WrongLoopError
from jobqueue.runtime.forks import tell_in_child
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.threads import start_loop, start_thread

__all__ = ["Background", "background", "check_blockable", "run_in_caller", "running_background"]

T = TypeVar("T")

log = get_logger("jobqueue")

CLOSE_WITHIN = 5.0
"""Seconds that a process which exits waits until everything in the loop is closed."""


class Background:
    """The event loop of a process, and what is open in it."""

    def __init__(self) -> None:
        self.open: dict[object, Any] = {}
        """What was opened in the loop, under keys of those who did. Used in the loop only."""
        self.closings: dict[object, Callable[[], Awaitable[None]]] = {}
        """What to call when the loop ends. Used in the loop only."""
        self._calls: set[_Caller] = set()
        self._over = asyncio.Event()
        self._ended = threading.Event()
        self._loop = start_loop(self._main, self._has_ended, "jobqueue-sync")

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop, in the caller's context, and wait for it. From any other thread.

        An exception that is raised in the waiting thread, such as `KeyboardInterrupt`, is raised at once, and
        cancels the coroutine. Raises what the coroutine raises, and `StoppedError` if the loop has ended.
        """
        caller = _Caller()
        task: asyncio.Task[T] | None = None

        def begin() -> None:
            nonlocal task
            if not caller.over:
                task = self._loop.create_task(make())
                task.add_done_callback(caller.answer)

        def withdraw() -> None:
            if task is not None:
                task.cancel()

        context = contextvars.copy_context()
        context.run(_caller.set, caller)
        self._calls.add(caller)
        try:
            try:
                self._loop.call_soon_threadsafe(begin, context=context)
            except RuntimeError:  # it is closed
                raise _stopped() from None
            return cast("T", caller.wait())
        except BaseException:
            caller.over = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(withdraw)
            raise
        finally:
            caller.over = True
            self._calls.discard(caller)

    def close(self, timeout: float) -> None:
        """Close everything and end the thread; give up after ``timeout`` seconds."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._over.set)
        if not self._ended.wait(timeout):
            log.warning("queue.sync was not closed within %g s: its store does not answer", timeout)
            self._refuse_rest()

    async def _main(self) -> None:
        await self._over.wait()
        closings = [close() for close in self.closings.values()]
        for answer in await asyncio.gather(*closings, return_exceptions=True):
            if isinstance(answer, BaseException):
                log.warning("closing queue.sync at the end of the process: %r", answer)

    def _has_ended(self, failure: BaseException | None) -> None:
        if failure is not None:
            log.error("the event loop of queue.sync broke off", exc_info=failure)
        self._refuse_rest()
        self._ended.set()

    def _refuse_rest(self) -> None:
        for caller in tuple(self._calls):
            caller.refuse(_stopped())


class _Outcome(NamedTuple):
    value: Any
    error: BaseException | None = None


class _Caller:
    """A thread that waits for a coroutine."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None] | _Outcome] = SimpleQueue()
        self.over = False
        """Whether the thread waits no more."""

    def wait(self) -> Any:
        """Run what the coroutine hands over, until it has ended."""
        while True:
            told = self._inbox.get()
            if not isinstance(told, _Outcome):
                told()
                continue
            try:
                if told.error is not None:
                    raise told.error
                return told.value
            finally:
                del told  # the traceback of its error holds this frame

    def answer(self, ended: asyncio.Task[Any]) -> None:
        """Hand over the outcome of the coroutine."""
        if ended.cancelled():
            self.refuse(_stopped())
        elif (error := ended.exception()) is not None:
            self.refuse(error)
        else:
            self._inbox.put(_Outcome(ended.result()))

    def refuse(self, error: BaseException) -> None:
        """Raise an error in the thread."""
        self._inbox.put(_Outcome(None, error))

    def run(self, function: Callable[[], T]) -> asyncio.Future[tuple[bool, Any]]:
        """Run a function in the thread; the future gives (raised, value or error)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[bool, Any]] = loop.create_future()

        def post(outcome: tuple[bool, Any]) -> None:
            if not future.done():
                future.set_result(outcome)

        def call() -> None:
            try:
                outcome: tuple[bool, Any] = False, function()
            except Exception as error:  # noqa: BLE001 - raised in the coroutine; an interrupt is raised here
                outcome = True, error
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(post, outcome)

        self._inbox.put(call)
        return future


_caller: contextvars.ContextVar[_Caller | None] = contextvars.ContextVar("jobqueue-sync-caller", default=None)


async def run_in_caller(function: Callable[[], T], name: str) -> T:
    """Run a function that blocks in the thread that waits for this coroutine, or in one of its own."""
    caller = _caller.get()
    waiting = start_thread(function, name) if caller is None or caller.over else caller.run(function)
    raised, value = await waiting
    if raised:
        raise value
    result: T = value
    return result


class _Process:
    """The background loop of this process, if it has one."""

    def __init__(self) -> None:
        self.current: Background | None = None
        self._starting = threading.Lock()
        self._registered = False
        self._exiting = False
        self._parents: list[Background] = []
        """Those of the processes that this one was forked from: their sockets are not ours to close."""
        tell_in_child(self)

    def start(self) -> Background:
        """Return the loop of this process, and start it if there is none."""
        with self._starting:
            if self._exiting:
                raise _stopped()
            if self.current is None:
                try:
                    self.current = Background()
                except RuntimeError as error:
                    problem = f"the thread of queue.sync could not be started: {error}"
                    raise StorageUnavailableError(problem) from error
                if not self._registered:
                    atexit.register(self._exit)
                    self._registered = True
            return self.current

    def _exit(self) -> None:
        with self._starting:
            self._exiting = True
        if self.current is not None:
            self.current.close(CLOSE_WITHIN)

    def forked(self) -> None:
        """Have none in a forked child, where the thread does not run."""
        self._starting = threading.Lock()
        self._exiting = False
        if self.current is not None:
            self._parents.append(self.current)
            self.current = None


_process = _Process()


def background() -> Background:
    """Return the background loop of this process, and start it if there is none.

    Raises `StorageUnavailableError` if the system has no thread left, `StoppedError` if the process exits.
    """
    return _process.current or _process.start()


def running_background() -> Background | None:
    """Return the background loop of this process, if there is one."""
    return _process.current


def check_blockable(what: str) -> None:
    """Raise `WrongLoopError` in a thread whose event loop runs: it would stand still, perhaps for ever."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongLoopError(
        f"{what} blocks its thread, and an event loop runs in this one: all its tasks would stand still, "
        "perhaps the one that is waited for among them. Here, await the call of the queue itself, or run the "
        "code that needs this one by asyncio.to_thread"
    )


def _stopped() -> StoppedError:
    return StoppedError("queue.sync was closed during this call, or the process ends: it may have been made")
