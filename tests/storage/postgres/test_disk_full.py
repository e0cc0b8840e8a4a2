"""A disk that is full. Needs a small file system, which only root can mount."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from jobqueue.errors import QueueFullError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.values import InsertStatus, NewJob
from tests.storage.postgres.server import PostgresServer
from tests.storage.postgres.support import connection

BOUND = 120.0
MIB = 1 << 20
PIECE = 200_000

Mount = Callable[[Path, int], None]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[PostgresServer]:
    made = PostgresServer(settings={"autovacuum": "off", "max_wal_size": "64MB"})
    yield made
    made.remove()


@pytest.fixture
def mount(server: PostgresServer) -> Iterator[Mount]:
    """Mount a file system of so many bytes at a directory of the server."""
    mounted: list[Path] = []

    def mount_at(path: Path, size: int) -> None:
        path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "jobqueue-test", str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here: that takes root and the right to mount")
        mounted.append(path)

    yield mount_at
    server.kill()
    for path in mounted:
        subprocess.run(["umount", path], check=True)


def payload(n: int) -> bytes:
    """Return bytes that cannot be compressed."""
    return b"%d" % n + os.urandom(PIECE)


async def fill(store: PostgresStorage, acknowledged: list[str]) -> None:
    """Insert jobs until that fails, and note those that were made."""
    for n in range(1000):
        await store.insert("q", [NewJob(f"{n}", payload(n))])
        acknowledged.append(f"{n}")


async def test_a_full_table_refuses_jobs_and_nothing_else(server: PostgresServer, mount: Mount) -> None:
    small = server.dir / "small"
    server.start()
    mount(small, 24 * MIB)
    shutil.chown(small, server.data.stat().st_uid)
    reserve = small / "reserve"
    reserve.write_bytes(bytes(MIB))
    store = PostgresStorage(server.url)
    await store.apply_schema()
    async with connection(server.url) as admin:
        await admin.execute(f"create tablespace small location '{small}'")
        await admin.execute("alter table jobqueue.job set tablespace small")
        async with asyncio.timeout(BOUND):
            await store.open()
            acknowledged: list[str] = []
            with pytest.raises(QueueFullError, match="no room"):
                await fill(store, acknowledged)
            made = len(acknowledged)
            assert made > 20
            assert (await store.counts("q")).queued == made
            ran = 0
            while jobs := (await store.exchange("q", "w", (), 10, 60_000)).jobs:
                done = [Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000) for job in jobs]
                assert set((await store.exchange("q", "w", done, 0, 60_000)).settled) == {"accepted"}
                ran += len(jobs)
            assert ran == made
            assert await store.forget("q", acknowledged) == [True] * made
            reserve.unlink()  # vacuum itself needs some pages
            await admin.execute("vacuum jobqueue.job")  # as autovacuum does
            (inserted,) = await store.insert("q", [NewJob("again", payload(0))])
            assert inserted.status is InsertStatus.CREATED
            assert await store.check() == []
            await store.close()


async def test_a_full_disk_ends_the_server_and_loses_nothing(server: PostgresServer, mount: Mount) -> None:
    mount(server.dir, 200 * MIB)
    server.settings |= {"fsync": "on", "synchronous_commit": "on"}
    server.start()
    store = PostgresStorage(server.url, retry_for=2.0)
    await store.apply_schema()
    filler = server.dir / "filler"
    async with asyncio.timeout(BOUND):
        await store.open()
        free = os.statvfs(server.dir)
        filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 4 * MIB)))
        acknowledged: list[str] = []
        # Without room for its log of changes the server ends, and ends again when it starts by itself.
        with pytest.raises((QueueFullError, StorageUnavailableError)):
            await fill(store, acknowledged)
        await asyncio.to_thread(server.kill)
        filler.unlink()
        await asyncio.to_thread(server.start)
        records = await store.get("q", acknowledged)
        assert [record and record.id for record in records] == acknowledged
        await store.insert("q", [NewJob("again", b"")])
        await store.close()
    assert await store.check() == []
