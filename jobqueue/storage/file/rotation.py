"""Growth: beginning a new journal, and compacting the ones before it.

A rotation makes the next journal, seals the current one and goes on; it takes a few milliseconds whatever
the store holds. What lies before it never changes again, so compacting needs no lock: another process
reads the newest snapshot and the sealed journals, writes what they come to as the next snapshot, and
removes them. If it dies, the next one starts over.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from pathlib import Path

from jobqueue.errors import StorageError
from jobqueue.storage.file.files import Files
from jobqueue.storage.file.frames import HEADER_SIZE
from jobqueue.storage.file.journal import Journal, journal_path
from jobqueue.storage.file.lock import LockFile
from jobqueue.storage.file.recovery import LOCK_NAME, Home, seal
from jobqueue.storage.file.replica import Names, Replica
from jobqueue.storage.file.snapshot import snapshot_path, write_snapshot

__all__ = ["COMPACT_LOCK", "ROTATE_AT", "Compaction", "compact", "prepare_rotation", "rotate", "rotation_due"]

_log = logging.getLogger("jobqueue.storage.file")
ROTATE_AT = 32 << 20
"""Bytes that a journal has at least when the next one is begun."""
COMPACT_LOCK = "compact.lock"
_left: list[subprocess.Popen[bytes]] = []
"""Processes that were still at work when their store was closed."""
_JOB_SIZE = 256


def rotation_due(replica: Replica, rotate_at: int) -> bool:
    """Decide whether the next journal is begun: when this one outweighs what is alive.

    So compacting costs a constant share of the writing, and the directory stays within a few times what
    is alive; also after most of what the last snapshot holds has expired.
    """
    if replica.position < rotate_at // 8:
        return False
    live, size = replica.state.engine.size(), replica.base_size
    shrunk = size > rotate_at and 2 * live < replica.base_jobs
    return shrunk or replica.position >= max(rotate_at, _weight(replica))


def _weight(replica: Replica) -> int:
    live = replica.state.engine.size()
    if not replica.base_jobs:
        return live * _JOB_SIZE
    return replica.base_size * live // replica.base_jobs


def prepare_rotation(home: Home, replica: Replica) -> Journal:
    """Make the next journal. If that fails, nothing has happened."""
    journal = Journal.create(home.files, home.directory, replica.journal.generation + 1)
    try:
        home.files.sync_dir(home.directory)
    except BaseException:
        journal.close()
        raise
    return journal


def rotate(home: Home, replica: Replica, journal: Journal) -> None:
    """Go on in the next journal; with the lock."""
    try:
        seal(home, replica)
    except BaseException:
        journal.close()
        raise
    weight = _weight(replica)
    replica.switch(journal)
    replica.base_size, replica.base_jobs = weight, replica.state.engine.size()
    home.publish_rotation(replica)


def compact(files: Files, directory: Path) -> bool:
    """Replace the sealed journals by a snapshot; False if there is nothing to do or another is at it."""
    fd = files.open(directory / COMPACT_LOCK, create=True)
    try:
        if not files.try_lock(fd):
            return False
        return _compact(files, directory)
    finally:
        files.close(fd)


def _compact(files: Files, directory: Path) -> bool:
    names = Names(files.names(directory))
    for name in names.temporary:
        files.unlink(directory / name)
    target = _published_generation(files, directory)
    if names.base is None or target is None:
        return False
    if target > names.base:
        # Exactly where that journal begins: not one command of it may be part of its snapshot.
        replica = Replica.load(files, directory, (target, HEADER_SIZE))
        replica.close()
        if (replica.journal.generation, replica.position) != (target, HEADER_SIZE):
            raise StorageError(f"{replica.journal.path} is not sealed: run `jobqueue fsck --repair`")
        write_snapshot(files, directory, target, replica.state)
    _remove_before(max(target, names.base), files, directory, names)
    return target > names.base


def _published_generation(files: Files, directory: Path) -> int | None:
    """Return the journal that is written to; all before it are sealed, and safe on the disk.

    That a later one exists, or that a seal can be read, means less: its writer may be about to fail.
    """
    lock = LockFile(files, directory / LOCK_NAME)
    try:
        page = lock.read()
    finally:
        lock.close()
    if page is None or page.boot != files.boot_id() or page.suspect:
        return None
    return page.generation


def _remove_before(target: int, files: Files, directory: Path, names: Names) -> None:
    for generation in names.snapshots:
        if generation < target:
            files.unlink(snapshot_path(directory, generation))
    for generation in names.journals:
        if generation < target:
            files.unlink(journal_path(directory, generation))


class Compaction:
    """A compaction that runs beside this process."""

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin one, unless one is running."""
        if self.running():
            return
        # A process of its own, because a thread would compete with the event loop for the interpreter.
        try:
            self._process = self._files.spawn(self._directory)
        except OSError as error:
            _log.warning("could not start a process to compact the journal: %s", error)
        if self._process is not None:
            return
        self._thread = threading.Thread(
            target=_compact_here, args=(self._files, self._directory), name="jobqueue-compact", daemon=True
        )
        self._thread.start()

    def running(self) -> bool:
        """Whether it still runs. Reports how it ended."""
        if self._thread is not None and self._thread.is_alive():
            return True
        process = self._process
        if process is None:
            return False
        if process.poll() is None:
            return True
        self._process = None
        told = _output(process)
        if process.returncode:
            _log.warning("compacting %s failed, and will be tried again: %s", self._directory, told[-2000:])
        return False

    def stop(self) -> None:
        """Let it finish by itself: a program that runs for a moment only must not undo its work."""
        if self.running() and self._process is not None:
            if self._process.stderr is not None:
                self._process.stderr.close()
            _left.append(self._process)
            self._process = None
        _left[:] = [process for process in _left if process.poll() is None]
        if self._thread is not None:
            self._thread.join()


def _output(process: subprocess.Popen[bytes]) -> str:
    if process.stderr is None:
        return ""
    with process.stderr as stream:
        return stream.read().decode(errors="replace").strip()


def _compact_here(files: Files, directory: Path) -> None:
    try:
        compact(files, directory)
    except Exception as error:  # noqa: BLE001 - reported; the next rotation tries again
        _log.warning("compacting %s failed, and will be tried again: %s", directory, error)
