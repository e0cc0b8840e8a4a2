"""`FileStorage`: hands the calls of the contract to the pump and awaits the answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from jobqueue.errors import InvalidArgumentError, StorageError, StorageUnavailableError
from jobqueue.job import Action, JobState, Settlement
from jobqueue.loggers import get_logger
from jobqueue.options import check_bool, check_callable, check_count
from jobqueue.runtime import SYSTEM_CLOCK, Clock
from jobqueue.storage import arguments
from jobqueue.storage.base import (
    CancelStatus,
    Counts,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    Sink,
    Swept,
    UpdateTtlStatus,
    WorkerInfo,
)
from jobqueue.storage.engine import Effects, Engine
from jobqueue.storage.file import commands, doctor, fsck
from jobqueue.storage.file.command import Command
from jobqueue.storage.file.core import Call, Core, Read, Write, write
from jobqueue.storage.file.files import Files, fault
from jobqueue.storage.file.fsck import Finding
from jobqueue.storage.file.lock import LOCK_NAME
from jobqueue.storage.file.progress import Progress
from jobqueue.storage.file.pump import MOST_BYTES, MOST_CALLS, Bundle, Pump
from jobqueue.storage.file.recovery import Home
from jobqueue.storage.file.rotation import ROTATE_AT
from jobqueue.storage.hints import Hints

__all__ = ["STUCK_AFTER", "FileStorage"]

_log = get_logger("jobqueue.storage.file")
STUCK_AFTER = 30.0
"""Seconds after which a call is given up if the disk, or the holder of the lock, does not answer."""
_Future = asyncio.Future[Any]
T = TypeVar("T")


class FileStorage:
    """Keeps jobs in a directory of this host, for all of its processes.

    ``path``: the directory; made if missing, with its parents, for the owner only.
    ``fsync=False``: faster, and safe when processes die, but a power cut may lose the last seconds.
    ``clock``: for tests. ``force``: use a network or user-space filesystem all the same.
    ``progress``: called with (bytes read, bytes to read) while the state is loaded, in another thread.

    `open` raises `StorageError` if the directory must not be used (network filesystem, damage, another
    version, permissions) and says what to do. Calls raise `QueueFullError` when the disk has no room for
    new jobs, and `StorageUnavailableError` when the disk fails.
    """

    batched = True
    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        fsync: bool = True,  # noqa: FBT001, FBT002 - the public signature
        *,
        clock: Clock = SYSTEM_CLOCK,
        force: bool = False,
        progress: Progress | None = None,
        files: Files | None = None,
        rotate_at: int = ROTATE_AT,
    ) -> None:
        self.clock = clock
        self.path = _absolute(path)
        check_bool("fsync", fsync)
        check_bool("force", force)
        if progress is not None:
            check_callable("progress", progress)
        check_count("rotate_at", rotate_at)
        self._shared = _Shared(
            _Options(self.path, clock, fsync, force, files or Files(), rotate_at), progress
        )
        self._begin()

    def _begin(self) -> None:
        self._hints = Hints(self.clock)
        self._opened = 0
        self._opening: asyncio.Lock = asyncio.Lock()
        self._pump: Pump | None = None
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: list[Call] = []
        self._tickets: list[_Future] = []
        self._size = 0
        self._in_flight: dict[int, Bundle] = {}
        self._emptied: asyncio.Future[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"FileStorage({str(self.path)!r})"

    @property
    def exists(self) -> bool:
        """Whether the directory holds a store; `open` makes one where it does not."""
        try:
            return (self.path / LOCK_NAME).is_file()
        except OSError:  # it cannot be seen: `open` says why
            return True

    async def open(self) -> None:
        self._check_process()
        self._leave_dead_loop()
        async with self._opening:
            if self._opened:
                self._check_loop()
            else:
                self._loop = asyncio.get_running_loop()
                pump = self._shared.acquire()
                try:
                    await _outcome(pump.ready)
                except BaseException:
                    self._shared.release()
                    raise
                pump.add(self)
                self._pump, self._pid = pump, os.getpid()
            self._opened += 1

    async def close(self) -> None:
        if self._pid not in {0, os.getpid()}:
            return  # a forked child has nothing of its own to close
        self._leave_dead_loop()
        async with self._opening:
            if self._opened:
                self._check_loop()
            until = asyncio.get_running_loop().time() + STUCK_AFTER
            if self._opened == 1:
                await self._drain(until)
            self._opened = max(0, self._opened - 1)
            if not self._opened and self._pump is not None:
                await self._close(self._pump, until)

    def _leave_dead_loop(self) -> None:
        """Count as closed if the event loop has ended without closing this store."""
        if self._pump is None or self._loop is None or not self._loop.is_closed():
            return
        self._pump.remove(self)
        self._shared.release()
        self._pump, self._pid, self._opened, self._opening = None, 0, 0, asyncio.Lock()
        self._calls, self._tickets, self._size, self._watchdog = [], [], 0, None
        self._in_flight.clear()

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise StorageError(
                "this file store was opened in another event loop: use it there, or a clone() of it here"
            )

    async def _close(self, pump: Pump, until: float) -> None:
        self._flush()
        self._pump, self._pid = None, 0
        pump.remove(self)
        finished = self._shared.release()
        if finished is not None:
            try:
                async with asyncio.timeout_at(until):
                    await _outcome(finished)
            except TimeoutError:
                self._give_up(self._in_flight)
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    async def check(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check the files, and with ``repair`` save their sound parts; see `jobqueue.storage.file.fsck`.

        Needs a store that is not open here. Other processes wait meanwhile, and begin anew after a
        repair. Raises `StorageError` if the files cannot be read.
        """
        if self._opened:
            raise StorageError("close the file store before it is checked")
        return await asyncio.to_thread(self._shared.check, repair=repair)

    async def diagnose(self) -> Sequence[Finding]:
        """Judge the directory, its files and its disk; see `jobqueue.storage.file.doctor`."""
        self._check_open()
        return await asyncio.to_thread(self._shared.diagnose)

    def report_loading(self, progress: Progress) -> None:
        """Call ``progress`` from the next opening or check on, if the store was made without one."""
        self._shared.progress = self._shared.progress or progress

    def clone(self) -> Self:
        clone = type(self).__new__(type(self))
        clone.clock, clone.path = self.clock, self.path
        clone._shared = self._shared  # noqa: SLF001 - of the same class
        clone._begin()  # noqa: SLF001
        return clone

    # -- calls ------------------------------------------------------------------------------------

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        arguments.check_insert(queue, jobs, reply_to, max_length)
        return await self._write(commands.Insert(queue, jobs, reply_to, max_length))

    async def get(
        self,
        queue: str,
        ids: Sequence[str],
        *,
        reply_to: str | None = None,
        payload: bool = False,
    ) -> list[Record | None]:
        arguments.check_get(queue, ids, reply_to, payload)
        if reply_to is not None:
            return await self._write(commands.Watch(queue, ids, reply_to, payload))
        return await self._read(lambda engine, now: engine.get(queue, ids, now, payload=payload))

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        arguments.check_exchange(queue, worker, settlements, limit, lease)
        call = write(commands.Exchange(queue, worker, settlements, limit, lease))
        answer = self._call(call)
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:  # it came too late to be taken
                self._give_back(call, answer.result())
            raise

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        arguments.check_extend(queue, worker, leases, lease)
        return await self._write(commands.Extend(queue, worker, leases, lease))

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        arguments.check_limit(queue, limit)
        return await self._write(commands.Sweep(queue, limit))

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        arguments.check_cancel(queue, ids, running)
        return await self._write(commands.Cancel(queue, ids, running))

    async def keep(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        arguments.check_keep(queue, ttls)
        return await self._write(commands.Keep(queue, ttls))

    async def purge(self, queue: str, limit: int) -> int:
        arguments.check_limit(queue, limit)
        return await self._write(commands.Purge(queue, limit))

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        arguments.check_scan(queue, state, limit, cursor)
        return await self._read(lambda engine, now: engine.scan(queue, state, limit, now, cursor))

    async def counts(self, queue: str) -> Counts:
        arguments.check_queue(queue)
        return await self._read(lambda engine, now: engine.counts(queue, now))

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues in which a sweep would find something; see `jobqueue.storage.sweeping`."""
        arguments.check_queues(queues)
        return await self._read(lambda engine, now: engine.to_sweep(queues, now))

    async def ended(self, queue: str) -> int:
        """Return how many jobs have ended; see `jobqueue.storage.totals`."""
        arguments.check_queue(queue)
        return await self._read(lambda engine, _now: engine.ended(queue))

    async def queues(self) -> list[str]:
        return await self._read(lambda engine, _: engine.queues())

    async def workers(self, queue: str) -> list[WorkerInfo]:
        arguments.check_queue(queue)
        return await self._read(lambda engine, now: engine.workers(queue, now))

    async def wait_for_work(
        self,
        queue: str,
        worker: str,
        timeout: float,
    ) -> bool:
        arguments.check_wait_for_work(queue, worker, timeout)
        return await self._wait(("work", queue), timeout, lambda engine, now: engine.work_in(queue, now))

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        self._check_open()
        self._hints.subscribe(queue, address, sink)

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        self._hints.unsubscribe(queue, address, sink)

    async def acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        arguments.check_acquire(lock, owner, ttl)
        return await self._write(commands.Acquire(lock, owner, ttl))

    async def renew(self, lock: str, owner: str, ttl: int) -> bool:
        arguments.check_acquire(lock, owner, ttl)
        return await self._write(commands.Renew(lock, owner, ttl))

    async def release(self, lock: str, owner: str) -> bool:
        arguments.check_owner(lock, owner)
        return await self._write(commands.Release(lock, owner))

    async def holder(self, lock: str) -> LockInfo | None:
        arguments.check_lock(lock)
        return await self._read(lambda engine, now: engine.holder(lock, now))

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        arguments.check_wait_for_lock(lock, timeout)
        return await self._wait(
            ("lock", lock), timeout, lambda engine, now: 0 if engine.holder(lock, now) is None else None
        )

    # -- to the pump and back -----------------------------------------------------------------------

    def _check_process(self) -> None:
        if self._pid not in {0, os.getpid()}:
            raise _forked()

    def _check_open(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if self._pid != os.getpid():
            self._check_process()  # raises, except for a store that is not open
        if not self._opened or loop is None:
            raise StorageError("the file store is not open: call open() first")
        if loop is not asyncio.get_running_loop():
            self._check_loop()  # raises
        return loop

    def _read(self, answer: Callable[[Engine, int], T]) -> asyncio.Future[T]:
        return self._call(Read(answer))

    def _write(self, command: Command[T]) -> asyncio.Future[T]:
        return self._call(write(command))

    def _call(self, call: Write[T] | Read[T]) -> asyncio.Future[T]:
        """Run a call together with those of this round of the event loop that fit into a turn."""
        loop = self._check_open()
        ticket: asyncio.Future[T] = loop.create_future()
        if not self._calls:
            loop.call_soon(self._flush)
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

    async def _wait(
        self, topic: tuple[str, str], timeout: float, look: Callable[[Engine, int], int | None]
    ) -> bool:
        """Wait for a wake-up, or the milliseconds that ``look`` finds: False after ``timeout`` seconds."""
        self._check_open()
        # The waiter stands before the look: news that comes between the two still wakes it.
        with self._hints.waiting(topic) as hint:
            timers = [self.clock.call_later(timeout, partial(hint.set, False))]  # noqa: FBT003
            try:
                due = await self._read(look)
                if due:
                    timers.append(self.clock.call_later(due / 1000, partial(hint.set, True)))  # noqa: FBT003
                return due == 0 or await hint.future
            finally:
                for timer in timers:
                    timer.cancel()

    def deliver(
        self, bundles: Sequence[tuple[Bundle, Sequence[Any]]], effects: Sequence[Effects], *, resync: bool
    ) -> None:
        """Receive answers from the pump's thread."""
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._take, bundles, effects, resync)
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
            self._hints.publish(effect)
        if resync:
            self._hints.resync()

    def _give_back(self, call: Call, answer: Any) -> None:
        """Release the jobs of a claim whose caller was cancelled or has timed out."""
        claim = call.command if isinstance(call, Write) else None
        if not isinstance(claim, commands.Exchange) or not isinstance(answer, Exchanged) or not answer.jobs:
            return
        releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in answer.jobs]
        if self._opened:  # else their leases end by themselves
            ticket = self._write(commands.Exchange(claim.queue, claim.worker, releases, 0, claim.lease))
            ticket.add_done_callback(_log_failure)

    # -- nothing hangs ------------------------------------------------------------------------------

    async def _drain(self, until: float) -> None:
        """Wait for the answers under way, and for the calls that give claims back."""
        self._flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self._in_flight:
                    self._emptied = asyncio.get_running_loop().create_future()
                    await self._emptied
                    self._flush()

    def _watch_over(self, seen: dict[int, Bundle]) -> None:
        """Give up calls that were already in flight ``STUCK_AFTER`` seconds ago."""
        stuck = {key: bundle for key, bundle in seen.items() if self._in_flight.get(key) is bundle}
        self._give_up(stuck)
        self._watchdog = None
        if self._loop is not None and self._in_flight:
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
                            f"the store in {self.path} has not answered for {STUCK_AFTER:g} s: the disk "
                            "hangs, or a stopped process holds the lock; the call may have been carried out"
                        )
                    )


def _outcome(future: Future[None]) -> asyncio.Future[None]:
    """Return an awaitable whose cancellation leaves alone the future that the pump's thread sets."""
    return asyncio.shield(asyncio.wrap_future(future))


def _absolute(path: str | os.PathLike[str]) -> Path:
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise InvalidArgumentError("path", f"must be a path, not {type(path).__name__}") from None
    if not name or "\0" in name:
        raise InvalidArgumentError("path", "must be the path of a directory")
    try:
        return Path(name).absolute()
    except FileNotFoundError as error:
        raise InvalidArgumentError("path", "is relative, and the working directory was removed") from error


def _log_failure(ticket: asyncio.Future[Any]) -> None:
    if not ticket.cancelled() and (error := ticket.exception()) is not None:
        _log.warning("jobs that were claimed for nobody could not be given back: %s", error)


def _forked() -> StorageError:
    return StorageError(
        "this file store was opened before a fork: make a new FileStorage in the child process"
    )


class _Shared:
    """The pump that a store and its clones share."""

    def __init__(self, options: _Options, progress: Progress | None) -> None:
        self._options = options
        self.progress = progress
        self._guard = threading.Lock()
        self._users = 0
        self._pid = 0
        self._pump: Pump | None = None

    def acquire(self) -> Pump:
        if self._pump is not None and self._pid != os.getpid():
            raise _forked()
        with self._guard:
            if self._pump is None:
                self._pump, self._pid = self._start_pump(), os.getpid()
            self._users += 1
            return self._pump

    def _start_pump(self) -> Pump:
        options = self._options
        doing = f"the file store in {options.path} could not be opened"
        try:
            return Pump(partial(options.open_core, self.progress), options.path)
        except OSError as error:
            raise fault(error, doing) from error
        except RuntimeError as error:
            raise StorageUnavailableError(f"{doing}: {error}: raise the limit of threads") from error

    def diagnose(self) -> list[Finding]:
        options = self._options
        try:
            return doctor.diagnose(options.files, options.path, options.clock, fsync=options.fsync)
        except OSError as error:
            raise StorageError(str(fault(error, f"{options.path} could not be looked at"))) from error

    def check(self, *, repair: bool) -> list[Finding]:
        options = self._options
        try:
            if not (options.path / LOCK_NAME).is_file():
                raise StorageError(f"{options.path} is not the directory of a file store")
            return (fsck.repair if repair else fsck.check)(options.files, options.path, self.progress)
        except OSError as error:
            raise StorageError(str(fault(error, f"{options.path} could not be checked"))) from error

    def release(self) -> Future[None] | None:
        """End one use; return the future to wait for if it was the last."""
        with self._guard:
            self._users -= 1
            pump = self._pump
            if self._users or pump is None:
                return None
            self._pump = None
        failed = pump.ready.done() and pump.ready.exception() is not None
        if failed:
            return None
        pump.stop()
        return pump.finished


@dataclass(frozen=True, slots=True)
class _Options:
    """The arguments of a store's constructor."""

    path: Path
    clock: Clock
    fsync: bool
    force: bool
    files: Files
    rotate_at: int

    def open_core(self, progress: Progress | None) -> Core:
        """Open the directory, in the pump's thread."""
        home = Home(self.files, self.path, progress, force=self.force)
        core = Core(home, self.clock, fsync=self.fsync, rotate_at=self.rotate_at)
        try:
            core.open()
        except BaseException:
            core.close()
            raise
        return core
