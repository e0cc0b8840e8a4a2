"""An open file store in one event loop: calls on their way to the thread of the pump, and answers back.

The calls of one round of the event loop travel together. None waits for ever: one that is not answered in
`STUCK_AFTER` seconds is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.engine.effects import Effects
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.engine.wakeups import WakeUps
from jobqueue.storage.file.calls import Call, ReadCall, Write, write
from jobqueue.storage.file.commands.base import Command
from jobqueue.storage.file.commands.jobs import Exchange
from jobqueue.storage.file.pump import MOST_BYTES, MOST_CALLS, Bundle, Pump
from jobqueue.storage.file.shared import SharedPump
from jobqueue.storage.opening import StoreSession
from jobqueue.storage.values import Exchanged

__all__ = ["STUCK_AFTER", "OpenStore"]

log = get_logger("jobqueue.storage.file")
STUCK_AFTER = 30.0
"""Seconds after which a call is given up if the disk, or the holder of the lock, does not answer."""
T = TypeVar("T")


class OpenStore(StoreSession):
    """The calls of one event loop that are under way, and its waiters."""

    def __init__(self, shared: SharedPump) -> None:
        super().__init__()
        self._shared = shared
        self._clock = shared.clock
        self._loop = asyncio.get_running_loop()
        self.wake_ups = WakeUps(shared.clock)
        self._pump: Pump | None = None
        self._calls: list[Call] = []
        self._tickets: list[asyncio.Future[Any]] = []
        self._size = 0
        self._in_flight: dict[int, Bundle] = {}
        self._emptied: asyncio.Future[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Open the directory, or share the thread of a clone that has."""
        pump = self._shared.acquire()
        try:
            await _outcome(pump.ready)
        except BaseException:
            self._shared.release()
            raise
        pump.add(self)
        self._pump = pump

    async def close(self) -> None:
        """Wait for the answers under way; end the thread if no clone uses it."""
        if self._pump is None:
            return
        until = self._loop.time() + STUCK_AFTER
        await self._drain(until)
        self._flush()
        finished = self._leave(self._pump)
        if finished is not None:
            try:
                async with asyncio.timeout_at(until):
                    await _outcome(finished)
            except TimeoutError:
                self._give_up(self._in_flight)
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def abandon(self) -> None:
        """Leave the thread, which goes on."""
        if self._pump is not None:
            self._leave(self._pump)

    def _leave(self, pump: Pump) -> Future[None] | None:
        self._pump = None
        pump.remove(self)
        return self._shared.release()

    # -- to the pump and back -----------------------------------------------------------------------

    def read(self, answer: Callable[[Engine, int], T]) -> asyncio.Future[T]:
        """Make a call that changes nothing, given a function of the state and the time."""
        return self._call(ReadCall(answer))

    def write(self, command: Command[T]) -> asyncio.Future[T]:
        """Make a call that may change something."""
        return self._call(write(command))

    async def exchange(self, command: Exchange) -> Exchanged:
        """Settle and claim; if the caller is cancelled, give back the jobs it would have got."""
        call = write(command)
        answer = self._call(call)
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:  # it came too late to be taken
                self._give_back(call, answer.result())
            raise

    async def wait(
        self, topic: tuple[str, str], timeout: float, look: Callable[[Engine, int], int | None]
    ) -> bool:
        """Wait for a wake-up, or the milliseconds that ``look`` finds: False after ``timeout`` seconds."""
        # The waiter stands before the look: a wake-up that comes between the two is still heard.
        with self.wake_ups.waiting(topic) as waiter:
            timers = [self._clock.call_later(timeout, partial(waiter.set, False))]  # noqa: FBT003
            try:
                due = await self.read(look)
                if due:
                    timers.append(self._clock.call_later(due / 1000, partial(waiter.set, True)))  # noqa: FBT003
                return due == 0 or await waiter.future
            finally:
                for timer in timers:
                    timer.cancel()

    def _call(self, call: Write[T] | ReadCall[T]) -> asyncio.Future[T]:
        """Run a call together with those of this round of the event loop that fit into a turn."""
        ticket: asyncio.Future[T] = self._loop.create_future()
        if not self._calls:
            self._loop.call_soon(self._flush)
        self._calls.append(call)
        self._tickets.append(ticket)
        self._size += len(call.packed)
        if self._size >= MOST_BYTES or len(self._calls) >= MOST_CALLS:
            self._flush()
        return ticket

    def _flush(self) -> None:
        if not self._calls or self._pump is None:
            return
        bundle = Bundle(self, self._calls, self._tickets, self._size)
        self._calls, self._tickets, self._size = [], [], 0
        self._in_flight[id(bundle)] = bundle
        if self._watchdog is None:
            self._watch_over({})
        self._pump.submit(bundle)

    def deliver(
        self, bundles: Sequence[tuple[Bundle, Sequence[Any]]], effects: Sequence[Effects], *, resync: bool
    ) -> None:
        """Receive answers from the pump's thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, bundles, effects, resync)
        except RuntimeError:  # the loop was closed without closing the store: no caller is left
            if self._pump is not None:
                self._pump.remove(self)

    def _take(
        self,
        bundles: Sequence[tuple[Bundle, Sequence[Any]]],
        effects: Sequence[Effects],
        resync: bool,  # noqa: FBT001 - a callback
    ) -> None:
        for bundle, answers in bundles:
            self._in_flight.pop(id(bundle), None)
            for call, ticket, answer in zip(bundle.calls, bundle.tickets, answers, strict=True):
                if ticket.done():
                    self._give_back(call, answer)
                elif isinstance(answer, BaseException):
                    ticket.set_exception(answer)
                else:
                    ticket.set_result(answer)
        if self._emptied is not None and not self._in_flight and not self._emptied.done():
            self._emptied.set_result(None)
        for effect in effects:
            self.wake_ups.publish(effect)
        if resync:
            self.wake_ups.resync()

    def _give_back(self, call: Call, answer: Any) -> None:
        """Release the jobs of a claim whose caller was cancelled or has timed out."""
        claim = call.command if isinstance(call, Write) else None
        if not isinstance(claim, Exchange) or not isinstance(answer, Exchanged) or not answer.jobs:
            return
        releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
        if self._pump is not None:  # else their leases end by themselves
            ticket = self.write(Exchange(claim.queue, claim.worker, releases, 0, claim.lease))
            ticket.add_done_callback(_log_failure)

    # -- nothing hangs ------------------------------------------------------------------------------

    async def _drain(self, until: float) -> None:
        """Wait for the answers under way, and for the calls that give claims back."""
        self._flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self._in_flight:
                    self._emptied = self._loop.create_future()
                    await self._emptied
                    self._flush()

    def _watch_over(self, seen: dict[int, Bundle]) -> None:
        """Give up calls that were already in flight ``STUCK_AFTER`` seconds ago."""
        stuck = {key: bundle for key, bundle in seen.items() if self._in_flight.get(key) is bundle}
        self._give_up(stuck)
        self._watchdog = None
        if self._in_flight:
            self._watchdog = self._loop.call_later(STUCK_AFTER, self._watch_over, dict(self._in_flight))

    def _give_up(self, stuck: dict[int, Bundle]) -> None:
        for key, bundle in list(stuck.items()):
            self._in_flight.pop(key, None)
            for call, ticket in zip(bundle.calls, bundle.tickets, strict=True):
                if isinstance(call, Write):
                    call.withdrawn = True
                if not ticket.done():
                    ticket.set_exception(
                        StorageUnavailableError(
                            f"the store in {self._shared.path} has not answered for {STUCK_AFTER:g} s: the "
                            "disk hangs, or a stopped process holds the lock; the call may have been carried "
                            "out"
                        )
                    )


def _outcome(future: Future[None]) -> asyncio.Future[None]:
    """Return an awaitable whose cancellation leaves alone the future that the pump's thread sets."""
    return asyncio.shield(asyncio.wrap_future(future))


def _log_failure(ticket: asyncio.Future[Any]) -> None:
    if not ticket.cancelled() and (error := ticket.exception()) is not None:
        log.warning("jobs that were claimed for nobody could not be given back: %s", error)
