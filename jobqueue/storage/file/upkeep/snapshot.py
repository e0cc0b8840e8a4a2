"""Snapshots: the whole state at the beginning of a journal.

A snapshot is written under another name, synced and renamed, so that one that can be seen is whole. Its
first frame holds the counters, the clock and the locks, its last one the number of jobs. Between them are the
rules of queues, the turns and rates of groups, the documents and the jobs, in blocks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from jobqueue.errors import StorageError
from jobqueue.model.states import JobState
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.engine.engine import Counters, SavedGroups, SavedJob
from jobqueue.storage.engine.job_entry import PLAIN
from jobqueue.storage.file.commands.fields import pack_extras, parse_extras
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.codec import Reader, blob, number, numbers, text
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.frames import (
    HEADER_SIZE,
    SNAPSHOT,
    check_header,
    pack_frame,
    pack_header,
    parse_frame,
)
from jobqueue.storage.file.upkeep.progress import Meter
from jobqueue.storage.rules import pack_rules, parse_rules
from jobqueue.storage.values import Document, LockInfo

__all__ = [
    "Snapshot",
    "parse_documents",
    "parse_groups",
    "parse_head",
    "parse_jobs",
    "parse_queue_rules",
    "read_snapshot",
    "snapshot_name",
    "write_snapshot",
]

_BLOCK = 1 << 18
_SYNC_EVERY = 1 << 20
"""Bytes after which a growing snapshot is synced. Filesystems make every sync wait for what others have
written (ext4: in the same transaction), so one sync at the end would hold up those of the journal."""
_HEAD, _RULES, _GROUPS, _DOCUMENTS, _JOBS, _FOOT = b"h", b"r", b"g", b"d", b"j", b"f"
_CANCELLING, _EXTRAS = 1, 2
"""Flags of a job. With extras, their bytes follow all else."""
_STATES: tuple[JobState, ...] = tuple(JobState)
_STATE_CODES = {state: code for code, state in enumerate(_STATES)}
_JOB = struct.Struct("<IiiiiBiqiiqqqqiiqqqB")
_NUMBERS = SavedJob._fields[SavedJob._fields.index("priority") : SavedJob._fields.index("cancelling")]
"""The whole numbers of a job, which stand between its state and its flags."""
_numbers: Callable[[SavedJob], tuple[int, ...]] = attrgetter(*_NUMBERS)


class Snapshot(NamedTuple):
    """A snapshot as read."""

    state: State
    size: int
    """Bytes of the file."""
    jobs: int


def snapshot_name(generation: int) -> str:
    """Return the name of the snapshot of a generation."""
    return f"snapshot-{generation:010d}"


# -- writing --------------------------------------------------------------------------------------


def write_snapshot(directory: Directory, generation: int, state: State) -> None:
    """Write the state as the snapshot of a generation; it is safe on the disk when this returns."""
    files, name = directory.files, snapshot_name(generation)
    temporary = f"{name}.tmp"
    fd = directory.create_anew(temporary)
    try:
        salt = zlib.crc32(unique_id().encode())
        header = pack_header(SNAPSHOT, generation, salt)
        files.write(fd, header, 0)
        end = synced = len(header)
        for payload in _payloads(state):
            frame = pack_frame(payload, end, 0, salt)
            files.write(fd, frame, end)
            end += len(frame)
            if end - synced > _SYNC_EVERY:
                files.sync(fd)
                synced = end
        files.sync(fd)
    finally:
        files.close(fd)
    directory.rename(temporary, name)
    directory.sync()


def _payloads(state: State) -> Iterator[bytes]:
    engine = state.engine
    head = [_HEAD, numbers(state.now, state.clock_offset, *engine.counters, len(engine.seen))]
    for queue, worker, at in engine.seen:
        head += (text(queue), text(worker), number(at))
    for name, lock in engine.locks.items():
        head += (text(name), text(lock.owner), numbers(lock.term, lock.expires_at))
    yield b"".join(head)
    if rules := engine.rules:
        yield b"".join((_RULES, *(text(queue) + text(pack_rules(one)) for queue, one in rules)))
    for groups in engine.groups:
        yield _GROUPS + _pack_groups(groups)
    yield from _document_blocks(state)
    yield from _job_blocks(state)


def _pack_groups(groups: SavedGroups) -> bytes:
    parts = [text(groups.queue), numbers(groups.tat, len(groups.tats))]
    for name, tat in groups.tats:
        parts += (text(name), number(tat))
    for priority, name, left in groups.lines:
        parts += (numbers(priority, left), text(name))
    return b"".join(parts)


def _document_blocks(state: State) -> Iterator[bytes]:
    block: list[bytes] = []
    size = 0
    for space, (name, version, data) in state.engine.documents:
        block += (text(space), text(name), number(version), blob(data))
        size += len(data)
        if size > _BLOCK:
            yield b"".join((_DOCUMENTS, *block))
            block, size = [], 0
    if block:
        yield b"".join((_DOCUMENTS, *block))


def _job_blocks(state: State) -> Iterator[bytes]:
    total = 0
    queue: str | None = None
    block: list[bytes] = []
    size = 0
    for job in state.engine.dump(state.now):
        if job.queue != queue or size > _BLOCK:
            if block:
                yield b"".join(block)
            queue, block, size = job.queue, [_JOBS, text(job.queue)], 0
        packed = _pack_job(job)
        block.append(packed)
        size += len(packed)
        total += 1
    if block:
        yield b"".join(block)
    yield _FOOT + number(total)


def _pack_job(job: SavedJob) -> bytes:
    id, payload, data, progress = job.id.encode(), job.payload, job.data, job.progress
    worker = job.worker.encode() if job.worker else None
    extras = b"" if job.extras is PLAIN else pack_extras(job.extras)
    if extras:
        extras = blob(extras)
    head = _JOB.pack(
        len(id),
        -1 if payload is None else len(payload),
        -1 if data is None else len(data),
        -1 if progress is None else len(progress),
        -1 if worker is None else len(worker),
        _STATE_CODES[job.state],
        *_numbers(job),
        (_CANCELLING if job.cancelling else 0) | (_EXTRAS if extras else 0),
    )
    return b"".join((head, id, payload or b"", data or b"", progress or b"", worker or b"", extras))


# -- reading --------------------------------------------------------------------------------------


def read_snapshot(directory: Directory, generation: int, meter: Meter) -> Snapshot:
    """Read a snapshot. Raises `FileNotFoundError`, and `StorageError` if it cannot be used."""
    files, name = directory.files, snapshot_name(generation)
    path, fd = directory.path / name, directory.open_file(name, write=False)
    try:
        size = files.size(fd)
        header = check_header(files.read(fd, HEADER_SIZE, 0), SNAPSHOT, generation, path)
        blocks = _blocks(files, fd, path, header.salt, meter)
        state = State()
        counters, locks = parse_head(next(blocks), state)
        state.engine.load(_jobs(blocks, path, state), locks, counters)
    except (ValueError, StopIteration) as error:
        raise _damaged(path) from error
    finally:
        files.close(fd)
    return Snapshot(state, size, state.engine.size())


def _blocks(files: Files, fd: int, path: Path, salt: int, meter: Meter) -> Iterator[bytes]:
    size = files.size(fd)
    at, data, base = HEADER_SIZE, b"", HEADER_SIZE
    while at < size:
        frame = parse_frame(data, at - base, base, salt)
        while isinstance(frame, int):  # once for its head, and again for all of it if that is long
            data, base = files.read(fd, max(4 * _BLOCK, frame), at), at
            frame = parse_frame(data, 0, base, salt) if len(data) >= frame else None
        if frame is None:
            raise _damaged(path)
        meter.advance(frame.end - at)
        at = frame.end
        yield frame.payload


def parse_head(block: bytes, state: State) -> tuple[Counters, dict[str, LockInfo]]:
    """Read the first frame into a state; return the arguments for `Engine.load`."""
    head = Reader(block, 1)
    state.now, state.clock_offset = head.number(), head.number()
    counters = Counters(head.number(), head.number())
    for _ in range(head.number()):
        state.engine.see(head.text(), head.text(), head.number())
    locks: dict[str, LockInfo] = {}
    while not head.done:
        name = head.text()
        locks[name] = LockInfo(head.text(), head.number(), head.number())
    return counters, locks


def parse_jobs(block: bytes) -> Iterator[SavedJob]:
    """Read a frame of jobs."""
    reader = Reader(block, 1)
    queue = reader.text()
    at, end = reader.at, len(block)
    try:
        while at < end:
            job, at = _parse_job(queue, block, at)
            yield job
    except (struct.error, IndexError) as error:
        raise ValueError(f"a malformed job: {error}") from error


def parse_documents(block: bytes, state: State) -> None:
    """Read a frame of documents into a state."""
    reader = Reader(block, 1)
    while not reader.done:
        space = reader.text()
        state.engine.documents.put(space, Document(reader.text(), reader.number(), reader.blob()))


def parse_queue_rules(block: bytes, state: State) -> None:
    """Read a frame of rules into a state."""
    reader = Reader(block, 1)
    while not reader.done:
        queue = reader.text()
        state.engine.set_rules(queue, parse_rules(reader.text()), state.now)


def parse_groups(block: bytes, state: State) -> None:
    """Read a frame of the groups of a queue into a state; follows the rules, precedes the jobs."""
    reader = Reader(block, 1)
    queue, tat = reader.text(), reader.number()
    tats = tuple((reader.text(), reader.number()) for _ in range(reader.number()))
    lines: list[tuple[int, str, int]] = []
    while not reader.done:
        priority, left = reader.number(), reader.number()
        lines.append((priority, reader.text(), left))
    state.engine.load_groups(SavedGroups(queue, tat, tuple(lines), tats))


def _jobs(blocks: Iterator[bytes], path: Path, state: State) -> Iterator[SavedJob]:
    given = 0
    for block in blocks:
        if block[:1] == _DOCUMENTS:
            parse_documents(block, state)
            continue
        if block[:1] == _RULES:
            parse_queue_rules(block, state)
            continue
        if block[:1] == _GROUPS:
            parse_groups(block, state)
            continue
        if block[:1] == _FOOT:
            if Reader(block, 1).number() != given:
                raise _damaged(path)
            return
        for job in parse_jobs(block):
            given += 1
            yield job
    raise _damaged(path)


def _parse_job(queue: str, block: bytes, at: int) -> tuple[SavedJob, int]:
    # Called for every job of a store that is opened: written out, it takes half of what a loop would.
    head: tuple[Any, ...] = _JOB.unpack_from(block, at)
    id_size, size, data_size, progress_size, worker_size, state, *rest, flags = head
    start = at + _JOB.size
    end = start + id_size
    id = block[start:end].decode()
    payload = data = progress = None
    worker = ""
    if size >= 0:
        payload = block[end : end + size]
        end += size
    if data_size >= 0:
        data = block[end : end + data_size]
        end += data_size
    if progress_size >= 0:
        progress = block[end : end + progress_size]
        end += progress_size
    if worker_size >= 0:
        worker = block[end : end + worker_size].decode()
        end += worker_size
    extras = PLAIN
    if flags & _EXTRAS:
        reader = Reader(block, end)
        extras = parse_extras(reader.blob())
        end = reader.at
    if end > len(block):
        raise ValueError("the bytes end too early")
    cancelling = bool(flags & _CANCELLING)
    values: tuple[Any, ...] = (queue, id, payload, _STATES[int(state)], *rest, cancelling)
    return SavedJob._make((*values, data, progress, extras, worker)), end


def _damaged(path: Path) -> StorageError:
    return StorageError(f"{path} is damaged: run `jobqueue fsck --repair` on the store")
