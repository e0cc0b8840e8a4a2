"""What the start-up check and the doctor say, and what the data check finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobqueue.errors import StorageError
from jobqueue.storage.redis import RedisStorage, Severity
from jobqueue.storage.redis.net.server_checks import is_modern, judge, judge_all
from jobqueue.storage.values import NewJob
from tests.services import Server, free_port
from tests.storage.redis.load import LEASE


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


async def test_a_server_that_keeps_nothing_is_warned_of_once_by_a_worker_and_not_by_producers(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> int:
        return sum("appendonly is off" in text for text in caplog.messages)

    storages = [RedisStorage(server.url) for _ in range(4)]
    for storage in storages:
        await storage.open()
        await storage.insert("q", [NewJob("a", b"")])
        await storage.get("q", ["a"], reply_to="me")
    assert warnings() == 0
    for storage in storages[:3]:
        await storage.exchange("q", "w", [], 1, LEASE)
    await storages[3].sweep("q", 10)
    assert warnings() == 1
    for storage in storages:
        await storage.close()


async def test_a_reaper_warns_too(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.command("REPLICAOF", "127.0.0.1", str(free_port()))
    storage = RedisStorage(server.url)
    await storage.open()
    server.command("REPLICAOF", "NO", "ONE")
    await storage.sweep("q", 10)
    assert "the server is a replica" in caplog.text
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


def info(**values: str) -> bytes:
    healthy = {
        "redis_version": "7.0.15",
        "maxmemory_policy": "noeviction",
        "role": "master",
        "aof_enabled": "1",
    }
    return "".join(f"{name}:{value}\r\n" for name, value in {**healthy, **values}.items()).encode()


def test_the_worst_of_all_masters_counts_and_those_that_differ_are_named() -> None:
    infos = {"a:1": info(), "b:2": info(redis_version="6.0.9"), "c:3": info(aof_enabled="0"), "d:4": None}
    findings = {finding.name: finding for finding in judge_all(infos, allow_eviction=False)}
    assert {name: finding.severity for name, finding in findings.items()} == {
        "version": Severity.ERROR, "eviction": Severity.OK, "role": Severity.OK,
        "persistence": Severity.WARNING, "nodes": Severity.WARNING,
    }  # fmt: skip
    assert findings["version"].text.startswith("a:1, c:3: Redis 7.0; b:2: Redis 6.0 is too old")
    assert "c:3: appendonly is off" in findings["persistence"].text
    assert "d:4" in findings["nodes"].text
    assert findings["eviction"].text == "maxmemory-policy is noeviction"


def test_one_old_master_makes_all_be_treated_as_old() -> None:
    assert is_modern({"a:1": info(), "b:2": info(redis_version="7.2.4", valkey_version="9.1.2"), "c:3": None})
    assert not is_modern({"a:1": info(), "b:2": info(redis_version="6.2.14")})
    assert is_modern({"a:1": b""}), "a server that tells nothing"


DAMAGE = {
    "a record without index": ("LPOP", "{jq:q}:ready"),
    "an index without record": ("HDEL", "{jq:q}:jobs", "d"),
    "a run that is not running": ("HDEL", "{jq:q}:running", "a"),
    "a run without record": ("HDEL", "{jq:q}:jobs", "a"),
    "a job in two indexes": ("ZADD", "{jq:q}:completed", "5", "c"),
    "a schedule of another time": ("ZINCRBY", "{jq:q}:scheduled", "5", None),
    "a job that has to start in time, and nobody looks": ("DEL", "{jq:q}:expiring"),
    "another time to start": ("ZINCRBY", "{jq:q}:expiring", "5", None),
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
    await storage.insert("q", [NewJob("x", b"", expires=600_000)])
    assert await storage.check("q") == []
    command = list(DAMAGE[damage])
    if command[-1] is None:
        members = server.command("ZRANGE", str(command[1]), "0", "0")
        assert isinstance(members, list)
        command[-1] = members[0]
    server.command(*command)  # type: ignore[arg-type]
    assert await storage.check("q") != []


async def test_a_job_that_has_started_or_is_gone_need_not_start_in_time_any_more(
    server: Server, storage: RedisStorage
) -> None:
    await storage.insert("q", [NewJob(id, b"", expires=600_000) for id in "abc"])
    await storage.cancel("q", ["a"])
    await storage.forget("q", ["b"])
    assert server.command("ZCARD", "{jq:q}:expiring") == 1
    assert len((await storage.exchange("q", "w", [], 9, LEASE)).jobs) == 1
    assert server.command("EXISTS", "{jq:q}:expiring") == 0
    assert await storage.check("q") == []
