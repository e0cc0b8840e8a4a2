"""Checks the filesystem and the owner of a store's directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jobqueue.errors import StorageError
from jobqueue.runtime import unique_id
from jobqueue.storage.file.files import Files

__all__ = ["check_filesystem", "check_owner", "filesystem_of", "filesystem_type", "is_remote", "probe"]

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


def check_owner(directory: Path) -> None:
    """Refuse a directory whose owner could replace our files."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return
    found = directory.stat()
    if found.st_uid not in {os.geteuid(), 0}:
        raise StorageError(f"{directory} belongs to user {found.st_uid}: use a directory of your own")


def probe(files: Files, directory: Path) -> None:
    """Check that a lock excludes and that a rename replaces."""
    first, second = (directory / f"probe-{unique_id()}" for _ in range(2))
    one, other = files.open(first, create=True), files.open(first)
    try:
        files.close(files.open(second, create=True))
        if not files.try_lock(one) or files.try_lock(other):
            raise StorageError(f"{directory} has no working file locks (flock): use another filesystem")
        files.rename(first, second)
        names = files.names(directory)
        if first.name in names or second.name not in names:
            raise StorageError(f"{directory} has no working rename: use another filesystem")
    finally:
        files.close(one)
        files.close(other)
        files.unlink(first)
        files.unlink(second)
