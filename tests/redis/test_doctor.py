"""What the start-up check and the doctor say, and what the data check finds."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from jobqueue.errors import StorageError
from jobqueue.storage.base import NewJob
from jobqueue.storage.redis import RedisStorage, Severity
from jobqueue.storage.redis.checks import judge
from tests.redis.load import LEASE
from tests.services import Server, free_port


async def test_an_evicting_server_is_refused(start_server: Callable[..., Server]) -> None:
    server = start_server("--maxmemory-policy", "allkeys-lru")
    storage = RedisStorage(server.url)
    with pytest.raises(StorageError, match="allow_eviction=True"):
        await storage.open()
    allowed = RedisStorage(server.url, allow_eviction=True)
    await allowed.open()
    findings = {f.name: f for f in await allowed.diagnose()}
    assert findings["eviction"].severity is Severity.WARNING
    await allowed.close()


async def test_a_server_that_keeps_nothing_and_a_replica_are_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    storage = RedisStorage(server.url)
    with caplog.at_level(logging.WARNING, "jobqueue.redis"):
        await storage.open()
    assert "appendonly is off" in caplog.text
    assert "replica" in caplog.text
    await storage.close()


async def test_a_good_server_has_no_findings(start_server: Callable[..., Server]) -> None:
    server = start_server("--appendonly", "yes")
    storage = RedisStorage(server.url)
    await storage.open()
    findings = await storage.diagnose()
    assert {f.severity for f in findings} == {Severity.OK}, findings
    assert {f.name for f in findings} == {
        "version", "eviction", "role", "persistence", "latency", "clock", "rights",
    }  # fmt: skip
    assert await storage.queues() == []  # the probe is gone
    await storage.close()


@pytest.mark.parametrize(
    ("info", "severity"),
    [
        ({"redis_version": "6.0.20"}, Severity.ERROR),
        ({"redis_version": "6.2.0"}, Severity.OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, Severity.OK),
        ({"redis_version": "10.0.0"}, Severity.OK),
        ({}, Severity.WARNING),
    ],
)
def test_versions(info: dict[str, str], severity: Severity) -> None:
    [finding] = [f for f in judge(info, allow_eviction=False) if f.name == "version"]
    assert finding.severity is severity


DAMAGE = {
    "a record without index": ("LPOP", "{jq:q}:ready"),
    "an index without record": ("HDEL", "{jq:q}:jobs", "d"),
    "a run that is not running": ("HDEL", "{jq:q}:running", "a"),
    "a run without record": ("HDEL", "{jq:q}:jobs", "a"),
    "a job in two indexes": ("ZADD", "{jq:q}:completed", "5", "c"),
    "a schedule of another time": ("ZINCRBY", "{jq:q}:scheduled", "5", None),
    "a lost counter": ("HDEL", "{jq:q}:meta", "blanks"),
    "an unknown queue": ("SREM", "jq:queues", "q"),
    "a record of garbage": ("HSET", "{jq:q}:jobs", "b", "garbage"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_the_check_finds(server: Server, storage: RedisStorage, damage: str) -> None:
    await storage.insert("q", [NewJob(id, b"") for id in "abcd"] + [NewJob("s", b"", delay=60_000)])
    await storage.exchange("q", "w", [], 1, LEASE)
    await storage.insert("q", [NewJob("p", b"", priority=1)])
    await storage.cancel("q", ["c"])
    await storage.insert("q", [NewJob("c", b"")])
    assert await storage.check("q") == []
    command = list(DAMAGE[damage])
    if command[-1] is None:
        members = server.command("ZRANGE", "{jq:q}:scheduled", "0", "0")
        assert isinstance(members, list)
        command[-1] = members[0]
    server.command(*command)  # type: ignore[arg-type]
    assert await storage.check("q") != []
