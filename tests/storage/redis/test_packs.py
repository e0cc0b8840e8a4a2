"""The index of completed jobs: no call reads more of it than it has to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from tests.services import Server
from tests.storage.redis.load import LEASE

COUNT, TTL = 400, 60_000
IDS = [f"job-{n:04d}" for n in range(COUNT)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture
async def store(server: Server, clock: FakeClock) -> AsyncIterator[RedisStorage]:
    store = RedisStorage(server.url, clock=clock)
    await store.open()
    yield store
    await store.close()


async def end_all(store: RedisStorage, at_once: int, action: Action = Action.COMPLETE) -> None:
    """End jobs at one moment, so many by each call: so many share a pack."""
    await store.insert("q", [NewJob(id, b"", dead_letter_ttl=0) for id in IDS])
    runs = (await store.exchange("q", "w", [], COUNT, LEASE)).jobs
    for at in range(0, COUNT, at_once):
        done = [Settlement(run.id, run.fence, action, b"", TTL) for run in runs[at : at + at_once]]
        await store.exchange("q", "w", done, 0, LEASE)


def entries(server: Server) -> object:
    return server.command("ZCARD", "{jq:q}:completed")


def calls(server: Server, command: str) -> int:
    """Return how often a command ran since the last time."""
    info = server.command("INFO", "commandstats")
    server.command("CONFIG", "RESETSTAT")
    assert isinstance(info, bytes)
    stats = dict(line.split(":") for line in info.decode().split() if line.startswith("cmdstat_"))
    return int(stats.get(f"cmdstat_{command}", "calls=0,").split(",")[0].removeprefix("calls="))


@pytest.mark.parametrize("at_once", [1, COUNT])
async def test_jobs_kept_together_are_moved_together(
    server: Server, store: RedisStorage, at_once: int
) -> None:
    await end_all(store, at_once)
    for ttl in (2 * TTL, 3 * TTL):
        calls(server, "zrangebyscore")
        assert set(await store.set_ttl("q", [(id, ttl) for id in IDS])) == {"updated"}
        assert calls(server, "zrangebyscore") == 1  # all had one expiry
        assert entries(server) == -(-COUNT // 128)
    assert await store.check("q") == []


@pytest.mark.parametrize(
    ("action", "state"), [(Action.COMPLETE, JobState.COMPLETED), (Action.FAIL, JobState.FAILED)]
)
async def test_a_listing_reads_nothing_of_what_has_expired(
    server: Server, store: RedisStorage, clock: FakeClock, action: Action, state: JobState
) -> None:
    await end_all(store, 1, action)
    first = await store.scan("q", state, 10)
    await clock.advance(TTL / 1000)
    calls(server, "hget")
    for cursor in (None, first.cursor):
        assert await store.scan("q", state, 10, cursor) == ([], None)
    assert calls(server, "hget") == 0


@pytest.mark.parametrize("at_once", [1, 2, 100, COUNT])
async def test_what_has_expired_is_counted_and_dropped_exactly(
    server: Server, store: RedisStorage, clock: FakeClock, at_once: int
) -> None:
    await end_all(store, at_once)
    await store.set_ttl("q", [(id, TTL + 1) for id in IDS[:7]])
    await clock.advance(TTL / 1000)
    left = COUNT - 7
    for limit in (0, 1, 127, 129, 65):
        calls(server, "zrem")
        assert await store.purge("q", limit) == limit
        assert calls(server, "zrem") <= 9  # pages, not entries
        left -= limit
        assert (await store.counts("q")).completed == 7
        assert await store.check("q") == []
    assert await store.purge("q", COUNT) == left
    await clock.advance(0.001)
    assert (await store.counts("q")).completed == 0
    assert await store.purge("q", COUNT) == 7
    assert entries(server) == 0
