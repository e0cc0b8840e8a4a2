"""Checks the filesystem and the owner of a store's directory."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from jobqueue.errors import StorageError
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.file.disk.directory import Directory

__all__ = ["check_access", "check_filesystem", "filesystem_of", "filesystem_type", "is_remote", "probe"]

_REMOTE = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|fuse(\..*)?|fuseblk|9p|virtiofs|vboxsf|vmhgfs|prl_fs|afs|ceph|glusterfs|lustre"
    r"|gpfs|beegfs|gfs2?|ocfs2|davfs2?|sshfs|ncpfs|coda|orangefs|pvfs2"
)
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def filesystem_type(directory: Path, mounts: str) -> str:
    """Find the filesystem of a directory in the text of ``/proc/self/mountinfo``; "" if not found."""
    found, longest = "", -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")[0]
        if len(fields) < 5 or not kind:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if directory.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def filesystem_of(directory: Path) -> str:
    """Find the filesystem of a directory; "" where the system does not say."""
    try:
        mounts = _MOUNTS.read_text(errors="replace")
    except OSError:  # not Linux: the probe has to do
        return ""
    return filesystem_type(directory.resolve(), mounts)


def is_remote(kind: str) -> bool:
    """Return whether this is a network or user-space filesystem."""
    return _REMOTE.fullmatch(kind) is not None


def check_filesystem(directory: Path, *, force: bool) -> None:
    """Refuse filesystems whose locks or synced writes are unreliable for several processes."""
    kind = filesystem_of(directory)
    if is_remote(kind) and not force:
        raise StorageError(
            f"{directory} is on {kind}, a network or user-space filesystem, where locks and synced writes "
            "cannot be relied on: use a local disk, or another store; force=True takes the risk"
        )


def check_access(directory: Directory) -> None:
    """Refuse a directory in which other users could put or replace files."""
    found = directory.status()
    user = os.geteuid()
    if user != 0 and found.st_uid not in {user, 0}:
        raise StorageError(f"{directory.path} belongs to user {found.st_uid}: use a directory of your own")
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH:
        raise StorageError(
            f"{directory.path} has mode {mode:04o}, so that everybody on this host can put files into it: "
            "run `chmod 700` on it, or use a directory of your own inside of it"
        )


def probe(directory: Directory) -> None:
    """Check that a lock excludes and that a rename replaces."""
    files = directory.files
    first, second = (f"probe-{unique_id()}" for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.callback(directory.unlink, first)
        stack.callback(directory.unlink, second)
        one = directory.create_file(first)
        stack.callback(files.close, one)
        other = directory.open_file(first)
        stack.callback(files.close, other)
        files.close(directory.create_file(second))
        if not files.try_lock(one) or files.try_lock(other):
            raise StorageError(f"{directory.path} has no working file locks (flock): use another filesystem")
        directory.rename(first, second)
        names = directory.names()
        if first in names or second not in names:
            raise StorageError(f"{directory.path} has no working rename: use another filesystem")
