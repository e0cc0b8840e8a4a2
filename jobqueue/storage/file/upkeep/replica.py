"""This process's copy of the state: a snapshot, and all commands of the journals after it."""

from __future__ import annotations

import contextlib
import gc
import re
import struct
from collections.abc import Generator, Sequence
from typing import Any

from jobqueue.errors import StorageError
from jobqueue.storage.file.commands.registry import Command, Seal, parse_command
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.frames import HEADER_SIZE, Frame
from jobqueue.storage.file.disk.journal import Journal, journal_name
from jobqueue.storage.file.upkeep.progress import Meter, Progress
from jobqueue.storage.file.upkeep.snapshot import Snapshot, read_snapshot, snapshot_name

__all__ = ["Generations", "Replica", "pack_batch", "parse_batch"]

_BATCH = struct.Struct("<qqqI")
_NAME = re.compile(r"(journal|snapshot)-(\d{10})(\.tmp)?")
_ATTEMPTS = 10


def pack_batch(state: State, now: int, commands: Sequence[bytes]) -> bytes:
    """Return commands, with the counters after them, as the payload of one frame."""
    seq, fence = state.engine.counters
    return b"".join((_BATCH.pack(now, seq, fence, len(commands)), *commands))


def parse_batch(payload: bytes) -> tuple[int, tuple[int, int], list[Command[Any]]]:
    """Read a payload: the time, the counters after it, and the commands. Raises `ValueError`."""
    try:
        now, seq, fence, count = _BATCH.unpack_from(payload)
    except struct.error as error:
        raise ValueError("a frame without a batch") from error
    reader = Reader(payload, _BATCH.size)
    commands = [parse_command(reader) for _ in range(count)]
    if not commands:
        raise ValueError("a frame without commands")
    if not reader.done:
        raise ValueError("a frame with a tail")
    return now, (seq, fence), commands


@contextlib.contextmanager
def _collector_paused() -> Generator[None]:
    """Keep the garbage collector from looking through a million new records again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Generations:
    """Which journals and snapshots a directory holds."""

    def __init__(self, names: Sequence[str]) -> None:
        self.journals: list[int] = []
        self.snapshots: list[int] = []
        self.temporary: list[str] = []
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            if match[3]:
                self.temporary.append(name)
            elif match[1] == "journal":
                self.journals.append(int(match[2]))
            else:
                self.snapshots.append(int(match[2]))
        self.journals.sort()
        self.snapshots.sort()

    @property
    def base(self) -> int | None:
        """Generation of the newest snapshot; older files are not needed any more."""
        return self.snapshots[-1] if self.snapshots else None

    @property
    def needed(self) -> list[str]:
        """The files that hold the state: the newest snapshot and the journals from it on."""
        base = self.base or 0
        snapshots = [snapshot_name(base)] if base else []
        return snapshots + [journal_name(number) for number in self.journals if number >= base]


class Replica:
    """The state as of a place in the journal."""

    def __init__(self, directory: Directory, base: Snapshot, journal: Journal) -> None:
        self._directory = directory
        self.base_size = base.size
        self.base_jobs = base.jobs
        self.base_generation = journal.generation
        self.state = base.state
        self.journal = journal
        self.position = HEADER_SIZE

    @classmethod
    def load(
        cls, directory: Directory, until: tuple[int, int] | None, *, progress: Progress | None = None
    ) -> Replica:
        """Read the newest snapshot and the frames after it, up to ``until`` or the last sound one."""
        with _collector_paused():
            for _ in range(_ATTEMPTS):
                # A compaction may replace files between the listing and the reading.
                with contextlib.suppress(FileNotFoundError):
                    return cls._load(directory, until, progress)
        raise StorageError(f"{directory.path} lacks a journal: run `jobqueue fsck --repair`")

    @classmethod
    def _load(cls, directory: Directory, until: tuple[int, int] | None, progress: Progress | None) -> Replica:
        names = Generations(directory.names())
        if names.base is None:
            raise StorageError(
                f"{directory.path} has journals but no snapshot: files were removed; "
                "run `jobqueue fsck --repair`"
            )
        meter = Meter(directory, names.needed, progress)
        base = read_snapshot(directory, names.base, meter)
        replica = cls(directory, base, Journal.open(directory, names.base))
        try:
            replica.follow(until, meter)
        except BaseException:
            replica.close()
            raise
        replica.state.engine.take_effects()  # of long ago
        meter.finish()
        return replica

    @property
    def where(self) -> tuple[int, int]:
        """The generation, and the place in its journal, up to which the state goes."""
        return self.journal.generation, self.position

    def close(self) -> None:
        self.journal.close()

    def follow(self, until: tuple[int, int] | None, meter: Meter | None = None) -> bool:
        """Apply new frames, up to (generation, offset) or the last sound one.

        False if ``until`` was not reached: a frame before it is not sound. Raises `FileNotFoundError`
        if the next journal is gone: then so much has been written meanwhile that it has to be loaded
        anew.
        """
        while True:
            generation = self.journal.generation
            end = until[1] if until is not None and until[0] == generation else None
            sealed = False
            for frame in self.journal.frames(self.position, end):
                sealed = self.apply(frame)
                if meter is not None:
                    meter.advance(frame.end - self.position)
                self.position = frame.end
                if sealed:
                    break
            if not sealed:
                return until is None or self.where >= until
            self.switch(Journal.open(self._directory, generation + 1))

    def switch(self, journal: Journal) -> None:
        """Continue in the next journal."""
        self.journal.close()
        self.journal = journal
        self.position = HEADER_SIZE

    def apply(self, frame: Frame) -> bool:
        """Apply one frame; return whether it seals the journal."""
        state = self.state
        try:
            now, counters, commands = parse_batch(frame.payload)
            state.now = now
            for command in commands:
                command.apply(state, now)
        except ValueError as error:
            raise StorageError(
                f"{self._place(frame)} cannot be read: {error}; use one version of jobqueue for all "
                "processes of a store, or run `jobqueue fsck --repair`"
            ) from error
        if state.engine.counters != counters:
            raise StorageError(
                f"{self._place(frame)} leads to another state than when it was written: run `jobqueue "
                "fsck --repair`; use one version of jobqueue for all processes of a store"
            )
        return isinstance(commands[-1], Seal)

    def _place(self, frame: Frame) -> str:
        return f"{self.journal.path} at {frame.offset}"
