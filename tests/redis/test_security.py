"""A user with the documented rights can do its work, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from jobqueue.errors import StorageError
from jobqueue.job import Action, JobState, Settlement
from jobqueue.storage.base import NewJob, Renewal
from jobqueue.storage.redis import RedisStorage, Severity
from jobqueue.storage.redis.connection import ReplyError
from jobqueue.testing.contract.support import Box
from tests.redis.load import LEASE, Load
from tests.redis.support import run
from tests.services import Server

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "redis.md"


def documented_rule(kind: str = "acl") -> list[str]:
    found = re.search(rf"<!-- {kind} -->\n```text\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found[1].split()


@pytest.fixture
def user_url(server: Server) -> str:
    rule = ["resetpass" if word == ">change-me" else word for word in documented_rule()]
    server.command(*rule, ">secret")
    return f"redis://jobs:secret@127.0.0.1:{server.port}"


@pytest_asyncio.fixture
async def limited(user_url: str) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(user_url)
    await storage.open()
    yield storage
    await storage.close()


async def nothing() -> None:
    import asyncio

    await asyncio.sleep(0.01)


async def test_the_documented_rights_suffice(limited: RedisStorage) -> None:
    box = Box()
    await limited.subscribe("q", "me", box)
    load = Load(limited, 50)
    await load.run(nothing)
    load.verify()
    jobs = [
        NewJob(f"n{i}", b"p", priority=i % 3 - 1, delay=i % 2, wait=True, max_stalls=0) for i in range(20)
    ]
    await limited.insert("q", jobs, reply_to="me", max_length=100)
    await limited.insert("q", jobs[:2], reply_to="me")
    await limited.get("q", ["n1"], reply_to="me", payload=True)
    await limited.cancel("q", ["n4", "n5", "n8"])
    claimed = (await limited.exchange("q", "w", [], 10, 1)).jobs
    await limited.extend("q", "w", [Renewal(claimed[0].id, claimed[0].fence, b"1")], 1)
    await limited.cancel("q", [claimed[0].id], running=True)
    actions = (Action.FAIL, Action.RETRY, Action.RELEASE, Action.COMPLETE)
    done = [Settlement(j.id, j.fence, actions[i % 4], b"x", 1, 1) for i, j in enumerate(claimed[1:6])]
    await limited.exchange("q", "w", done, 0, LEASE)
    await nothing()
    await limited.sweep("q", 100)
    for state in JobState:
        await limited.scan("q", state, 3)
    await limited.keep("q", [("n4", 1)])
    await limited.workers("q")
    await limited.queues()
    assert await limited.acquire("lock", "me", 1000)
    assert await limited.renew("lock", "me", 1000)
    assert not await limited.wait_for_lock("lock", 0.01)
    assert await limited.release("lock", "me")
    assert not await limited.wait_for_work("empty", "w", 0.01)
    assert await limited.check("q") == []
    await nothing()
    await limited.purge("q", 1000)
    findings = {finding.name: finding for finding in await limited.diagnose()}
    assert findings["rights"].severity is Severity.OK, findings["rights"]


@pytest.mark.parametrize(
    "command",
    [
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("GET", "foreign"),
        ("HGET", "foreign", "field"),
        ("HGET", "{other:q}:jobs", "id"),
        ("PUBLISH", "foreign", "x"),
        ("ACL", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SCRIPT", "FLUSH"),
        ("EVAL", "return redis.call('HGET', KEYS[1], 'x')", "1", "foreign"),
        ("EVAL", "return redis.call('HGET', 'foreign', 'x')", "0"),
    ],
    ids=" ".join,
)
async def test_everything_else_is_refused(user_url: str, command: tuple[str, ...]) -> None:
    with pytest.raises(ReplyError, match=r"NOPERM|can't access|No permissions"):
        await run(user_url, *command)


async def test_a_lacking_right_is_reported(server: Server, user_url: str) -> None:
    server.command("ACL", "SETUSER", "jobs", "-blmove", "-subscribe", "-hset")
    storage = RedisStorage(user_url)
    await storage.open()
    with pytest.raises(StorageError, match="rights"):
        await storage.insert("q", [NewJob("a", b"")])
    with pytest.raises(StorageError, match="rights"):
        await storage.wait_for_work("q", "w", 10)
    with pytest.raises(StorageError, match="rights"):
        await storage.subscribe("q", "me", Box())
    findings = {finding.name: finding for finding in await storage.diagnose()}
    assert findings["rights"].severity is Severity.ERROR
    await storage.close()
