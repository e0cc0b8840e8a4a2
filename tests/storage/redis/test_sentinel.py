"""A real set of sentinels, and a failover."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob, SettleStatus
from jobqueue.testing.contract.support import Box
from tests.services import BINARIES, Sentinels, info_of, wait_until
from tests.storage.redis.load import LEASE, Load


@pytest.fixture
def sentinels(flavour: str) -> Iterator[Sentinels]:
    sentinels = Sentinels(BINARIES[flavour]())
    try:
        yield sentinels.start()
    finally:
        sentinels.remove()


async def test_a_failover(sentinels: Sentinels) -> None:
    storage = RedisStorage(sentinels.url, retry_for=30.0)
    await storage.open()
    box = Box()
    await storage.subscribe("q", "me", box)
    load = Load(storage, 30)
    await load.run(lambda: SYSTEM_CLOCK.sleep(0.05))
    load.verify()
    await storage.insert("q", [NewJob("held", b"")])
    [held] = (await storage.exchange("q", "w", [], 1, LEASE)).jobs
    wait_until(
        lambda: offset(sentinels.master, "master") == offset(sentinels.replica, "slave"), "the replica"
    )
    sentinels.master.kill()
    await storage.insert("q", [NewJob("after", b"", wait=True)], reply_to="me")  # waits for the new master
    assert b"role:master" in info_of(sentinels.replica, "replication")
    done = Settlement("held", held.fence, Action.COMPLETE, b"r", 1000)
    answer = await storage.exchange("q", "w", [done], 1, LEASE)
    assert answer.settled == [SettleStatus.ACCEPTED]
    [after] = answer.jobs
    assert after.fence > held.fence
    async with asyncio.timeout(20):  # from then on replies come from the new master
        while not box.resyncs:
            await SYSTEM_CLOCK.sleep(0.01)
    await storage.exchange("q", "w", [Settlement("after", after.fence, Action.COMPLETE, b"1")], 0, LEASE)
    assert (await box.reply()).id == "after"
    assert await storage.check("q") == []
    await storage.close()


def offset(server: object, role: str) -> bytes:
    field = b"master_repl_offset:" if role == "master" else b"slave_repl_offset:"
    return next(line for line in info_of(server, "replication").split() if line.startswith(field))[
        len(field) :
    ]  # type: ignore[arg-type]


async def test_an_unknown_service_is_reported(sentinels: Sentinels) -> None:
    storage = RedisStorage(sentinels.url.replace("/main/", "/other/"), retry_for=0.2)
    with pytest.raises(StorageUnavailableError, match="other"):
        await storage.open()
