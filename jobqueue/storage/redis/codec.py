"""Encodes the arguments of scripts and decodes their answers. ``lua/lib/record.lua`` describes the record."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from jobqueue.errors import StorageError
from jobqueue.job import Action, JobState, Settlement
from jobqueue.runtime import make_tuple
from jobqueue.storage.base import Claimed, Inserted, InsertStatus, NewJob, Record, Reuse

__all__ = [
    "LETTERS",
    "as_found",
    "claimed",
    "element",
    "fence_bytes",
    "id_bytes",
    "id_text",
    "insert_args",
    "inserted",
    "record",
    "settlement_args",
]

LETTERS = {
    JobState.QUEUED: b"Q",
    JobState.SCHEDULED: b"S",
    JobState.FAILING: b"R",
    JobState.PROCESSING: b"P",
    JobState.COMPLETED: b"C",
    JobState.FAILED: b"F",
    JobState.CANCELLED: b"X",
}
_STATES = {letter[0]: state for state, letter in LETTERS.items()}
_ENDED = frozenset(b"CFX")
_ACTIONS = {
    Action.COMPLETE: b"c",
    Action.FAIL: b"f",
    Action.RETRY: b"r",
    Action.RELEASE: b"l",
    Action.CANCEL: b"x",
}
_REUSE = {Reuse.RETURN: b"r", Reuse.RERUN_FAILED: b"f", Reuse.RERUN: b"a"}
_CORE = struct.Struct(">hII")
# state, flags, updated, mark, attempts, stalls, fence; core; sizes of waiters, progress, data, worker
_FULL = struct.Struct(">BB6s7sII7s hII6s6s6s6sH7s 3sIIH")
_SHORT = struct.Struct(">BhII6s6s6s6sH7s3s")
_SHORT_READY = frozenset(b"qw")
_CANCELLING = 1
_FLOOR = 1_750_000_000_000_000

_int = int.from_bytes


def id_text(data: bytes) -> str:
    """Return an id as text. Bytes that are not UTF-8, as only foreign hands write, survive the way back."""
    return data.decode("utf-8", "surrogateescape")


def id_bytes(id: str) -> bytes:
    """Return the bytes of an id that came from the server."""
    return id.encode("utf-8", "surrogateescape")


# -- insert ---------------------------------------------------------------------------------------


def insert_args(jobs: Sequence[NewJob]) -> list[bytes]:
    """Return the options of runs of jobs with equal ones, the ids and the payloads."""
    ids: list[bytes] = []
    payloads: list[bytes] = []
    runs: list[bytes] = []
    last: tuple[Any, ...] | None = None
    length = 0
    for job in jobs:
        options = job[2:]
        if options != last:
            if last is not None:
                runs.append(length.to_bytes(2) + _options(*last))
            last, length = options, 0
        length += 1
        ids.append(job[0].encode())
        payloads.append(job[1])
    if last is not None:
        runs.append(length.to_bytes(2) + _options(*last))
    return [b"".join(runs), *ids, *payloads]


def _options(
    priority: int,
    delay: int,
    run_at: int | None,
    max_attempts: int,
    max_stalls: int,
    ttl: int,
    reuse: Reuse,
    wait: bool,  # noqa: FBT001
) -> bytes:
    kind, due = (b"d", delay) if run_at is None else (b"a", run_at)
    return b"".join(
        (
            _REUSE[reuse],
            b"1" if wait else b"0",
            kind,
            due.to_bytes(6),
            _CORE.pack(priority, max_attempts, max_stalls),
            ttl.to_bytes(6),
        )
    )


def inserted(reply: Sequence[Any]) -> list[Inserted | None]:
    """Read the answer of insert; ``None`` for a job that was found and has to be read."""
    seq = int(reply[1])
    statuses: bytes = reply[2]
    found = iter(reply[3:])
    answers: list[Inserted | None] = []
    created, queued = InsertStatus.CREATED, JobState.QUEUED
    for status in statuses:
        if status == 113:  # "q": what most are
            answers.append(make_tuple(Inserted, (created, seq, queued, None, 0)))
            seq += 1
        elif status == ord("s"):
            answers.append(Inserted(InsertStatus.CREATED, seq, JobState.SCHEDULED))
            seq += 1
        elif status == ord("F"):
            answers.append(Inserted(InsertStatus.FULL, 0, JobState.QUEUED))
        elif status == ord("m"):
            answers.append(None)
        else:
            answers.append(as_found(record("", next(found))))
    return answers


def as_found(job: Record) -> Inserted:
    """Describe a job that an insert has found."""
    data = job.result if job.state is JobState.COMPLETED else job.error
    ended = job.expires_at is not None
    return Inserted(InsertStatus.FOUND, job.seq, job.state, data if ended else None, job.attempts)


# -- exchange -------------------------------------------------------------------------------------


def settlement_args(settlements: Sequence[Settlement]) -> list[bytes]:
    """Return the kinds of runs of like settlements, the fences, the ids and the data."""
    ids: list[bytes] = []
    datas: list[bytes] = []
    fences: list[bytes] = []
    runs: list[bytes] = []
    last: tuple[Action, int, int] | None = None
    length = 0
    for id, fence, action, data, ttl, delay in settlements:
        alike = (action, ttl, delay)
        if alike != last:
            if last is not None:
                runs.append(_settlement_run(length, *last))
            last, length = alike, 0
        length += 1
        ids.append(id_bytes(id))
        fences.append(fence_bytes(fence))
        datas.append(data)
    if last is not None:
        runs.append(_settlement_run(length, *last))
    return [b"".join(runs), b"".join(fences), *ids, *datas]


def _settlement_run(length: int, action: Action, ttl: int, delay: int) -> bytes:
    return length.to_bytes(2) + _ACTIONS[action] + ttl.to_bytes(6) + delay.to_bytes(6)


def fence_bytes(fence: int) -> bytes:
    """Return a fence in the form of the record; one that no record can have becomes all ones."""
    return fence.to_bytes(7) if 0 <= fence < 1 << 53 else b"\xff" * 7


def claimed(fences: bytes, reply: Sequence[Any], start: int) -> list[Claimed]:
    """Read the claimed jobs of exchange: from ``start`` on, id and record before the claim of each."""
    jobs: list[Claimed] = []
    unpack = _SHORT.unpack_from
    at = 0
    for i in range(start, len(reply), 2):
        id, data, fence = id_text(reply[i]), reply[i + 1], _int(fences[at : at + 7])
        at += 7
        if data[0] in _SHORT_READY:
            _, _, max_attempts, _, ttl, _, created, _, _, _, waiters = unpack(data)
            payload = data[47 + _int(waiters) :]
            jobs.append(Claimed(id, payload, fence, 1, max_attempts, _int(ttl), _int(created)))
        else:
            job = record(id, data, payload=True)
            jobs.append(
                Claimed(
                    id, job.payload or b"", fence, job.attempts + 1, job.max_attempts, job.ttl, job.created_at
                )
            )
    return jobs


def element(data: bytes) -> tuple[int, str]:
    """Read an element of the ready list: when it was made, as a number below all later fences, and the id.

    A position is such a number, or twice ``FLOOR`` less that of a job in front; see ``lua/lib/ready.lua``.
    A blank has neither.
    """
    position = _int(data[:7])
    return (position if position >= _FLOOR else 2 * _FLOOR - position), data[7:].decode(errors="replace")


# -- records --------------------------------------------------------------------------------------


def record(id: str, data: bytes, *, payload: bool = False) -> Record:
    """Read a full record."""
    try:
        (
            letter, flags, updated, mark, attempts, stalls, fence,
            priority, max_attempts, max_stalls, ttl, _, created, due, _, seq,
            waiters, progress_size, data_size, worker_size,
        ) = _FULL.unpack_from(data)  # fmt: skip
        state = _STATES[letter]
    except (struct.error, KeyError) as error:
        raise StorageError(f"the record of job {id!r} cannot be read: run jobqueue fsck") from error
    at = _FULL.size + _int(waiters)
    progress = data[at : at + progress_size - 1] if progress_size else None
    at += max(0, progress_size - 1)
    output = data[at : at + data_size - 1] if data_size else None
    at += max(0, data_size - 1)
    worker = data[at : at + worker_size]
    at += worker_size
    leased, completed = state is JobState.PROCESSING, state is JobState.COMPLETED
    return Record(
        id=id,
        seq=_int(seq),
        state=state,
        priority=priority,
        run_at=_int(due),
        created_at=_int(created),
        updated_at=_int(updated),
        attempts=attempts,
        max_attempts=max_attempts,
        stalls=stalls,
        max_stalls=max_stalls,
        ttl=_int(ttl),
        fence=_int(fence),
        worker=worker.decode(errors="replace") if leased else None,
        lease_until=_int(mark) if leased else None,
        cancelling=bool(flags & _CANCELLING),
        result=output if completed else None,
        error=None if completed else output,
        progress=progress,
        expires_at=_int(mark) if letter in _ENDED else None,
        payload=data[at:] if payload and not completed and state is not JobState.CANCELLED else None,
    )
