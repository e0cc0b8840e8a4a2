"""Any bytes may come out of a store: what reads them answers, or raises what it is meant to raise."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobqueue import (
    ErrorInfo,
    FailureReason,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobState,
    JsonSerde,
    MsgpackSerde,
    ResultExpiredError,
    SerializationError,
)
from jobqueue.client.explain import unfinished
from jobqueue.client.results import ended_error, job_status
from jobqueue.client.waiter import Waiter
from jobqueue.emitter import Emitter
from jobqueue.events import JobFailed
from jobqueue.model.checks import instant
from jobqueue.model.outcomes import decode_error
from jobqueue.model.serde import load
from jobqueue.model.states import ENDED
from jobqueue.observe.logs import EventLog
from jobqueue.runtime.text import one_line, printable
from jobqueue.storage.values import Record, Reply

nearly = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
fields = st.dictionaries(st.sampled_from(["type", "message", "reason", "traceback", "other"]), nearly)
data = st.binary(max_size=200) | fields.map(lambda value: json.dumps(value).encode())
numbers = st.integers(-(2**63), 2**63 - 1)
seqs = st.integers(0, 3)
states = st.sampled_from(JobState)
records = st.builds(
    Record,
    id=st.text(min_size=1),
    seq=seqs,
    state=states,
    priority=numbers,
    run_at=numbers,
    created_at=numbers,
    updated_at=numbers,
    attempts=numbers,
    max_attempts=numbers,
    stalls=numbers,
    max_stalls=numbers,
    ttl=numbers,
    fence=numbers,
    worker=st.none() | st.text(),
    lease_until=st.none() | numbers,
    cancelling=st.booleans(),
    result=st.none() | data,
    error=st.none() | data,
    progress=st.none() | data,
    expires_at=st.none() | numbers,
    payload=st.none() | data,
)
replies = st.builds(
    Reply,
    queue=st.just("q"),
    id=st.just("a"),
    seq=seqs,
    state=states,
    data=st.none() | data,
    attempts=numbers,
)


@given(data)
def test_errors(stored: bytes) -> None:
    info, reason = decode_error(stored)
    assert isinstance(reason, FailureReason)
    assert all(isinstance(text, str) for text in (info.type, info.message, info.traceback or ""))


@given(data, st.sampled_from([JsonSerde(), MsgpackSerde()]))
def test_values(stored: bytes, serde: Any) -> None:
    with suppress(SerializationError):
        load(serde, stored, "it")


@given(st.text(), st.sampled_from(sorted(ENDED)), st.none() | data, numbers)
def test_outcomes(id: str, state: JobState, stored: bytes | None, attempts: int) -> None:
    error = ended_error(id, state, stored, attempts)
    assert isinstance(error, JobFailedError | JobCancelledError | ResultExpiredError)
    assert str(error)


@given(records)
def test_records(record: Record) -> None:
    assert repr(job_status(record, None, None))
    assert one_line(unfinished(record, "q", attended=False))


@given(seqs, st.lists(replies, max_size=4), st.lists(st.none() | records, max_size=2))
def test_what_waiters_hear_and_read(seq: int, heard: list[Reply], read: list[Record | None]) -> None:
    async def wait() -> None:
        waiter = Waiter("a", asyncio.get_running_loop().create_future())
        for reply in heard[:2]:
            waiter.hear(reply)
        waiter.bind(seq)
        for reply in heard[2:]:
            waiter.hear(reply)
        for record in read:
            waiter.read("q", record)
        if waiter.future.done():
            with suppress(JobNotFoundError):
                assert waiter.future.result().seq in {seq, *(one.seq for one in read if one and not seq)}

    asyncio.run(wait())


@given(numbers)
def test_instants(milliseconds: int) -> None:
    assert 1970 <= instant(milliseconds).year <= 9999


@given(st.text())
def test_text(text: str) -> None:
    printable(text).encode()
    assert "\n" not in one_line(text)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(self.format(record))


@given(data, st.text())
def test_the_log(stored: bytes, id: str) -> None:
    emitter, lines = Emitter(JobFailed), Lines()
    EventLog(emitter)
    error, reason = decode_error(stored)
    logging.getLogger("jobqueue").addHandler(lines)
    try:
        emitter.emit(JobFailed(id, "q", error, 1, reason))
    finally:
        logging.getLogger("jobqueue").removeHandler(lines)
    (line,) = lines.written  # and none that says that the listener has raised
    assert line.startswith("job ")
    assert "\n" not in line


def test_an_error_that_is_deeply_nested() -> None:
    deep = b'{"type":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    assert decode_error(deep)[0] == ErrorInfo("unknown", "the stored error cannot be read")
