"""What a ledger takes at most: connections, seconds, bytes. What is too much is refused before that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from jobqueue import InvalidArgumentError, Queue, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.batching import MOST_BYTES
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import NewJob
from tests.services import Server
from tests.storage.guard.support import rows
from tests.storage.guard.test_losses import told
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection

RESULT = MOST_BYTES // 2


# -- connections --------------------------------------------------------------------------------------


async def test_calls_share_a_bounded_number_of_connections(schema: str) -> None:
    ledger = PostgresLedger(postgres_url(), schema, pool_size=3)
    ledger.open()

    async def busy(connection: Any, _repeated: bool) -> int:
        pid = await connection.fetchval("select pg_backend_pid()")
        await connection.execute("select pg_sleep(0.02)")
        return int(pid)

    pids = await asyncio.gather(*(ledger._run(busy) for _ in range(30)))
    assert 1 <= len(set(pids)) <= 3
    await ledger.close()
    async with connection() as admin:
        for _ in range(200):
            left = await admin.fetchval("select count(*) from pg_stat_activity where pid = any($1)", pids)
            if not left:
                break
            await asyncio.sleep(0.02)
    assert left == 0, "closing ends them"


async def test_a_statement_and_a_lock_are_waited_for_in_bounds(schema: str) -> None:
    ledger = PostgresLedger(postgres_url(), schema, retry_for=0.0, statement_timeout=0.2, lock_timeout=0.1)
    ledger.open()
    with pytest.raises(StorageUnavailableError, match="statement timeout"):
        await ledger._execute("select pg_sleep(5)")
    async with connection() as admin, admin.transaction():
        await admin.execute(f"""lock table "{schema.replace('"', '""')}".job in access exclusive mode""")
        with pytest.raises(StorageUnavailableError, match="lock timeout"):
            await ledger.counts(None)
    assert await ledger.counts(None) == {}
    await ledger.close()


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port where somebody listens, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_connecting_is_given_up_in_time_and_no_password_is_told(deaf: int) -> None:
    ledger = PostgresLedger(
        f"postgresql://app:hunter2@127.0.0.1:{deaf}/app?sslmode=disable", retry_for=0.0, connect_timeout=0.2
    )
    ledger.open()
    with pytest.raises(StorageUnavailableError) as raised:
        await asyncio.wait_for(ledger.check(), 5)
    await ledger.close()
    store = GuardedStorage(MemoryStorage(), ledger)
    assert "hunter2" not in f"{raised.value}{raised.value!r}{ledger!r}{store!r}"
    assert f"app@127.0.0.1:{deaf}/app" in repr(ledger)


@pytest.mark.parametrize(
    ("dsn", "options", "named"),
    [
        ("mysql://localhost/app", {}, "dsn"),
        ("postgresql://u:p/w@localhost/app", {}, "dsn"),
        ("postgresql://localhost/app", {"schema": "a$b"}, "schema"),
        ("postgresql://localhost/app", {"pool_size": 0}, "pool_size"),
        ("postgresql://localhost/app", {"retry_for": -1}, "retry_for"),
        ("postgresql://localhost/app", {"connect_timeout": 0}, "connect_timeout"),
        ("postgresql://localhost/app", {"statement_timeout": float("nan")}, "statement_timeout"),
        ("postgresql://localhost/app", {"lock_timeout": "1"}, "lock_timeout"),
    ],
)
def test_bad_options_of_a_ledger_are_named(dsn: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named) as raised:
        PostgresLedger(dsn, **options)
    assert "p/w" not in str(raised.value)


async def test_tls_is_asked_for_in_the_url(schema: str) -> None:
    """The server of these tests has none: whoever insists on it does not get a plain connection."""
    parts = urlsplit(postgres_url())
    ledger = PostgresLedger(urlunsplit(parts._replace(query="sslmode=require")), schema, retry_for=0.0)
    ledger.open()
    with pytest.raises(StorageUnavailableError, match="SSL"):
        await ledger.check()
    await ledger.close()


# -- sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "job"),
    [
        ("q", NewJob("i" * 257, b"")),
        ("q", NewJob("a\nb", b"")),
        ("q" * 300, NewJob("a", b"")),
        ("q", NewJob("a", b"", group="g" * 300)),
        ("q", NewJob("a", b"", task="t" * 300)),
        ("q", NewJob("a", b"", priority=5000)),
        ("q", NewJob("a", b"", headers=b"h" * (1 << 20))),
    ],
    ids=["id", "control", "queue", "group", "task", "priority", "headers"],
)
async def test_what_is_too_large_reaches_neither_ledger_nor_store(
    store: GuardedStorage, schema: str, queue: str, job: NewJob
) -> None:
    with pytest.raises(InvalidArgumentError):
        await store.insert(queue, [NewJob("good", b""), job])
    assert await rows(schema) == []
    assert await store.queues() == []


async def test_a_payload_over_the_limit_of_a_queue_is_in_no_ledger(
    store: GuardedStorage, schema: str
) -> None:
    async with Queue[str, None](store, "q", max_payload_bytes=1000) as queue:
        with pytest.raises(InvalidArgumentError, match="payload"):
            await queue.enqueue("large", "x" * 1000)
        await queue.enqueue("small", "x" * 900)
    assert await rows(schema, "id") == [("small",)]


async def test_large_outcomes_are_read_in_pieces(
    redis: Server, store: GuardedStorage, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"job-{number}" for number in range(7)]
    results = {id: id.encode() + bytes(RESULT) for id in ids}
    await store.insert("q", [NewJob(id, b"") for id in ids])
    jobs = (await store.exchange("q", "w", [], 7, 60_000)).jobs
    done = [Settlement(job.id, job.fence, Action.COMPLETE, results[job.id], 600_000) for job in jobs]
    await store.exchange("q", "w", done, 0, 60_000)
    await told(store)
    redis.command("FLUSHALL")
    ledger, largest = store._open_session().ledger, 0
    fetch = ledger._fetch

    async def measured(text: str, *args: Any) -> list[Any]:
        nonlocal largest
        found = await fetch(text, *args)
        largest = max(largest, sum(len(value) for row in found for value in row if isinstance(value, bytes)))
        return found

    monkeypatch.setattr(ledger, "_fetch", measured)
    answers = await store.insert("q", [NewJob(id, b"") for id in ids])
    assert [(one.state, one.data) for one in answers] == [(JobState.COMPLETED, results[id]) for id in ids]
    tokens = [row[0].hex for row in await rows(schema, "token")]
    assert {data for _, data in (await ledger.ended(tokens)).values()} == set(results.values())
    assert RESULT < largest <= MOST_BYTES


# -- clocks -------------------------------------------------------------------------------------------


async def test_a_doubt_from_before_the_clock_of_the_ledger_was_known_is_kept(
    store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store._open_session()
    time = SYSTEM_CLOCK.time
    monkeypatch.setattr(type(SYSTEM_CLOCK), "time", lambda _self: time() - 3600.0)
    session._ledger_began = None  # as if it had been away so far
    session._has_lost()
    assert session.doubts
    session._asks_for_doubt = True
    assert await session.in_doubt()
    assert session._doubt_until < session.now() + 601_000
