"""Fill a store, and write down what is in its keys and how it answers.

``python -P tests/redis/data/write.py URL DIRECTORY`` with version 0.1.0 installed, on an empty server.
Later versions have to answer the same from the same keys: see tests/redis/test_upgrade.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from jobqueue.job import Action, Settlement  # type: ignore[import-not-found]
from jobqueue.storage.base import Claimed, NewJob, Renewal  # type: ignore[import-not-found]

from jobqueue.storage.redis import RedisStorage
from jobqueue.testing import FakeClock

LEASE, TTL, LATER = 60_000, 10**9, 10**8
READERS = {
    "hash": "HGETALL",
    "list": "LRANGE 0 -1",
    "set": "SMEMBERS",
    "zset": "ZRANGE 0 -1 WITHSCORES",
    "string": "GET",
}


class Writer:
    """Makes every call that leaves something behind."""

    def __init__(self, url: str) -> None:
        self.clock = FakeClock()
        self.store = RedisStorage(url, clock=self.clock)

    async def insert(self, *ids: str, waiter: str | None = None, **options: Any) -> None:
        jobs = [
            NewJob(id, b"payload of " + id.encode(), ttl=TTL, wait=waiter is not None, **options)
            for id in ids
        ]
        await self.store.insert("q", jobs, reply_to=waiter)

    async def claim(self, limit: int = 1, *, lease: int = LEASE) -> list[Claimed]:
        return list((await self.store.exchange("q", "worker", [], limit, lease)).jobs)

    async def run(
        self, *ids: str, lease: int = LEASE, waiter: str | None = None, **options: Any
    ) -> list[Claimed]:
        """Insert jobs in front of all others and claim them."""
        await self.insert(*ids, priority=1000, waiter=waiter, **options)
        return await self.claim(len(ids), lease=lease)

    async def settle(self, jobs: list[Claimed], action: Action, data: bytes = b"", *, delay: int = 0) -> None:
        settlements = [Settlement(job.id, job.fence, action, data, TTL, delay) for job in jobs]
        await self.store.exchange("q", "worker", settlements, 0, LEASE)

    async def write(self) -> None:
        await self.run("dead", "dead-asked", lease=1)
        await self.store.cancel("q", ["dead-asked"], running=True)
        await self.run("dead-too-often", lease=1, max_stalls=0)
        await self.run("runs", "runs-waited-for", waiter="a-caller", lease=TTL)
        [asked] = await self.run("runs-asked", lease=TTL)
        await self.store.extend("q", "worker", [Renewal(asked.id, asked.fence, b"progress")], TTL)
        await self.store.cancel("q", ["runs-asked"], running=True)
        await self.settle(
            await self.run("completed-0", "completed-1", waiter="a-caller"), Action.COMPLETE, b"result"
        )
        await self.settle(await self.run("failed"), Action.FAIL, b"error")
        await self.settle(await self.run("failing", waiter="a-caller"), Action.RETRY, b"error", delay=LATER)
        await self.settle(await self.run("failing-due"), Action.RETRY, b"error", delay=1)
        await self.settle(await self.run("released"), Action.RELEASE)
        await self.insert("ready-0", "ready-1", "ready-2")
        await self.insert("ready-waited-for", waiter="a-caller")
        await self.insert(
            "ready-waited-for", waiter="another caller with a name that is longer than a mailbox"
        )
        await self.insert("urgent", "also-urgent", priority=7)
        await self.insert("patient", priority=-7)
        await self.insert("cancelled", "cancelled-urgent", "cancelled-scheduled")
        await self.store.cancel("q", ["cancelled", "cancelled-urgent", "cancelled-scheduled"])
        await self.insert("scheduled", "scheduled-waited-for", delay=LATER, waiter="a-caller")
        await self.insert("scheduled-due", delay=2)
        await self.insert("short-lived")


async def main(url: str, directory: Path) -> None:
    writer = Writer(url)
    await writer.store.open()
    await writer.write()
    session: Any = writer.store._session
    keys: dict[str, list[Any]] = {}
    cursor = b"0"
    while True:
        cursor, found = await session.transport.command(b"SCAN", cursor)
        for key in found:
            kind = (await session.transport.command(b"TYPE", key)).decode()
            reader, *rest = READERS[kind].encode().split()
            values = await session.transport.command(reader, key, *rest)
            keys[key.decode()] = [kind, [value.hex() for value in values]]
        if cursor == b"0":
            break
    ids = sorted(bytes.fromhex(id).decode() for id in keys["{jq:q}:jobs"][1][::2])
    records = await writer.store.get("q", ids, payload=True)
    (directory / "keys.json").write_text(json.dumps(dict(sorted(keys.items())), indent=1) + "\n")
    answers = {
        record.id: {name: str(value) for name, value in record._asdict().items()} for record in records
    }
    (directory / "records.json").write_text(json.dumps(answers, indent=1) + "\n")
    await writer.store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
