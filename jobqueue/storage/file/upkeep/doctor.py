"""Judges whether a directory is fit for a store, for ``jobqueue doctor``.

Everything is tried where it matters, with files of its own beside those of the store. Nobody is kept
waiting, but for the disk.
"""

from __future__ import annotations

import os
import pwd
import select
import shlex
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from jobqueue.errors import QueueFullError, StorageError
from jobqueue.model.numbers import percentile
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files, fault
from jobqueue.storage.file.disk.filesystem import filesystem_of, is_remote, probe
from jobqueue.storage.file.disk.journal import CHUNK, RESERVE
from jobqueue.storage.file.disk.watch import LOOK_INTERVAL, watch
from jobqueue.storage.file.upkeep.replica import Generations
from jobqueue.storage.findings import Finding, Severity

__all__ = ["diagnose"]

_OK, _WARNING, _ERROR = Severity.OK, Severity.WARNING, Severity.ERROR

_SYNCS = 50
_SYNCS_UNTIL = 3.0
"""Seconds after which no further sync is timed."""
_BLOCK = 512
"""Bytes of each timed sync: a frame with a job or two."""
_SLOW, _STUCK = 0.020, 0.500
"""Seconds for a sync: the limit for the median, and for the slowest."""
_SPARE = 64 << 20
"""Bytes that should be free besides a second copy of the store, which compacting writes."""
_INODES, _FEW_INODES = 16, 1000
_JOURNALS = 3
"""Journals that may wait for a compaction."""
_HEARD_WITHIN = 1.0
_INOTIFY = Path("/proc/sys/fs/inotify")

_VOLATILE = {
    "tmpfs": "memory: a restart of the host loses all jobs. Use a directory on a disk",
    "ramfs": "memory: a restart of the host loses all jobs. Use a directory on a disk",
    "overlay": "in a container it goes with the container, and all jobs with it. Mount a volume",
}
"""Filesystems that work, but whose files do not last."""


def diagnose(files: Files, path: Path, clock: Clock, *, fsync: bool) -> list[Finding]:
    """Judge the directory, its files and its disk. Blocks for some seconds at most, unless the disk hangs."""
    with Directory.open(files, path) as directory:
        looks: dict[str, Callable[[], Finding]] = {
            "filesystem": lambda: _filesystem(directory),
            "directory": lambda: _directory(directory),
            "files": lambda: _files(directory),
            "size": lambda: _size(directory),
            "space": lambda: _space(directory),
            "inodes": lambda: _inodes(directory),
            "fsync": lambda: _fsync(fsync=fsync),
            "sync": lambda: _sync(directory, clock),
            "locks": lambda: _locks(directory),
            "watch": lambda: _watch(directory),
        }
        return [_looked(name, look) for name, look in looks.items()]


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    """Turn a failure into a finding, so that the other checks still run."""
    try:
        return look()
    except OSError as error:
        return Finding(name, _ERROR, str(fault(error, "could not be tried")))
    except (StorageError, QueueFullError) as error:
        return Finding(name, _ERROR, str(error))


# -- where it is ----------------------------------------------------------------------------------


def _filesystem(directory: Directory) -> Finding:
    kind = filesystem_of(directory.path)
    if is_remote(kind):
        text = f"{kind}, a network or user-space filesystem: its locks and synced writes may not be what"
        return Finding("filesystem", _WARNING, f"{text} they seem (allowed by force=True). Use a local disk")
    if kind in _VOLATILE:
        return Finding("filesystem", _WARNING, f"{kind}, {_VOLATILE[kind]}")
    return Finding(
        "filesystem", _OK, f"{kind}, local" if kind else "of a kind that this system does not tell"
    )


def _directory(directory: Directory) -> Finding:
    found = directory.status()
    mode = stat.S_IMODE(found.st_mode)
    text = f"{directory.path} has mode {mode:04o} and belongs to user {_user(found.st_uid)}"
    if mode & 0o002:
        text += ": everybody on this host can remove and replace its files"
    elif mode & 0o020:
        text += ": its group can remove and replace its files"
    elif mode & 0o077:
        text += ": others can see into it"
    else:
        return Finding("directory", _OK, text)
    severity = _ERROR if mode & 0o002 else _WARNING
    return Finding("directory", severity, f"{text}. Run chmod 700 {_quoted(directory)}")


def _files(directory: Directory) -> Finding:
    owner = directory.status().st_uid
    found = _stats(directory)
    # Made by root in a directory of root, or by the one user who may use that: both are well.
    owners = {known.st_uid for known in found}
    if owner:
        owners.add(owner)
    if len(owners) > 1:
        users, right = ", ".join(map(_user, sorted(owners))), _user(owner or max(owners))
        text = f"they belong to users {users}, and none can open those of the others. Use the store as one"
        return Finding("files", _ERROR, f"{text} user, and run chown -R {right} {_quoted(directory)}")
    modes = sorted({f"{stat.S_IMODE(known.st_mode):04o}" for known in found})
    if any(stat.S_IMODE(known.st_mode) & 0o077 for known in found):
        text = f"they have modes {', '.join(modes)}: others can read or write what is in the jobs"
        return Finding("files", _WARNING, f"{text}. Run chmod 600 {_quoted(directory)}/*")
    return Finding("files", _OK, f"{len(found)} of mode {', '.join(modes)}")


def _stats(directory: Directory) -> list[os.stat_result]:
    """Return the attributes of all regular files, some of which a compaction may remove at any moment."""
    found: list[os.stat_result] = []
    for name in directory.names():
        try:
            known = directory.stat(name)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(known.st_mode):
            found.append(known)
    return found


def _quoted(directory: Directory) -> str:
    return shlex.quote(str(directory.path))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


# -- how much there is ----------------------------------------------------------------------------


def _size(directory: Directory) -> Finding:
    names = directory.names()
    known = Generations(names)
    journals = [number for number in known.journals if number >= (known.base or 0)]
    total = sum(file.st_size for file in _stats(directory))
    text = f"{_bytes(total)}: {_count(len(journals), 'journal')}, {_count(len(known.snapshots), 'snapshot')}"
    kept = [name for name in names if name.startswith("damaged-")]
    if len(journals) > _JOURNALS:
        text += '. Compacting lags behind or fails: the logs say why, in lines with "compacting"'
        return Finding("size", _WARNING, text)
    if kept:
        text += f". A repair has set files aside in {', '.join(kept)}: delete what you do not need"
        return Finding("size", _WARNING, text)
    return Finding("size", _OK, text)


def _space(directory: Directory) -> Finding:
    found = directory.space()
    free = found.f_bavail * found.f_frsize
    need = sum(file.st_size for file in _stats(directory)) + _SPARE
    text = f"{_bytes(free)} free"
    if free < CHUNK + RESERVE:
        return Finding("space", _ERROR, f"{text}: new jobs are refused. Free some space")
    if free < need:
        return Finding("space", _WARNING, f"{text}: compacting may need {_bytes(need)}. Free some space")
    return Finding("space", _OK, text)


def _inodes(directory: Directory) -> Finding:
    found = directory.space()
    if not found.f_files:
        return Finding("inodes", _OK, "without a limit")
    text = f"{found.f_favail:,} free"
    if found.f_favail < _INODES:
        return Finding("inodes", _ERROR, f"{text}: no journal can be begun. Delete files on this filesystem")
    if found.f_favail < _FEW_INODES:
        return Finding("inodes", _WARNING, f"{text}. Delete files on this filesystem")
    return Finding("inodes", _OK, text)


def _bytes(size: int) -> str:
    amount, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{size} bytes" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# -- what it can ----------------------------------------------------------------------------------


def _fsync(*, fsync: bool) -> Finding:
    if fsync:
        return Finding("fsync", _OK, "on in this process: what it is told is stored survives a power cut")
    text = "off in this process: a power cut may lose the last seconds. Leave fsync=False away to be safe"
    return Finding("fsync", _WARNING, text)


def _sync(directory: Directory, clock: Clock) -> Finding:
    times, files = list[float](), directory.files
    with _trial(directory) as (_, fd):
        # As in a journal: the room is there, so that a sync has data to write and nothing else.
        files.reserve(fd, 0, _SYNCS * _BLOCK)
        files.sync(fd)
        began = clock.monotonic()
        while len(times) < _SYNCS and clock.monotonic() - began < _SYNCS_UNTIL:
            files.write(fd, b"\1" * _BLOCK, len(times) * _BLOCK)
            start = clock.monotonic()
            files.sync(fd)
            times.append(clock.monotonic() - start)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    text = f"takes p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms of {len(times)}"
    if p50 > _SLOW:
        return Finding("sync", _WARNING, f"{text}: every call that stores waits so long. Use a faster disk")
    if p99 > _STUCK:
        return Finding(
            "sync", _WARNING, f"{text}: something else keeps the disk busy. Give it one of its own"
        )
    return Finding("sync", _OK, text)


def _locks(directory: Directory) -> Finding:
    probe(directory)
    return Finding("locks", _OK, "a lock excludes, a rename replaces")


def _watch(directory: Directory) -> Finding:
    with _trial(directory) as (path, fd):
        watcher = watch(path)
        try:
            number = watcher.fileno()
            if number is None:
                often = f"polling: every process looks for news each {LOOK_INTERVAL * 1000:g} ms"
                return Finding("watch", _WARNING, f"{often}, which costs CPU time. {_remedy()}")
            poll = select.poll()
            poll.register(number, select.POLLIN)
            directory.files.write(fd, b"\0", 0)
            if not poll.poll(_HEARD_WITHIN * 1000):
                text = f"a write was not told of within {_HEARD_WITHIN:g} s: jobs may start a second late"
                return Finding("watch", _WARNING, f"{text}. Use a local disk of this host")
        finally:
            watcher.close()
    return Finding("watch", _OK, f"the system tells a process of what others write{_limits()}")


def _remedy() -> str:
    if not _INOTIFY.exists():
        return "This system gives no notifications of writes to this directory"
    return f"The limits of inotify are reached{_limits()}: raise fs.inotify.max_user_instances by sysctl"


def _limits() -> str:
    try:
        instances, watches = (
            (_INOTIFY / f"max_user_{what}").read_text().strip() for what in ("instances", "watches")
        )
    except OSError:  # not Linux
        return ""
    return f" (for each user {instances} instances and {watches} watches)"


@contextmanager
def _trial(directory: Directory) -> Generator[tuple[Path, int]]:
    """Make a file for the trials."""
    name = f"probe-{unique_id()}"
    fd = directory.create_file(name)
    try:
        yield directory.path / name, fd
    finally:
        directory.files.close(fd)
        directory.unlink(name)
