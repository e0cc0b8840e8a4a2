"""Real servers fail in ways that a mock would not: a replica takes over, a disk is full, comparisons race."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqueue import StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.guard import GuardedStorage, PostgresLedger, outbox
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from tests.services import Server, info_of, redis_binary, wait_until
from tests.storage.guard.load import Load
from tests.storage.guard.support import rows
from tests.storage.guard.test_crashes import in_child
from tests.storage.postgres.server import PostgresServer, postgres_url
from tests.storage.postgres.support import connection
from tests.support import until

HOUR = 3600.0
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "AGAIN", 0.1)


# -- Redis --------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A Redis, and a replica that has all of it."""
    primary = Server(redis_binary(), "--repl-diskless-sync-delay", "0").start()
    replica = Server(redis_binary(), "--replicaof", "127.0.0.1", str(primary.port)).start()
    wait_until(lambda: b"master_link_status:up" in info_of(replica, "replication"), "replication")
    yield primary, replica
    replica.remove()
    primary.remove()


async def test_a_replica_that_lacks_the_last_writes_takes_over(
    pair: tuple[Server, Server], postgres: PostgresServer
) -> None:
    primary, replica = pair
    load = Load(primary, postgres)
    async with load.going_on():
        await load.more(50)
        assert replica.command("REPLICAOF", "NO", "ONE") == b"OK"
        known = len(load.enqueued)
        await load.more(40)  # these go to the old one alone
        newest = load.enqueued[known:]
        primary.kill()
        has = {id for id in newest if replica.command("HEXISTS", "{jq:q}:jobs", id)}
        assert len(has) < len(newest), "writes were lost"
        replica.command("CONFIG", "SET", "port", str(primary.port))  # under the address that clients know
        replica.port = primary.port
    assert sum(load.ran.values()) >= len(load.enqueued)


# -- PostgreSQL ---------------------------------------------------------------------------------------


@pytest.fixture
def limited() -> Iterator[tuple[PostgresServer, Path]]:
    """A PostgreSQL, and a file system of 12 MiB for it."""
    made = PostgresServer()
    made.start()
    path = made.dir / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={12 * MIB},mode=777", "jobqueue-test", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        made.remove()
        pytest.skip("a small file system cannot be mounted here: that takes root and the right to mount")
    shutil.chown(path, made.data.stat().st_uid)
    yield made, path
    made.kill()
    subprocess.run(["umount", path], check=True)
    made.remove()


def _payload(number: int) -> bytes:
    """Return bytes that cannot be compressed."""
    return b"%06d" % number + os.urandom(200_000)


async def test_the_disk_of_the_ledger_is_full(redis: Server, limited: tuple[PostgresServer, Path]) -> None:
    postgres, disk = limited

    def make(**options: str) -> GuardedStorage:
        ledger = PostgresLedger(postgres.url, retry_for=0.1)
        redis_store = RedisStorage(redis.url)
        return GuardedStorage(redis_store, ledger, breaker_failures=2, breaker_reset=0.2, **options)  # type: ignore[arg-type]

    store, strict = make(), make(on_ledger_failure="refuse")
    await store.apply_schema()
    async with connection(postgres.url) as admin:
        await admin.execute(f"create tablespace small location '{disk}'")
        await admin.execute("alter table jobqueue_ledger.job set tablespace small")
    await store.open()
    await strict.open()
    told: list[str] = []
    store.guard.listen(lambda notice: told.append(notice.kind))
    ids: list[str] = []
    async with asyncio.timeout(60):
        while len(ids) < 30 or store.guard.buffered < 5:  # goes on when it is full
            ids.append(f"job-{len(ids):04}")
            await store.insert("q", [NewJob(ids[-1], _payload(len(ids)))])
    assert "ledger_away" in told
    assert store.guard.lost == 0
    with pytest.raises(StorageUnavailableError, match="no room"):
        await strict.insert("q", [NewJob("refused", _payload(0))])
    assert [record and record.id for record in await store._inner.get("q", ["refused"])] == [None]
    assert (await store.counts("q")).queued == len(ids)
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
    async with asyncio.timeout(30):
        while store.guard.buffered or store.guard.breaker != "closed":
            await asyncio.sleep(0.05)
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == len(ids)
    back = []
    while jobs := (await store.exchange("q", "w", [], 10, 60_000)).jobs:
        back += [job.payload[:6] for job in jobs]
    assert sorted(back) == [b"%06d" % number for number in range(1, len(ids) + 1)]
    await strict.close()
    await store.close()


# -- comparisons --------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [2, 5])
def test_processes_that_compare_at_once_bring_each_job_back_once(
    redis: Server, schema: str, many: int
) -> None:
    ids = [f"job-{number:04}" for number in range(1500)]

    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    async def before() -> None:
        store = make()
        await store.open()
        await store.insert("q", [NewJob(id, b"") for id in ids])
        await store.close()
        redis.command("FLUSHALL")

    async def compare() -> None:
        store = make()
        await store.open()
        for _ in range(3):
            await store.guard.reconcile()
        await store.close()

    async def all() -> None:
        children = [in_child(compare, lambda: None) for _ in range(many)]
        assert await asyncio.gather(*children) == [0] * many
        store = make()
        await store.open()
        claimed: list[str] = []
        while jobs := (await store.exchange("q", "w", [], 500, 60_000)).jobs:
            claimed += [job.id for job in jobs]
        assert sorted(claimed) == ids
        assert (await store.guard.reconcile()).requeued == 0
        assert [id for id, state in await rows(schema)] == ids
        await store.close()

    asyncio.run(before())
    asyncio.run(all())


# -- clocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_clock_that_is_set_by_an_hour_loses_and_doubles_nothing(
    redis: Server, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    """Of the process that produces, works and compares."""
    load = Load(redis, postgres)
    async with load.going_on():
        for step in (off, 0.0, off):
            monkeypatch.setattr(type(SYSTEM_CLOCK), "time", staticmethod(lambda by=step: time.time() + by))
            store = load.store()  # one that is opened while the clock is wrong
            await store.open()
            await load.more(40)
            assert (await store.guard.reconcile()).requeued == 0
            await store.close()
    assert set(load.ran.values()) == {1}
    async with connection(postgres.url) as admin:
        requeued = await admin.fetch("select * from jobqueue_ledger.job where requeued > 0")
        assert not requeued, (requeued, await admin.fetch("select * from jobqueue_ledger.store"))


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_wipe_is_mended_by_a_process_whose_clock_is_wrong(
    redis: Server, schema: str, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    right = make()
    await right.open()
    await right.insert("q", [NewJob("now", b""), NewJob("later", b"", delay=int(HOUR * 1000) // 2)])
    before = [record and record.run_at for record in await right.get("q", ["later"])]
    monkeypatch.setattr(type(SYSTEM_CLOCK), "time", staticmethod(lambda: time.time() + off))
    wrong = make()
    await wrong.open()
    redis.command("FLUSHALL")
    assert (await wrong.guard.reconcile()).requeued == 2
    (later,) = await wrong.get("q", ["later"])
    assert later is not None
    assert before[0] is not None
    assert abs(later.run_at - before[0]) < 2_000
    assert [job.id for job in (await wrong.exchange("q", "w", [], 9, 60_000)).jobs] == ["now"]
    assert (await wrong.guard.reconcile()).requeued == 0
    await until(lambda: wrong.guard.buffered == 0)
    await wrong.close()
    await right.close()
