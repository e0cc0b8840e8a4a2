"""The thread that owns the core: it sleeps until there are calls or writes of others, and runs a turn.

Everything that blocks happens here, so event loops never wait for a lock or the disk; and the calls that
come while a turn waits for the disk make up the next one.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.runtime.forks import tell_in_child
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.engine.effects import Effects
from jobqueue.storage.file.calls import Call
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.disk.files import fault
from jobqueue.storage.file.disk.watch import Bell
from jobqueue.storage.file.turn import TurnOutcome
from jobqueue.storage.file.upkeep.rotation import Compaction

__all__ = ["MOST_BYTES", "MOST_CALLS", "Bundle", "Client", "Pump"]

log = get_logger("jobqueue.storage.file")
MOST_CALLS = 1000
"""Largest number of calls in a turn, so that no process holds the lock for long."""
MOST_BYTES = 4 << 20
"""Bytes after which a turn takes no more calls, for the same reason: a disk writes them in some 10 ms."""


class Bundle(NamedTuple):
    """Calls that one client made in one round of its event loop."""

    client: Client
    calls: Sequence[Call]
    tickets: Sequence[Any]
    """The client's names for the calls."""
    size: int
    """Bytes of the calls."""


class Client(Protocol):
    """A `FileStorage` handle; the pump's thread calls `deliver`."""

    def deliver(
        self, bundles: Sequence[tuple[Bundle, Sequence[Any]]], effects: Sequence[Effects], *, resync: bool
    ) -> None:
        """Receive answers and notifications."""


class Pump:
    """One thread, one core, any number of clients."""

    def __init__(self, make_core: Callable[[], StoreCore], path: Path) -> None:
        self._make_core = make_core
        self._path = path
        self._compaction = Compaction()
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
        self._core: StoreCore | None = None
        self._thread = threading.Thread(target=self._main, name="jobqueue-file", daemon=True)
        tell_in_child(self)
        try:
            self._thread.start()
        except RuntimeError:
            self._release()
            raise

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
            self.ready.set_exception(_opening(failure, self._path))
        elif failure is not None:
            log.error("the thread of the file store broke off", exc_info=failure)
        self.finished.set_result(None)

    def _run(self) -> None:
        core = self._core = self._make_core()
        with contextlib.ExitStack() as stack:
            stack.callback(core.close)
            stack.callback(self._compaction.stop)
            ears = stack.enter_context(contextlib.closing(_Ears(self._wake_read, core)))
            self.ready.set_result(None)
            while not self._stopping or self._bundles:
                if ears.listen(0 if self._bundles else None):
                    self._clear_wake()
                self._turn(core, ears)

    def _turn(self, core: StoreCore, ears: _Ears) -> None:
        bundles = self._take()
        turn = core.turn([call for bundle in bundles for call in bundle.calls])
        ears.follow(core)
        if turn.notify:
            ears.bell.ring()
        self._hand_out(bundles, turn)
        directory = core.directory
        if core.compaction_due and directory is not None and not self._compaction.running():
            core.compaction_due = False
            self._compaction.start(directory)

    def _take(self) -> list[Bundle]:
        bundles: list[Bundle] = []
        calls = size = 0
        while self._bundles and calls < MOST_CALLS and size < MOST_BYTES:
            bundle = self._bundles.popleft()
            bundles.append(bundle)
            calls += len(bundle.calls)
            size += bundle.size
        return bundles

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 65_536)

    def _hand_out(self, bundles: Sequence[Bundle], turn: TurnOutcome) -> None:
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
        with self._guard:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def forked(self) -> None:
        """In a forked child: release the lock, which would be held for as long as the child lives."""
        if self._core is not None:
            self._core.abandon()


class _Ears:
    """The wake-ups of the sleeping thread: calls of its clients, and writes of other processes."""

    def __init__(self, wake: int, core: StoreCore) -> None:
        directory = core.directory
        assert directory is not None, "of an open core"
        self._wake = wake
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)
        self.bell = Bell(directory)
        self._register()

    def listen(self, milliseconds: int | None) -> bool:
        """Sleep until a wake-up, for at most so many seconds; return whether a client has called."""
        wait = self.bell.interval * 1000 if milliseconds is None else milliseconds
        heard = [fd for fd, _ in self._poll.poll(wait)]
        if heard and heard != [self._wake]:
            self.bell.hush()
        return self._wake in heard

    def follow(self, core: StoreCore) -> None:
        """Move to the directory of the store, if it is another one now."""
        directory = core.directory
        if directory is None or directory is self.bell.directory:
            return
        try:
            bell = Bell(directory)
        except (OSError, StorageError) as error:  # only news is late, and the next turn tries again
            log.warning("news of other processes cannot be heard: %s", error)
            return
        self._close_bell()
        self.bell = bell
        self._register()

    def close(self) -> None:
        self._close_bell()

    def _register(self) -> None:
        heard = self.bell.fileno()
        if heard is not None:
            self._poll.register(heard, select.POLLIN)

    def _close_bell(self) -> None:
        heard = self.bell.fileno()
        if heard is not None:
            self._poll.unregister(heard)
        self.bell.close()


def _opening(error: BaseException, path: Path) -> BaseException:
    if isinstance(error, OSError):
        found = fault(error, f"the file store in {path} could not be opened")
        return found if isinstance(found, StorageError) else StorageError(str(found))
    if isinstance(error, JobQueueError):
        return error
    return StorageError(f"the file store in {path} could not be opened: {error!r}")
