"""A store that an earlier version wrote answers the same, and goes on; one of a later version is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.data_format import FORMAT
from jobqueue.storage.values import CancelStatus, InsertStatus, NewJob, Renewal, Reuse
from jobqueue.testing import FakeClock
from jobqueue.testing.contract.support import Box
from tests.services import Server

DATA = Path(__file__).parent / "data"
VERSIONS = sorted(path.name for path in DATA.iterdir() if path.is_dir() and path.name[0] != "_")
WRITERS = {"hash": "HSET", "list": "RPUSH", "set": "SADD", "zset": "ZADD", "string": "SET"}
LEASE = 60_000


@pytest.fixture(params=VERSIONS)
def written(request: pytest.FixtureRequest, server: Server) -> Path:
    """Write the keys of a version to a server; see tests/storage/redis/data/write.py."""
    directory = DATA / str(request.param)
    for key, (kind, values) in json.loads((directory / "keys.json").read_text()).items():
        parts = [bytes.fromhex(value) for value in values]
        if kind == "zset":  # read as member and score, written as score and member
            parts = [part for at in range(0, len(parts), 2) for part in (parts[at + 1], parts[at])]
        server.command(WRITERS[kind], key, *parts)
    return directory


def keys(server: Server) -> list[bytes]:
    found = server.command("KEYS", "*")
    assert isinstance(found, list)
    return sorted(found)


async def opened(server: Server, seconds: float = 0.0) -> tuple[RedisStorage, FakeClock]:
    clock = FakeClock()
    clock.move(seconds)
    store = RedisStorage(server.url, clock=clock)
    await store.open()
    return store, clock


async def test_it_answers_as_the_version_that_wrote_it(written: Path, server: Server) -> None:
    expected = json.loads((written / "records.json").read_text())
    for _ in range(2):
        store, _ = await opened(server)
        records = await store.get("q", list(expected), payload=True)
        for record in records:
            assert record is not None
            fields = expected[record.id]
            assert {name: str(value) for name, value in record._asdict().items() if name in fields} == fields
        assert await store.check() == []
        listed = [r.id for state in JobState for r in (await store.scan("q", state, 100)).records]
        assert sorted(listed) == sorted(expected)
        await store.close()
    assert server.command("GET", "jq:format") == b"%d" % FORMAT


async def test_it_runs_to_its_end(written: Path, server: Server) -> None:
    expected = json.loads((written / "records.json").read_text())
    store, clock = await opened(server, 1.0)
    swept = {job.id: job.state for job in await store.sweep("q", 100)}
    assert swept == {
        "dead": JobState.QUEUED, "dead-asked": JobState.CANCELLED, "dead-too-often": JobState.FAILED,
    }  # fmt: skip
    box = Box()
    await store.subscribe("q", "new-caller", box)
    ended = {id for id, state in swept.items() if state is not JobState.QUEUED}
    live = [id for id, fields in expected.items() if fields["expires_at"] == "None" and id not in ended]
    await store.get("q", live, reply_to="new-caller")
    running = [id for id in live if id.startswith("runs")]
    fences = {id: int(expected[id]["fence"]) for id in running}
    await store.extend("q", "worker", [Renewal(id, fences[id], b"p", b"saved") for id in running], LEASE)
    done = [Settlement(id, fences[id], Action.RETRY, b"e", 10**9) for id in running]
    await store.exchange("q", "worker", done, 0, LEASE)
    claimed: list[str] = []
    for delay in (0.0, 10.0**6):
        clock.move(delay)
        while jobs := (await store.exchange("q", "new", [], 10, LEASE)).jobs:
            claimed += [job.id for job in jobs]
            for job in jobs:
                if job.id in {"runs", "runs-waited-for"}:
                    assert job.saved == b"saved"
                    assert [attempt.error for attempt in job.history] == [b""]
                assert job.payload == b"payload of " + job.id.encode()
            assert await store.check() == []
            done = [Settlement(job.id, job.fence, Action.COMPLETE, b"r", 10**9) for job in jobs]
            await store.exchange("q", "new", done, 0, LEASE)
    assert sorted(claimed) == sorted(set(live) - {"runs-asked"})
    urgent = ["urgent", "also-urgent"]
    assert [id for id in claimed if id in urgent] == urgent
    await box.take(replies=len(live))
    assert sorted(reply.id for reply in box.replies) == sorted(live)
    assert await store.check() == []
    counts = await store.counts("q")
    assert (counts.queued, counts.scheduled, counts.failing, counts.processing) == (0, 0, 0, 0)
    clock.move(10**7)
    assert await store.purge("q", 1000)
    server.command("DEL", "{jq:q}:meta")  # as if nobody had used it for ten minutes
    await store.purge("q", 1000)
    await store.close()
    assert keys(server) == [b"jq:format"]


async def test_its_jobs_are_found_replaced_cancelled_and_deleted(written: Path, server: Server) -> None:
    expected = json.loads((written / "records.json").read_text())
    store, _ = await opened(server, 1.0)
    jobs = [NewJob(id, b"new", reuse=Reuse.RERUN, task="t") for id in expected]
    created = [a.status is InsertStatus.CREATED for a in await store.insert("q", jobs)]
    ended = [fields["expires_at"] != "None" for fields in expected.values()]
    assert created == ended
    assert await store.check() == []
    statuses = await store.cancel("q", list(expected))
    running = sum(fields["state"] == "processing" for fields in expected.values())
    assert statuses.count(CancelStatus.CANCELLED) == len(expected) - running
    assert (await store.forget("q", list(expected))).count(True) == len(expected) - running
    assert await store.check() == []
    await store.close()


@pytest.mark.parametrize("number", [b"3", b"17", b"x", b"", b"9" * 50])
async def test_a_store_of_a_later_format_is_refused(server: Server, number: bytes) -> None:
    server.command("SET", "jq:format", number)
    store = RedisStorage(server.url)
    with pytest.raises(StorageError, match="format") as raised:
        await store.open()
    text = str(raised.value)
    assert "another prefix" in text
    if number in {b"3", b"17"}:
        assert f"format {number.decode()}" in text
        assert f"up to {FORMAT}: upgrade jobqueue" in text
    assert server.command("GET", "jq:format") == number
    other = RedisStorage(server.url, "other")
    await other.open()
    await other.close()
