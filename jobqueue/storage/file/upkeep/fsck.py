"""Checks the files of a store and saves the sound parts, for ``jobqueue fsck``.

A repair applies every sound frame that is left, in order. Commands behind a gap may then have another effect
than when they were given: a job that was handed out by a lost command is handed out again. So some jobs may
run twice, but none in a sound frame is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from jobqueue.storage.engine.engine import Counters, SavedJob
from jobqueue.storage.file.commands.registry import Command, Seal
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.frames import HEADER_SIZE, JOURNAL, SNAPSHOT, Frame, find_frames, parse_header
from jobqueue.storage.file.disk.journal import Journal, journal_name
from jobqueue.storage.file.disk.lock import COMPACT_LOCK, LOCK_NAME, LockFile, PublishedPage
from jobqueue.storage.file.upkeep.progress import Meter, Progress
from jobqueue.storage.file.upkeep.recovery import FENCE_GAP
from jobqueue.storage.file.upkeep.replica import Generations, parse_batch
from jobqueue.storage.file.upkeep.snapshot import (
    parse_documents,
    parse_groups,
    parse_head,
    parse_jobs,
    parse_queue_rules,
    snapshot_name,
    write_snapshot,
)
from jobqueue.storage.findings import Finding, Severity

__all__ = ["check", "repair"]


class _Salvage:
    """The state that results from the sound parts of all files, and the faults of the others."""

    def __init__(self, directory: Directory, page: PublishedPage | None, progress: Progress | None) -> None:
        self._directory = directory
        self._page = page
        self.findings: list[Finding] = []
        self.state = State()
        self.broken = False
        self.names = Generations(directory.names())
        self._meter = Meter(directory, self.names.needed, progress)

    def read(self) -> None:
        """Read everything from the newest snapshot on."""
        base = self.names.base
        if base is None:
            self._error(
                self._directory.path.name, "has no snapshot: what was before the first journal is lost"
            )
        else:
            self._read_snapshot(base)
        journals = [number for number in self.names.journals if base is None or number >= base]
        if base is not None and base not in journals:
            self._error(journal_name(base), "is missing")
        sealed = True
        for number in journals:
            name = journal_name(number)
            data = self._data(name)
            if not sealed and len(data.rstrip(b"\0")) > HEADER_SIZE:
                self._error(name, "goes on where the journal before it does not end")
            sealed = self._read_journal(name, data, last=number == journals[-1])
        self._meter.finish()

    def _data(self, name: str) -> bytes:
        files, fd = self._directory.files, self._directory.open_file(name, write=False)
        try:
            return files.read(fd, files.size(fd), 0)
        finally:
            files.close(fd)

    def _error(self, name: str, text: str) -> None:
        self.broken = True
        self.findings.append(Finding(name, Severity.ERROR, text))

    def _read_snapshot(self, generation: int) -> None:
        name = snapshot_name(generation)
        data = self._data(name)
        header = parse_header(data, SNAPSHOT)
        if header is None:
            self._error(name, "has a damaged header: its jobs cannot be told from noise and are lost")
            return
        header.check_readable(name)
        payloads = [frame.payload for frame in self._frames(name, data, header.salt)]
        heads = [payload for payload in payloads if payload[:1] == b"h"]
        feet = [payload for payload in payloads if payload[:1] == b"f"]
        jobs = list(self._saved_jobs(name, payloads))
        if heads:
            counters, locks = parse_head(heads[0], self.state)
        else:
            self._error(name, "has lost its counters and locks")
            counters, locks = Counters(max((job.seq for job in jobs), default=0), 0), {}
        if not feet:
            self._error(name, "has lost its end")
        fence = max((job.fence for job in jobs), default=0)
        self.state.engine.load(jobs, locks, Counters(counters.seq, max(counters.fence, fence)))

    def _saved_jobs(self, name: str, payloads: list[bytes]) -> Iterator[SavedJob]:
        for payload in payloads:
            if payload[:1] == b"j":
                try:
                    yield from parse_jobs(payload)
                except ValueError as error:
                    self._error(name, f"has jobs that cannot be read: {error}")
            elif payload[:1] == b"d":
                try:
                    parse_documents(payload, self.state)
                except ValueError as error:
                    self._error(name, f"has documents that cannot be read: {error}")
            elif payload[:1] == b"r":
                try:
                    parse_queue_rules(payload, self.state)
                except ValueError as error:
                    self._error(name, f"has rules of queues that cannot be read: {error}")
            elif payload[:1] == b"g":
                try:
                    parse_groups(payload, self.state)
                except ValueError as error:
                    self._error(name, f"has groups of a queue that cannot be read: {error}")

    def _frames(self, name: str, data: bytes, salt: int) -> Iterator[Frame]:
        at = HEADER_SIZE
        for frame in find_frames(data, HEADER_SIZE, 0, salt):
            if frame.offset > at:
                self._error(name, f"is damaged from {at} to {frame.offset}")
            self._meter.advance(frame.end - at)
            at = frame.end
            yield frame

    def _read_journal(self, name: str, data: bytes, *, last: bool) -> bool:
        """Apply a journal; return whether it ends with a seal."""
        header = parse_header(data, JOURNAL)
        if header is None:
            if not last or len(data.rstrip(b"\0")) > HEADER_SIZE:
                self._error(name, "has a damaged header: its commands cannot be told from noise and are lost")
            return False
        header.check_readable(name)
        sealed, end = False, HEADER_SIZE
        for frame in self._frames(name, data, header.salt):
            end = frame.end
            sealed = self._apply(name, frame)
        page = self._page
        if page is not None and page.generation == header.generation and end < page.synced:
            self._error(name, f"is damaged from {end} to {page.synced}")
        elif data[end:].strip(b"\0"):
            self.findings.append(
                Finding(name, Severity.WARNING, f"has an unfinished write at {end}: the next opening cuts it")
            )
        return sealed

    def _apply(self, name: str, frame: Frame) -> bool:
        try:
            now, counters, commands = parse_batch(frame.payload)
        except ValueError as error:
            self._error(name, f"cannot be read at {frame.offset}: {error}")
            return False
        self.state.now = now
        for command in commands:
            self._apply_command(name, frame, command)
        engine = self.state.engine
        if not self.broken and engine.counters != counters:
            self._error(name, f"leads to another state than when it was written, at {frame.offset}")
        engine.advance(Counters(*counters))
        engine.take_effects()
        return isinstance(commands[-1], Seal)

    def _apply_command(self, name: str, frame: Frame, command: Command[object]) -> None:
        try:
            command.apply(self.state, self.state.now)
        except Exception as error:  # noqa: BLE001 - behind a gap a command may make no sense: reported
            self._error(name, f"has a {type(command).__name__} at {frame.offset} that fails: {error!r}")


@contextmanager
def _alone(files: Files, path: Path) -> Generator[tuple[Directory, LockFile]]:
    """Open a store and hold its lock, with no compaction under way that removes files."""
    with ExitStack() as stack:
        directory = stack.enter_context(Directory.open(files, path))
        lock = LockFile(directory)
        stack.callback(lock.close)
        compacting = directory.open_or_create(COMPACT_LOCK)
        stack.callback(files.close, compacting)
        files.lock(compacting)
        stack.enter_context(lock.held())
        yield directory, lock


def check(files: Files, path: Path, progress: Progress | None = None) -> list[Finding]:
    """Read all files and report their faults. Holds the store's lock meanwhile."""
    with _alone(files, path) as (directory, lock):
        page = lock.read()
        salvage = _Salvage(directory, page, progress)
        if salvage.names.base is None and not salvage.names.journals:
            return []
        salvage.read()
        findings = salvage.findings
        if page is not None and page.boot == files.boot_id() and page.suspect:
            findings.append(Finding(LOCK_NAME, Severity.WARNING, "a sync has failed: look at the disk"))
        return findings


def repair(files: Files, path: Path, progress: Progress | None = None) -> list[Finding]:
    """Write the readable data as a new store, beside the damaged files, which are kept."""
    with _alone(files, path) as (directory, lock):
        salvage = _Salvage(directory, lock.read(), progress)
        salvage.read()
        if not salvage.broken:
            return salvage.findings
        kept = _set_aside(directory, salvage)
        # Whoever has the store open, or opens it, has to begin anew.
        lock.clear()
        found = [replace(finding, severity=Severity.WARNING) for finding in salvage.findings]
        jobs = salvage.state.engine.size()
        return [*found, Finding(kept, Severity.WARNING, f"{jobs} jobs saved; the damaged files are here")]


def _set_aside(directory: Directory, salvage: _Salvage) -> str:
    names = salvage.names
    generation = max([*names.journals, *names.snapshots, 0]) + 1
    salvage.state.engine.restart(FENCE_GAP)
    with _new_subdirectory(directory, f"damaged-{generation:010d}") as kept:
        Journal.create(directory, generation).close()
        write_snapshot(directory, generation, salvage.state)
        for number in names.snapshots:
            directory.rename(snapshot_name(number), snapshot_name(number), kept)
        for number in names.journals:
            directory.rename(journal_name(number), journal_name(number), kept)
        directory.sync()
        return kept.path.name


def _new_subdirectory(directory: Directory, name: str) -> Directory:
    """Make a directory of that name, or of a similar one if it is taken."""
    taken = directory.names()
    others = (f"{name}-{number}" for number in itertools.count(2))
    return directory.make_dir(next(free for free in itertools.chain((name,), others) if free not in taken))
