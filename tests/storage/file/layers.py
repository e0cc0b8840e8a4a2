"""File layers that fail, die and lose power, in place of `Files`."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobqueue.storage.file.disk.files import Files

WRITING = ("create", "write", "truncate", "reserve", "sync", "sync_dir", "rename", "unlink", "make_dir")
"""The calls that change something, or make it safe."""


class Killed(BaseException):
    """The process is dead; nothing that it still tries has an effect."""


class Quiet(Files):
    """Compacts in a thread, and syncs nothing: what has been written survives a dead process anyway."""

    def spawn(self, directory: int, path: Path) -> None:
        return None

    def sync(self, fd: int) -> None:
        os.fstat(fd)

    def sync_dir(self, directory: int) -> None:
        os.fstat(directory)


class Counting(Quiet):
    """Hands every changing call to `around`, and knows what is open."""

    def __init__(self) -> None:
        self.count = 0
        self.fds: set[int] = set()

    def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        return call()

    def let_go(self) -> None:
        """Close what is open, as the system does for a dead process. That frees its locks."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def close(self, fd: int) -> None:
        self.fds.discard(fd)
        super().close(fd)

    def open(self, directory: int, name: str, *, write: bool = True) -> int:
        return self._opened(super().open(directory, name, write=write))

    def open_dir(self, path: Path) -> int:
        return self._opened(super().open_dir(path))

    def copy_of(self, fd: int) -> int:
        return self._opened(super().copy_of(fd))

    def _opened(self, fd: int) -> int:
        self.fds.add(fd)
        return fd


def _counted(name: str) -> Callable[..., Any]:
    def method(self: Counting, *args: Any, **kwargs: Any) -> Any:
        try:
            result = self.around(name, lambda: getattr(Quiet, name)(self, *args, **kwargs), args)
        finally:
            self.count += 1
        if name == "create":
            self.fds.add(result)
        return result

    return method


for _name in WRITING:
    setattr(Counting, _name, _counted(_name))


class Killing(Counting):
    """Dies at the changing call number ``at``: before it, after it, or with a write half done."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.at = at
        self.how = how
        self.dead = False

    def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.dead:
            raise Killed
        if self.count != self.at:
            return call()
        self.dead = True
        if self.how == "after":
            result = call()
            if name == "create":
                self.fds.add(result)
        elif self.how == "half" and name == "write":
            fd, data, place = args
            os.pwrite(fd, bytes(data)[: len(data) // 2], place)
        raise Killed

    def lock(self, fd: int) -> None:
        if self.dead:
            raise Killed
        super().lock(fd)

    def unlock(self, fd: int) -> None:
        if self.dead:  # the dead do not unlock; `let_go` does
            raise Killed
        super().unlock(fd)


class Failing(Counting):
    """Lets the calls ``at`` to ``until`` of the named kind fail with an error number."""

    def __init__(self, number: int, names: tuple[str, ...] = WRITING) -> None:
        super().__init__()
        self.number = number
        self.kinds = names
        self.at = self.until = -1
        self.failed = 0

    def fail_next(self, *, after: int = 0, times: int = 1) -> None:
        self.count = 0
        self.at, self.until = after, after + times

    def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name not in self.kinds:
            self.count -= 1  # only the named ones count
            return call()
        if self.at <= self.count < self.until:
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number))
        return call()


class FullDisk(Quiet):
    """A disk with so much room: reserving beyond it fails, and writing beyond what was reserved."""

    def __init__(self) -> None:
        self.full = False

    def reserve(self, fd: int, at: int, size: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().reserve(fd, at, size)

    def write(self, fd: int, data: bytes, at: int) -> None:
        if self.full and at + len(data) > os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, data, at)


class _Inode:
    def __init__(self) -> None:
        self.durable = b""
        self.pending: list[tuple[str, int, bytes]] = []


_NameChange = tuple[str, _Inode | None]
"""A name, and what it stands for from now on."""


class PowerCut(Counting):
    """Keeps account of what is safe, and can rebuild what a power cut at call number ``at`` leaves.

    Names come back as far as the metadata journal of a filesystem got: some first part of what was done
    since the last sync of the directory. Unsynced writes come back or not, sector by sector.
    """

    SECTOR = 64  # finer than any disk: tears everything

    def __init__(self, at: int | None = None, *, lying: bool = False) -> None:
        super().__init__()
        self.at = at
        self.lying = lying
        self.dead = False
        self.alive: dict[str, _Inode] = {}
        self.names_safe: dict[str, _Inode] = {}
        self.names_pending: list[_NameChange] = []
        self.opened: dict[int, _Inode] = {}

    def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.dead or self.count == self.at:
            self.dead = True
            raise Killed
        found = call()
        self._note(name, args, found)
        return found

    def open(self, directory: int, name: str, *, write: bool = True) -> int:
        fd = super().open(directory, name, write=write)
        if name in self.alive:
            self.opened[fd] = self.alive[name]
        return fd

    def _note(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name == "create":
            inode = self.opened[result] = self.alive[args[1]] = _Inode()
            self.names_pending.append((args[1], inode))
        elif name == "write":
            self.opened[args[0]].pending.append(("write", args[2], bytes(args[1])))
        elif name == "truncate":
            self.opened[args[0]].pending.append(("truncate", args[1], b""))
        elif name == "reserve":
            self.opened[args[0]].pending.append(("grow", args[1] + args[2], b""))
        elif name == "sync" and not self.lying:
            inode = self.opened[args[0]]
            inode.durable, inode.pending = _replay(inode.durable, inode.pending), []
        elif name == "sync_dir" and not self.lying:
            self.names_safe, self.names_pending = _names(self.names_safe, self.names_pending), []
        elif name == "rename":
            inode = self.alive[args[2]] = self.alive.pop(args[1])
            self.names_pending += [(args[1], None), (args[2], inode)]
        elif name == "unlink":
            self.alive.pop(args[1], None)
            self.names_pending.append((args[1], None))

    def lock(self, fd: int) -> None:
        if self.dead:
            raise Killed
        super().lock(fd)

    def unlock(self, fd: int) -> None:
        if self.dead:
            raise Killed
        super().unlock(fd)

    def rebuild(self, directory: Path, dice: random.Random) -> None:
        """Write what is left after the power has gone."""
        names = _names(self.names_safe, self.names_pending[: dice.randint(0, len(self.names_pending))])
        for name, inode in names.items():
            (directory / name).write_bytes(_replay(inode.durable, self._survivors(inode, dice)))

    def _survivors(self, inode: _Inode, dice: random.Random) -> list[tuple[str, int, bytes]]:
        mood = dice.choice(("none", "all", "some", "some"))
        left: list[tuple[str, int, bytes]] = []
        for kind, at, data in inode.pending:
            if mood == "all" or kind != "write":
                left.append((kind, at, data))
            elif mood == "some":
                left += [
                    (kind, at + start, data[start : start + self.SECTOR])
                    for start in range(0, len(data), self.SECTOR)
                    if dice.random() < 0.7
                ]
        return left


def _replay(content: bytes, operations: list[tuple[str, int, bytes]]) -> bytes:
    data = bytearray(content)
    for kind, at, written in operations:
        if kind == "truncate":
            del data[at:]
            data.extend(bytes(at - len(data)))
        elif kind == "grow":
            data.extend(bytes(max(0, at - len(data))))
        else:
            data.extend(bytes(max(0, at - len(data))))
            data[at : at + len(written)] = written
    return bytes(data)


def _names(safe: dict[str, _Inode], pending: list[_NameChange]) -> dict[str, _Inode]:
    names = dict(safe)
    for name, inode in pending:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
    return names
