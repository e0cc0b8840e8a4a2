"""A user with the documented rights can do its work, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from jobqueue import Job, Queue
from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.redis import RedisStorage, Severity
from jobqueue.storage.redis.net.connection import ReplyError
from jobqueue.storage.values import NewJob, Renewal
from jobqueue.testing.contract.support import Box
from tests.services import Server
from tests.storage.redis.load import LEASE, Load
from tests.storage.redis.support import run

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "redis.md"


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
    await limited.set_ttl("q", [("n4", 1)])
    await limited.workers("q")
    await limited.queues()
    assert await limited.lock_acquire("lock", "me", 1000)
    assert await limited.lock_renew("lock", "me", 1000)
    assert not await limited.wait_for_lock("lock", 0.01)
    assert await limited.lock_release("lock", "me")
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


# -- rights that are missing -----------------------------------------------------------------------


NEEDED = ["eval", "evalsha", "time", "hset", "hmget", "lpop", "zadd", "lmove", "pexpire", "sismember"]


@pytest.mark.parametrize("command", NEEDED)
async def test_a_refused_command_of_the_scripts_is_named_at_once(
    server: Server, user_url: str, command: str
) -> None:
    server.command("ACL", "SETUSER", "jobs", f"-{command}")
    queue: Queue[int, int] = Queue(user_url, "q")
    with pytest.raises(StorageError, match=rf"(?i)\b{command}\b.*guides/redis.md"):
        await queue.start()


@pytest.mark.parametrize("rule", [("resetkeys", "~jq:*"), ("resetkeys", "~{jq:*")], ids=" ".join)
async def test_refused_keys_are_told_at_once(server: Server, user_url: str, rule: tuple[str, ...]) -> None:
    server.command("ACL", "SETUSER", "jobs", *rule)
    storage = RedisStorage(user_url)
    with pytest.raises(StorageError, match=r"(?i)access.*key.*guides/redis.md"):
        await storage.open()


@pytest.mark.parametrize("command", ["evalsha", "eval", "time"])
async def test_a_command_that_the_server_does_not_have_is_named_at_once(
    start_server: Callable[..., Server], command: str
) -> None:
    server = start_server("--rename-command", command, "")
    storage = RedisStorage(server.url)
    with pytest.raises(StorageError, match=rf"(?i)\b{command}\b"):
        await storage.open()


async def test_a_user_who_may_only_read_can_look(
    server: Server, user_url: str, storage: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    server.command("ACL", "SETUSER", "jobs", "-@write")
    looking = RedisStorage(user_url)
    await looking.open()
    assert (await looking.counts("q")).queued == 1
    with pytest.raises(StorageError, match="rights"):
        await looking.insert("q", [NewJob("b", b"")])
    await looking.close()


async def test_a_password_is_not_repeated_by_a_server_without_auth(
    start_server: Callable[..., Server],
) -> None:
    server = start_server("--rename-command", "AUTH", "")
    storage = RedisStorage(f"redis://user:hunter2@127.0.0.1:{server.port}")
    with pytest.raises(StorageError, match="AUTH") as raised:
        await storage.open()
    errors, error = "", raised.value.__cause__
    while error is not None:
        errors, error = errors + repr(error), error.__cause__
    assert "hunter2" not in str(raised.value) + errors


OPTIONAL = {
    "client": ["-client|setname", "-client|id", "-client|unblock"],
    "info": ["-info"],
    "blmove": ["-blmove"],
    "subscribe": ["-subscribe"],
    "publish": ["-publish"],
    "channels": ["resetchannels"],
    "ping": ["-ping"],
}


@pytest.mark.parametrize("lacking", [[name] for name in OPTIONAL] + [list(OPTIONAL)], ids="-".join)
async def test_without_some_rights_everything_works_by_polling(
    server: Server,
    user_url: str,
    lacking: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobqueue.client.waiters.REREAD_INTERVAL", 0.5)
    for name in lacking:
        server.command("ACL", "SETUSER", "jobs", *OPTIONAL[name])
    errors: list[object] = []
    ready: list[bool] = []

    async def handler(job: Job[int]) -> int:
        return job.payload + 1

    consumer: Queue[int, int] = Queue(user_url, "q")
    consumer.execute(handler)
    producer: Queue[int, int] = Queue(user_url, "q")
    for queue in (consumer, producer):
        queue.on("error", errors.append)
    async with consumer, producer:
        for i in range(3):
            async with asyncio.timeout(10):
                assert await producer.enqueue_and_wait(f"{i}", i) == i + 1
            ready.append(consumer.ready)
    assert (errors, ready) == ([], [True] * 3)
    told = [record.message for record in caplog.records if record.name == "jobqueue.storage.redis"]
    assert len(told) == len(set(told)), "told more than once"


@pytest.mark.parametrize("name", ["blmove", "subscribe", "publish"])
async def test_the_doctor_tells_what_is_only_slower(server: Server, user_url: str, name: str) -> None:
    server.command("ACL", "SETUSER", "jobs", *OPTIONAL[name])
    storage = RedisStorage(user_url)
    await storage.open()
    findings = {finding.name: finding for finding in await storage.diagnose()}
    assert findings["rights"].severity is Severity.WARNING
    assert name in findings["rights"].text.lower()
    assert findings["rights"].text.count("guides/redis.md") == 1
    await storage.close()


async def test_who_may_listen_again_hears_again(
    server: Server, user_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue.storage.redis.net.pubsub.REFUSED_FOR", 0.2)
    server.command("ACL", "SETUSER", "jobs", "-subscribe")
    storage, box = RedisStorage(user_url), Box()
    await storage.open()
    await storage.subscribe("q", "me", box)
    server.command("ACL", "SETUSER", "jobs", "+subscribe")
    async with asyncio.timeout(10):
        while not box.resyncs:
            await asyncio.sleep(0.01)
    await storage.insert("q", [NewJob("a", b"", wait=True)], reply_to="me")
    await storage.cancel("q", ["a"])
    await box.reply()
    await storage.close()


async def test_a_worker_that_must_poll_looks_every_second(server: Server, user_url: str) -> None:
    server.command("ACL", "SETUSER", "jobs", "-blmove")
    storage, unblocked = RedisStorage(user_url), list[int]()
    await storage.open()
    for _ in range(2):
        assert await asyncio.wait_for(storage.wait_for_work("q", "w", 30), 10)
    assert not await storage.wait_for_work("q", "w", 0.05)

    async def unblock(client: int) -> None:
        unblocked.append(client)

    storage._open_session().signal("q")._unblock = unblock
    await storage.close()
    assert unblocked == [], "there is no command to be ended, and none is waited for"
