"""All system calls of the file store on its directory, in one replaceable place.

Tests put failing, killing and power-cutting layers in its place; nothing else in this package opens,
writes, syncs, renames or removes a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from jobqueue.errors import QueueFullError, StorageError, StorageUnavailableError
from jobqueue.storage.file.upkeep.child import start_process

__all__ = ["DISK_FULL", "Files", "fault"]

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = {
    errno.EACCES: "check the owner and permissions of the directory and its files",
    errno.EPERM: "check the owner and permissions of the directory and its files",
    errno.EROFS: "the filesystem is mounted read-only: remount it, or choose another directory",
    errno.EEXIST: "the path is a file: choose the path of a directory, or of none yet",
    errno.EISDIR: "there is a directory where the store has a file: remove it, or choose another directory",
    errno.ENOTDIR: "a part of the path is not a directory: choose another path",
    errno.ELOOP: "a file of the store is a symbolic link: the store does not follow them",
    errno.ENOENT: "a file of the store has been removed while it was in use",
    errno.ENAMETOOLONG: "choose a shorter path",
}
_ZEROS = bytes(65_536)


def fault(error: OSError, doing: str) -> StorageError | QueueFullError:
    """Turn a failed system call into the error for the caller of the store."""
    what = f"{doing}: {error.strerror or error}"
    if error.errno in DISK_FULL:
        return QueueFullError(f"{what}: free some space, or raise the quota")
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return StorageUnavailableError(f"{what}: raise the limit of open files (ulimit -n)")
    if error.errno in _REFUSED:
        return StorageError(f"{what}: {_REFUSED[error.errno]}")
    return StorageUnavailableError(what)


class Files:
    """The filesystem. Every method raises `OSError` as the system gives it."""

    def make_dir(self, path: Path) -> None:
        """Make a directory for its owner only, with its parents, unless it is there."""
        is_new = not path.exists()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_new:
            path.chmod(0o700)  # whatever the umask

    def make_subdir(self, directory: int, name: str) -> None:
        """Make a directory within another. Raises `FileExistsError`."""
        os.mkdir(name, 0o700, dir_fd=directory)

    def open_dir(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_subdir(self, directory: int, name: str) -> int:
        """Open a directory within another, but no link to one."""
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)

    def copy_of(self, fd: int) -> int:
        """Open a descriptor a second time."""
        return os.dup(fd)

    def create(self, directory: int, name: str) -> int:
        """Make a file for its owner only. Raises `FileExistsError`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        os.fchmod(fd, 0o600)  # whatever the umask
        return fd

    def open(self, directory: int, name: str, *, write: bool = True) -> int:
        # Without waiting: a pipe that somebody has put in the place of a file would wait for ever.
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=directory)

    def give(self, fd: int, user: int, group: int) -> None:
        """Change the owner of a file."""
        os.fchown(fd, user, group)

    def close(self, fd: int) -> None:
        os.close(fd)

    def names(self, directory: int) -> list[str]:
        # By a descriptor of its own: copies of one share the place up to which the names were read.
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(fd)

    def read(self, fd: int, size: int, at: int) -> bytes:
        """Read up to ``size`` bytes; fewer only at the end of the file."""
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(fd, min(size, 1 << 26), at)):
            parts.append(part)
            size -= len(part)
            at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, fd: int, data: bytes, at: int) -> None:
        """Write all of ``data``; a failure may leave part of it."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, at)
            view = view[written:]
            at += written

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def stat(self, directory: int, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def status(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def space(self, directory: int) -> os.statvfs_result:
        return os.fstatvfs(directory)

    def identity(self, place: int | str) -> tuple[int, int] | None:
        """Return the device and number of a file, by its descriptor or path; ``None`` if it is not there."""
        try:
            found = os.stat(place)  # noqa: PTH116 - a Path would cost each turn a microsecond
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def reserve(self, fd: int, at: int, size: int) -> None:
        """Make room for ``size`` bytes that read as zeros, so that writing there cannot lack space."""
        fallocate: Callable[[int, int, int], None] | None = getattr(os, "posix_fallocate", None)
        if fallocate is not None:
            try:
                fallocate(fd, at, size)
            except OSError as error:
                if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                    raise
            else:
                return
        for place in range(at, at + size, len(_ZEROS)):
            self.write(fd, _ZEROS[: at + size - place], place)

    def sync(self, fd: int) -> None:
        """Return when the data, and the size, of a file are on the disk."""
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:  # macOS: its fsync leaves the data in the cache of the drive
            fcntl.fcntl(fd, full)
        else:
            os.fdatasync(fd)

    def sync_dir(self, directory: int) -> None:
        """Return when the names in a directory are on the disk."""
        os.fsync(directory)

    def forget_cache(self, fd: int) -> None:
        """Make the next reads come from the disk, where the system supports that."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def rename(self, directory: int, source: str, target: str, to: int | None = None) -> None:
        """Rename a file within a directory, or ``to`` another one; a file of the new name is replaced."""
        os.replace(source, target, src_dir_fd=directory, dst_dir_fd=directory if to is None else to)

    def unlink(self, directory: int, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)

    def lock(self, fd: int) -> None:
        """Wait for the exclusive lock of an open file."""
        fcntl.flock(fd, fcntl.LOCK_EX)

    def try_lock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file if it is free; return whether it was."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share_lock(self, fd: int) -> None:
        """Take the shared lock of an open file, or turn the exclusive one into it."""
        fcntl.flock(fd, fcntl.LOCK_SH)

    def unlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def spawn(self, directory: int, path: Path) -> subprocess.Popen[bytes] | None:
        """Start a process that compacts; ``None`` where none can be started."""
        return start_process(directory, path)

    def boot_id(self) -> str:
        """Name this run of the host; "" where the system does not say."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        except OSError:
            return ""
