"""The thread that owns the core: it sleeps until there are calls or writes of others, and runs a turn.

Everything that blocks happens here, so event loops never wait for a lock or the disk; and the calls that
come while a turn waits for the disk make up the next one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.storage.engine import Effects
from jobqueue.storage.file.core import Call, Core, Turn
from jobqueue.storage.file.files import Files, fault
from jobqueue.storage.file.rotation import Compaction
from jobqueue.storage.file.watch import Watcher, watch

__all__ = ["Bundle", "Client", "Pump"]

_log = logging.getLogger("jobqueue.storage.file")
_MOST_CALLS = 1000
"""Largest number of calls in a turn, so that nobody holds the lock for long."""
_WAKE_NAME = "wake"


class Bundle(NamedTuple):
    """Calls that one client made in one round of its event loop."""

    client: Client
    calls: Sequence[Call]
    tickets: Sequence[Any]
    """The client's names for the calls."""


class Client(Protocol):
    """A `FileStorage` handle; the pump's thread calls `deliver`."""

    def deliver(
        self, bundles: Sequence[tuple[Bundle, Sequence[Any]]], effects: Sequence[Effects], *, resync: bool
    ) -> None:
        """Receive answers and notifications."""


class Pump:
    """One thread, one core, any number of clients."""

    def __init__(self, make_core: Callable[[], Core], files: Files, directory: Path) -> None:
        self._make_core = make_core
        self._files = files
        self._directory = directory
        self._compaction = Compaction(files, directory)
        self._bundles: deque[Bundle] = deque()
        self._clients: set[Client] = set()
        self._guard = threading.Lock()
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.ready: Future[None] = Future()
        """Done when the store is open, or with the error that prevented it."""
        self.finished: Future[None] = Future()
        self._core: Core | None = None
        self._thread = threading.Thread(target=self._main, name="jobqueue-file", daemon=True)
        _pumps.add(self)
        self._thread.start()

    # -- from other threads -----------------------------------------------------------------------

    def add(self, client: Client) -> None:
        with self._guard:
            self._clients.add(client)

    def remove(self, client: Client) -> None:
        with self._guard:
            self._clients.discard(client)

    def submit(self, bundle: Bundle) -> None:
        """Queue calls for the next turn."""
        self._bundles.append(bundle)
        if not self._wake():
            self._refuse_rest()

    def stop(self) -> None:
        """Run the submitted calls, close the store and end the thread; `finished` is done then."""
        self._stopping = True
        self._wake()

    def _wake(self) -> bool:
        """Wake the thread; return False if it has ended."""
        with self._guard:
            if self._wake_write < 0:
                return False
            with contextlib.suppress(BlockingIOError):  # it is awake if the pipe is full
                os.write(self._wake_write, b"\0")
        return True

    # -- the thread -------------------------------------------------------------------------------

    def _main(self) -> None:
        failure: BaseException | None = None
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - goes to who opens the store, or is logged
            failure = error
        # Whoever waits goes on only now that nothing is open any more.
        self._release()
        self._refuse_rest()
        if failure is not None and not self.ready.done():
            self.ready.set_exception(_opening(failure, self._directory))
        elif failure is not None:
            _log.error("the thread of the file store broke off", exc_info=failure)
        self.finished.set_result(None)

    def _run(self) -> None:
        core = self._core = self._make_core()
        with contextlib.ExitStack() as stack:
            stack.callback(core.close)
            wake_file = self._files.open(self._directory / _WAKE_NAME, create=True)
            stack.callback(self._files.close, wake_file)
            watcher = watch(self._directory / _WAKE_NAME)
            stack.callback(watcher.close)
            stack.callback(self._compaction.stop)
            self.ready.set_result(None)
            self._serve(core, watcher, wake_file)

    def _serve(self, core: Core, watcher: Watcher, wake_file: int) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        watched = watcher.fileno()
        if watched is not None:
            poll.register(watched, select.POLLIN)
        wait = 0 if self._bundles else watcher.interval * 1000
        while not self._stopping or self._bundles:
            for fd, _ in poll.poll(wait):
                if fd == self._wake_read:
                    self._clear_wake()
                else:
                    watcher.clear()
            bundles = self._take()
            turn = core.turn([call for bundle in bundles for call in bundle.calls])
            if turn.notify:
                self._notify(wake_file)
            self._hand_out(bundles, turn)
            if core.compaction_due and not self._compaction.running():
                core.compaction_due = False
                self._compaction.start()
            wait = 0 if self._bundles else watcher.interval * 1000

    def _take(self) -> list[Bundle]:
        bundles: list[Bundle] = []
        calls = 0
        while self._bundles and calls < _MOST_CALLS:
            bundle = self._bundles.popleft()
            bundles.append(bundle)
            calls += len(bundle.calls)
        return bundles

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 65_536)

    def _notify(self, wake_file: int) -> None:
        try:
            self._files.write(wake_file, b"\0", 0)
        except OSError as error:  # a hint: the others look by themselves within a second
            _log.warning("other processes could not be woken: %s", error)

    def _hand_out(self, bundles: Sequence[Bundle], turn: Turn) -> None:
        by_client: dict[Client, list[tuple[Bundle, Sequence[Any]]]] = {}
        if turn.effects or turn.resync:
            with self._guard:
                by_client = {client: [] for client in self._clients}
        at = 0
        for bundle in bundles:
            end = at + len(bundle.calls)
            by_client.setdefault(bundle.client, []).append((bundle, turn.answers[at:end]))
            at = end
        for client, answered in by_client.items():
            client.deliver(answered, turn.effects, resync=turn.resync)

    def _refuse_rest(self) -> None:
        while True:
            try:
                bundle = self._bundles.popleft()
            except IndexError:  # another thread may refuse too
                return
            error = StorageError("the file store was closed")
            bundle.client.deliver([(bundle, [error] * len(bundle.calls))], [], resync=False)

    def _release(self) -> None:
        self._core = None
        _pumps.discard(self)
        with self._guard:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def abandon(self) -> None:
        """In a forked child: release the lock, which would be held for as long as the child lives."""
        if self._core is not None:
            self._core.abandon()


def _opening(error: BaseException, directory: Path) -> BaseException:
    if isinstance(error, OSError):
        found = fault(error, f"the file store in {directory} could not be opened")
        return found if isinstance(found, StorageError) else StorageError(str(found))
    if isinstance(error, JobQueueError):
        return error
    return StorageError(f"the file store in {directory} could not be opened: {error!r}")


_pumps: weakref.WeakSet[Pump] = weakref.WeakSet()


def _abandon_all() -> None:
    for pump in tuple(_pumps):
        pump.abandon()


os.register_at_fork(after_in_child=_abandon_all)
