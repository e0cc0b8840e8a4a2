"""PostgreSQL goes away, and comes back: the queue goes on, or refuses, as it was told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobqueue import InvalidArgumentError, StorageUnavailableError, UnsupportedError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.findings import Severity
from jobqueue.storage.guard import GuardedStorage, PostgresLedger, outbox
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import InsertStatus, NewJob
from tests.services import Server
from tests.storage.guard.support import EMPTY, rows
from tests.storage.postgres.server import PostgresServer, postgres_url
from tests.storage.postgres.support import connection
from tests.support import WireStorage, until


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    made = PostgresServer(fsync=True).create()
    made.start()
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LAST", 0.3)
    monkeypatch.setattr(outbox, "AGAIN", 0.1)


@pytest.fixture
def postgres(database: PostgresServer) -> Iterator[PostgresServer]:
    yield database
    if database.process is None:
        database.start()


@asynccontextmanager
async def guarded(redis: Server, postgres: PostgresServer, **options: Any) -> AsyncIterator[GuardedStorage]:
    ledger = PostgresLedger(postgres.url, retry_for=0.1, connect_timeout=1.0)
    store = GuardedStorage(RedisStorage(redis.url), ledger, breaker_failures=2, breaker_reset=0.2, **options)
    await store.apply_schema()
    async with connection(postgres.url) as admin:
        await admin.execute(EMPTY.format(s="jobqueue_ledger"))
    await store.open()
    yield store
    await store.close()


async def ledger_of(postgres: PostgresServer) -> dict[str, int]:
    async with connection(postgres.url) as admin:
        found = await admin.fetch("select id, state from jobqueue_ledger.job")
    return {row["id"]: row["state"] for row in found}


async def test_the_queue_goes_on_and_the_ledger_hears_of_it_later(
    redis: Server, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobqueue")
    async with guarded(redis, postgres) as store:
        await store.insert("q", [NewJob("before", b"")])
        postgres.kill()
        answers = [(await store.insert("q", [NewJob(f"job-{n}", b"")]))[0] for n in range(20)]
        assert {answer.status for answer in answers} == {InsertStatus.CREATED}
        (again,) = await store.insert("q", [NewJob("job-0", b"")])
        assert again.status is InsertStatus.FOUND
        jobs = (await store.exchange("q", "w", [], 5, 60_000)).jobs
        done = [Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000) for job in jobs]
        await store.exchange("q", "w", done, 0, 60_000)
        assert store.guard.buffered >= 20
        await until(lambda: store.guard.breaker != "closed")
        with pytest.raises(StorageUnavailableError):
            await store.guard.stats()
        assert "the ledger does not take what the store takes" in caplog.text
        postgres.start()
        await until(lambda: store.guard.buffered == 0)
        await until(lambda: store.guard.breaker == "closed")
        await asyncio.sleep(0.1)
        ledger = await ledger_of(postgres)
        assert sorted(ledger) == sorted(["before", *(f"job-{n}" for n in range(20))])
        assert [ledger[job.id] for job in jobs] == [5] * 5
        assert (await store.guard.stats()).completed == 5
        assert "the ledger answers again" in caplog.text
        redis.command("FLUSHALL")
        assert (await store.guard.reconcile()).requeued == 16


async def test_nothing_is_enqueued_without_the_ledger_if_so_told(
    redis: Server, postgres: PostgresServer
) -> None:
    async with guarded(redis, postgres, on_ledger_failure="refuse") as store:
        await store.insert("q", [NewJob("before", b"")])
        postgres.kill()
        with pytest.raises(StorageUnavailableError, match="nothing is enqueued without the ledger"):
            await store.insert("q", [NewJob("a", b"")])
        assert await store.get("q", ["a"]) == [None]
        (job,) = (await store.exchange("q", "w", [], 5, 60_000)).jobs  # what is there is worked on
        assert job.id == "before"
        postgres.start()

        async def takes() -> bool:
            try:
                await store.insert("q", [NewJob("a", b"")])
            except StorageUnavailableError:
                return False
            return True

        async with asyncio.timeout(10):
            while not await takes():
                await asyncio.sleep(0.05)


async def test_a_ledger_that_is_away_at_the_start(redis: Server, postgres: PostgresServer) -> None:
    async with guarded(redis, postgres):
        pass
    postgres.kill()
    ledger = PostgresLedger(postgres.url, retry_for=0.0, connect_timeout=1.0)
    store = GuardedStorage(RedisStorage(redis.url), ledger, breaker_reset=0.1)
    await store.open()
    await store.insert("q", [NewJob("early", b"")])
    (finding,) = [one for one in await store.diagnose() if one.name == "ledger"]
    assert finding.severity is Severity.ERROR
    postgres.start()
    await until(lambda: store.guard.buffered == 0)
    await store.close()
    assert "early" in await ledger_of(postgres)
    postgres.kill()
    refusing = GuardedStorage(
        RedisStorage(redis.url), PostgresLedger(postgres.url, retry_for=0.0), on_ledger_failure="refuse"
    )
    with pytest.raises(StorageUnavailableError):
        await refusing.open()


async def test_what_has_no_room_is_counted_and_told(
    redis: Server, postgres: PostgresServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 10_000)
    heard: list[str] = []
    async with guarded(redis, postgres) as store:
        store.guard.listen(lambda notice: heard.append(notice.kind))
        for outage in (1, 2):
            postgres.kill()
            before = store.guard.lost
            for n in range(30):
                await store.insert("q", [NewJob(f"room-{outage}-{n}", b"x" * 1000)])
            assert 0 < store.guard.buffered < 30
            assert store.guard.lost - before == 30 - store.guard.buffered
            assert caplog.text.count("the ledger has been away for too long") == outage, "once each time"
            assert heard.count("dropped") == outage
            postgres.start()
            await until(lambda: store.guard.buffered == 0)
        await asyncio.sleep(0.1)
        await store.insert("q", [NewJob("later", b"x")])
        assert "later" in await ledger_of(postgres)


async def test_both_away(redis: Server, postgres: PostgresServer) -> None:
    ledger = PostgresLedger(postgres.url, retry_for=0.0, connect_timeout=1.0)
    store = GuardedStorage(RedisStorage(redis.url, retry_for=0.2), ledger)
    await store.apply_schema()
    await store.open()
    postgres.kill()
    redis.kill()
    with pytest.raises(StorageUnavailableError):
        await store.insert("q", [NewJob("a", b"")])
    await store.close()


async def test_several_compare_at_once(redis: Server, schema: str) -> None:
    ids = [f"job-{n:04}" for n in range(700)]
    stores = [
        GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema)) for _ in range(5)
    ]
    for store in stores:
        await store.open()
    await stores[0].insert("q", [NewJob(id, b"x") for id in ids])
    redis.command("FLUSHALL")
    cut_off = asyncio.create_task(stores[0].guard.reconcile())
    await asyncio.sleep(0.01)
    cut_off.cancel()
    await asyncio.gather(cut_off, *(store.guard.reconcile() for store in stores[1:]), return_exceptions=True)
    await stores[1].guard.reconcile()
    assert (await stores[1].counts("q")).queued == 700
    claimed = (await stores[1].exchange("q", "w", [], 1000, 60_000)).jobs
    assert [job.id for job in claimed] == ids
    assert [id for id, _ in await rows(schema)] == ids
    for store in stores:
        await store.close()


async def test_errors_are_kept_cut_and_escaped(redis: Server, store: GuardedStorage) -> None:
    await store.insert("q", [NewJob("a", b"")])
    (job,) = (await store.exchange("q", "w\x7f1"[:1], [], 1, 60_000)).jobs
    error = b'{"type":"ValueError","message":"a\\u0000b\\u001b[31m' + b"x" * 9000 + b'"}'
    await store.exchange("q", "w", [Settlement("a", job.fence, Action.FAIL, error, 60_000)], 0, 60_000)
    await until(lambda: store.guard.buffered == 0)
    await asyncio.sleep(0.1)
    enqueued, claimed, failed = await store.guard.history("q", "a")
    assert (enqueued.event, claimed.event, failed.event) == ("enqueued", "claimed", "failed")
    assert (claimed.worker, claimed.attempt) == ("w", 1)
    assert failed.error.startswith("ValueError: a\\x00b\\x1b[31mxxx")
    assert len(failed.error) <= 5000
    assert enqueued.at <= claimed.at <= failed.at
    assert await store.guard.history("q", "nobody") == []
    stats = await store.guard.stats("q")
    assert (stats.dead, stats.total, stats.breaker) == (1, 1, "closed")
    assert (await store.guard.stats("other")).total == 0


async def test_old_rows_are_deleted(redis: Server, schema: str) -> None:
    store = GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema), history_days=1e-7)
    await store.open()
    await store.insert("q", [NewJob("a", b"", ttl=1), NewJob("live", b"")])
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    await store.exchange("q", "w", [Settlement("a", job.fence, Action.COMPLETE, b"", 1)], 0, 60_000)
    await until(lambda: store.guard.buffered == 0)
    await asyncio.sleep(0.2)
    assert await store._open_session().reconciler.clean() == 1
    assert [id for id, _ in await rows(schema)] == ["live"]
    await store.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stuck_after": 59.0}, "stuck_after"),
        ({"interval": 0.0}, "interval"),
        ({"rate": -1.0}, "rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"on_ledger_failure": "ignore"}, "on_ledger_failure"),
        ({"breaker_failures": 0}, "breaker_failures"),
        ({"breaker_reset": float("nan")}, "breaker_reset"),
        ({"history_days": 0.0}, "history_days"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named):
        GuardedStorage(MemoryStorage(), PostgresLedger("postgresql://localhost/x"), **options)


def test_what_cannot_be_guarded() -> None:
    ledger: Any = "postgresql://localhost/x"
    with pytest.raises(InvalidArgumentError, match="ledger"):
        GuardedStorage(MemoryStorage(), ledger)
    with pytest.raises(UnsupportedError, match="a guard"):
        GuardedStorage(WireStorage(MemoryStorage()), PostgresLedger("postgresql://localhost/x"))
    shown = repr(GuardedStorage(MemoryStorage(), PostgresLedger("postgresql://me:secret@localhost/x")))
    assert "secret" not in shown


async def test_listeners_hear_what_befalls_the_guard(
    redis: Server, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    async with guarded(redis, postgres) as store:

        def fails(_notice: Any) -> None:
            raise ValueError("as it must")

        store.guard.listen(fails)
        store.guard.listen(lambda notice: heard.append(notice.kind))
        await store.insert("q", [NewJob("a", b"")])
        postgres.kill()
        await store.insert("q", [NewJob("b", b"")])
        postgres.start()
        await until(lambda: store.guard.buffered == 0)
        redis.command("FLUSHALL")
        await until(lambda: store.guard.losses == 1)
        assert (await store.guard.reconcile()).requeued == 2
        assert (store.guard.brought_back, store.guard.waited) == (2, 0.0)
    assert heard == ["ledger_away", "ledger_back", "store_lost", "brought_back"]
    assert "a listener of the guard has raised" in caplog.text
    with pytest.raises(InvalidArgumentError, match="listener"):
        store.guard.listen(5)  # type: ignore[arg-type]


async def test_back_pressure_is_said_and_measured(
    redis: Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 4_000)
    heard: list[str] = []
    async with guarded(redis, postgres) as store:
        store.guard.listen(lambda notice: heard.append(notice.kind))
        await store.insert("q", [NewJob(f"job-{n}", b"") for n in range(50)])
        for _ in range(10):
            await store.exchange("q", "w", [], 5, 60_000)
        assert store.guard.waited > 0.0
        assert "ledger_slow" in heard


async def test_a_store_that_closes_tries_the_ledger_once_more(
    redis: Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed a moment ago, and would not be asked for ten minutes."""
    monkeypatch.setattr(outbox, "LAST", 5.0)
    ledger = PostgresLedger(postgres.url, retry_for=0.0, connect_timeout=1.0)
    store = GuardedStorage(RedisStorage(redis.url), ledger, breaker_failures=1, breaker_reset=600.0)
    await store.apply_schema()
    await store.open()
    postgres.kill()
    await store.insert("q", [NewJob("kept until the end", b"")])
    assert store.guard.breaker == "open"
    postgres.start()
    await store.close()
    assert "kept until the end" in await ledger_of(postgres)
