"""Encodes the arguments of scripts and decodes their answers. ``lua/lib/record.lua`` describes the record."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from jobqueue.errors import StorageError
from jobqueue.model.fast import make_tuple
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.storage.found import REPLACED_UNREAD, as_found
from jobqueue.storage.redis.extras import NO_EXTRAS, Extras, around_headers, read_extras
from jobqueue.storage.values import Claimed, Conflict, Document, Inserted, InsertStatus, NewJob, Record, Reuse

__all__ = [
    "LETTERS",
    "claimed",
    "document",
    "element",
    "fence_bytes",
    "id_bytes",
    "id_text",
    "insert_args",
    "inserted",
    "record",
    "settlement_args",
    "sized_ids",
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
_COMPLETE = Action.COMPLETE  # looked up once: what most settlements ask for
_ADDS_ATTEMPT = frozenset({Action.FAIL, Action.RETRY})
_OPTIONS = 8
"""Where in a `NewJob` its extras begin with the headers, id and payload apart."""
_REUSE = {Reuse.RETURN: b"r", Reuse.RERUN_FAILED: b"f", Reuse.RERUN: b"a"}
_CORE = struct.Struct(">hII")
# state, flags, updated, mark, attempts, stalls, fence; core; sizes of waiters, progress, data, worker
_FULL = struct.Struct(">BB6s7sII7s hII6sI2x6s6s2x7s 3sIIH")
_SHORT = struct.Struct(">BhII6sI2x6s6s2x7s3s")
_SHORT_READY, _WITH_EXTRAS = frozenset(b"qwe"), ord("e")
_CANCELLING, _EXTRAS = 1, 8
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
    """Return the options of runs of jobs with equal ones, the ids and the bodies."""
    ids: list[bytes] = []
    bodies: list[bytes] = []
    runs: list[bytes] = []
    last: tuple[Any, ...] | None = None
    shape: tuple[Any, ...] | None = None
    run: tuple[Any, ...] | None = None
    head = before = after = b""
    length = 0
    for job in jobs:
        options = job[2:]
        if options != last:
            last, headers = options, job.headers
            # Jobs often differ in their headers only, by a trace or by the token of a guard.
            looks = len(headers), options[:_OPTIONS], options[_OPTIONS + 1 :]
            if looks != shape:
                shape = looks
                before, after = around_headers(
                    len(headers), job.task, job.group, job.dead_letter_ttl, job.weight, job.expires
                )
                size = len(before) + len(headers) + len(after)
                before = size.to_bytes(4) + before if size else b""
                # Those that differ in their extras only are one run: each has these in its body.
                alike = (
                    *options[:_OPTIONS], bool(size), bool(job.group), job.conflict, job.expires is not None
                )  # fmt: skip
                if alike != run:
                    if run is not None:
                        runs.append(length.to_bytes(2) + _options(*run))
                    run, length = alike, 0
            head = before + headers + after
        length += 1
        ids.append(job[0].encode())
        bodies.append(head + job[1] if head else job[1])
    if run is not None:
        runs.append(length.to_bytes(2) + _options(*run))
    return [b"".join(runs), *ids, *bodies]


def _options(
    priority: int,
    delay: int,
    run_at: int | None,
    max_attempts: int,
    max_stalls: int,
    ttl: int,
    reuse: Reuse,
    wait: bool,  # noqa: FBT001
    extras: bool,  # noqa: FBT001
    group: bool,  # noqa: FBT001
    conflict: Conflict,
    expires: bool,  # noqa: FBT001
) -> bytes:
    kind, due = (b"d", delay) if run_at is None else (b"a", run_at)
    if conflict is Conflict.DEBOUNCE:
        kind = b"b" if run_at is None else b"i"
    return b"".join(
        (
            _REUSE[reuse],
            bytes(
                (0x30 + wait + 2 * extras + 4 * group + 8 * (conflict is not Conflict.JOIN) + 64 * expires,)
            ),
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
        elif status in b"nN":
            answers.append(REPLACED_UNREAD)
            seq += status == ord("N")
        elif status in b"pR":
            answers.append(as_found(record("", next(found)))._replace(status=InsertStatus.REPLACED))
            seq += status == ord("R")
        else:
            answers.append(as_found(record("", next(found))))
    return answers


# -- exchange -------------------------------------------------------------------------------------


def settlement_args(settlements: Sequence[Settlement]) -> list[bytes]:
    """Return the kinds of runs of like settlements, the fences, the jobs to insert, the ids and the data."""
    ids: list[bytes] = []
    datas: list[bytes] = []
    fences: list[bytes] = []
    thens: list[bytes] = []
    runs: list[bytes] = []
    last: tuple[Action, int, int] | None = None
    length = 0
    for id, fence, action, data, ttl, delay, summary, then in settlements:
        alike = (action, ttl, delay)
        if alike != last:
            if last is not None:
                runs.append(_settlement_run(length, *last))
            last, length = alike, 0
        length += 1
        ids.append(id_bytes(id))
        fences.append(fence_bytes(fence))
        if action is not _COMPLETE and action in _ADDS_ATTEMPT:
            data = len(summary).to_bytes(2) + summary + data  # noqa: PLW2901 - as the script takes it
        datas.append(data)
        if then:
            thens += _to_insert(len(ids), then)
    if last is not None:
        runs.append(_settlement_run(length, *last))
    return [b"".join(runs), b"".join(fences), b"".join(thens), *ids, *datas]


def _to_insert(place: int, jobs: Sequence[NewJob]) -> Iterator[bytes]:
    """Return the jobs to insert after the settlement with a place, in pieces that a script can unpack."""
    for start in range(0, len(jobs), MOST_ITEMS):
        runs, *rest = insert_args(jobs[start : start + MOST_ITEMS])
        yield place.to_bytes(2) + len(runs).to_bytes(4) + runs
        for part in rest:
            yield len(part).to_bytes(4)
            yield part


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
            _, _, max_attempts, _, ttl, size, created, due, seq, waiters = unpack(data)
            body = 47 + _int(waiters)
            if data[0] == _WITH_EXTRAS:
                headers, task, group, saved, history, _ = read_extras(data, body, body + size)
                body += size
            else:
                headers, task, group, saved, history = b"", "", "", None, ()
            made = _int(created)
            start_at = made if due == created else _int(due)  # most are due when they are made
            jobs.append(
                make_tuple(
                    Claimed,
                    (
                        id, data[body:], fence, 1, max_attempts, _int(ttl), made,
                        headers, task, group, _int(seq), start_at, saved, history,
                    ),
                )
            )  # fmt: skip
        else:
            job, extras = _read(id, data, payload=True)
            jobs.append(
                Claimed(
                    id, job.payload or b"", fence, job.attempts + 1, job.max_attempts, job.ttl,
                    job.created_at, job.headers, job.task, job.group, job.seq, job.run_at, extras.saved,
                    job.history,
                )
            )  # fmt: skip
    return jobs


def sized_ids(data: bytes) -> Iterator[str]:
    """Read ids that stand each after its size."""
    at = 0
    while at < len(data):
        end = at + 2 + _int(data[at : at + 2])
        yield id_text(data[at + 2 : end])
        at = end


def element(data: bytes) -> tuple[int, str]:
    """Read an element of the ready list: when it was made, as a number below all later fences, and the id.

    A position is such a number, or twice ``FLOOR`` less that of a job in front; see ``lua/lib/ready.lua``.
    A blank has neither.
    """
    position = _int(data[:7])
    return (position if position >= _FLOOR else 2 * _FLOOR - position), data[7:].decode(errors="replace")


def document(name: str, data: bytes) -> Document:
    """Read a document."""
    return Document(name, _int(data[:7]), data[7:])


# -- records --------------------------------------------------------------------------------------


def record(id: str, data: bytes, *, payload: bool = False) -> Record:
    """Read a full record."""
    return _read(id, data, payload=payload)[0]


def _read(id: str, data: bytes, *, payload: bool) -> tuple[Record, Extras]:
    try:
        (
            letter, flags, updated, mark, attempts, stalls, fence,
            priority, max_attempts, max_stalls, ttl, extras_size, created, due, seq,
            waiters, progress_size, data_size, worker_size,
        ) = _FULL.unpack_from(data)  # fmt: skip
        state = _STATES[letter]
        at = _FULL.size + _int(waiters)
        extras = NO_EXTRAS
        if flags & _EXTRAS:
            extras = read_extras(data, at, at + extras_size)
            at += extras_size
    except (struct.error, KeyError) as error:
        raise StorageError(f"the record of job {id!r} cannot be read: run jobqueue fsck") from error
    progress = data[at : at + progress_size - 1] if progress_size else None
    at += max(0, progress_size - 1)
    output = data[at : at + data_size - 1] if data_size else None
    at += max(0, data_size - 1)
    worker = data[at : at + worker_size]
    at += worker_size
    leased, completed = state is JobState.PROCESSING, state is JobState.COMPLETED
    found = Record(
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
        headers=extras.headers,
        task=extras.task,
        group=extras.group,
        history=extras.history,
        expires=extras.expires,
    )
    return found, extras
