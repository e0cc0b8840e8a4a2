"""Insertions that are answered only when replicas, or the disk, have the jobs."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError, StorageError
from jobqueue.storage.redis import Confirm, NotConfirmedError, RedisStorage
from jobqueue.storage.redis.net.confirm import Reached, check_server
from jobqueue.storage.values import InsertStatus, NewJob, Reuse
from tests.services import Server, info_of, wait_until
from tests.storage.redis.proxy import chaos_proxy
from tests.storage.redis.test_security import documented_rule

AOF = ("--appendonly", "yes", "--appendfsync", "everysec")
BRIEFLY = Confirm(replicas=1, timeout=0.3)


@pytest.fixture
def replica(server: Server, start_server: Callable[..., Server]) -> Server:
    """A second server that has all that the first one has."""
    server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    made = start_server("--replicaof", "127.0.0.1", str(server.port))
    server.command("SET", "mark", "1")
    wait_until(lambda: made.command("GET", "mark") == b"1", "replication")
    return made


@asynccontextmanager
async def opened(url: str, confirm: Confirm, **options: Any) -> AsyncIterator[RedisStorage]:
    storage = RedisStorage(url, confirm=confirm, **options)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


def job(id: str) -> list[NewJob]:
    return [NewJob(id, b"")]


async def test_an_answer_means_that_a_replica_has_the_job(server: Server, replica: Server) -> None:
    async with opened(server.url, Confirm(replicas=1, timeout=10)) as storage:
        for i in range(20):
            await storage.insert("q", job(f"job-{i}"))
            assert replica.command("HEXISTS", "{jq:q}:jobs", f"job-{i}") == 1


async def test_a_replica_that_is_behind_is_reported_and_the_job_is_stored(
    server: Server, replica: Server
) -> None:
    async with opened(server.url, BRIEFLY) as storage:
        replica.pause()
        with pytest.raises(NotConfirmedError, match=r"stored.*0 of 1 replicas") as raised:
            await storage.insert("q", job("a"))
        assert raised.value.reached == Reached(False, 0)
        assert raised.value.asked == BRIEFLY
        assert (await storage.counts("q")).queued == 1
        assert await storage.queues() == ["q"]
        replica.resume()
        assert await storage.check("q") == []
    async with opened(server.url, Confirm(replicas=1, timeout=10)) as storage:
        [found] = await storage.insert("q", job("a"))
        assert found.status is InsertStatus.FOUND


async def test_a_job_that_is_found_is_confirmed_too(server: Server, replica: Server) -> None:
    async with opened(server.url, BRIEFLY) as storage:
        replica.pause()
        async with opened(server.url, BRIEFLY) as other:
            with pytest.raises(NotConfirmedError):
                await storage.insert("q", job("a"))
            with pytest.raises(NotConfirmedError):  # although its own connection wrote nothing new
                await other.insert("q", job("a"))
        replica.resume()


async def test_a_repeated_call_is_confirmed_too(server: Server, replica: Server) -> None:
    async with chaos_proxy(server.port) as proxy, opened(proxy.url, BRIEFLY) as storage:
        with suppress(NotConfirmedError):  # connect
            await storage.insert("q", job("first"))
        replica.pause()
        proxy.cut_replies = 1
        with pytest.raises(NotConfirmedError):
            await storage.insert("q", job("a"))
        assert proxy.cuts == 1
        replica.resume()


async def test_nothing_else_waits_for_a_confirmation(server: Server, replica: Server) -> None:
    async with opened(server.url, Confirm(replicas=1, timeout=10)) as storage:
        replica.pause()
        inserting = asyncio.create_task(storage.insert("q", job("a")))
        async with asyncio.timeout(5):
            while not (await storage.exchange("q", "w", [], 1, 1000)).jobs:
                await asyncio.sleep(0.01)
        assert not inserting.done()
        inserting.cancel()  # its place in the row stays: the next one is not answered for it
        next_one = asyncio.create_task(storage.insert("q", job("b")))
        replica.resume()
        [answer] = await asyncio.wait_for(next_one, 10)
        assert answer.status is InsertStatus.CREATED


async def test_the_right_to_wait(server: Server) -> None:
    server.command(*documented_rule(), ">secret")
    url = f"redis://jobs:secret@127.0.0.1:{server.port}"
    confirm = Confirm(replicas=1, timeout=0.05)
    with pytest.raises(StorageError, match=r"(?i)'wait'.*rights"):
        await RedisStorage(url, confirm=confirm).open()
    server.command("ACL", "SETUSER", "jobs", "+wait")
    async with opened(url, confirm) as storage:
        with pytest.raises(NotConfirmedError):
            await storage.insert("q", job("a"))


async def test_a_confirmation_that_nobody_waits_for_holds_up_no_other(server: Server) -> None:
    async with opened(server.url, Confirm(replicas=1, timeout=60)) as storage:
        waiting = asyncio.create_task(storage.insert("q", job("a")))
        async with asyncio.timeout(5):
            while not (await storage.counts("q")).queued:
                await asyncio.sleep(0.01)
        waiting.cancel()
        steps = storage._open_session().steps
        done = await asyncio.wait_for(steps.insert("q", job("b"), None, None, BRIEFLY), 10)
        assert done.reached == Reached(False, 0)


async def test_a_refused_insertion_needs_no_confirmation(server: Server) -> None:
    async with opened(server.url, Confirm(replicas=1, timeout=0.05)) as storage:
        [full] = await storage.insert("q", job("a"), max_length=0)
        assert full.status is InsertStatus.FULL
        assert server.command("EXISTS", "{jq:q}:jobs") == 0


async def test_the_error_says_of_all_jobs_that_they_are_stored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server.url, Confirm(replicas=1, timeout=0.05)) as storage:
        steps = storage._open_session().steps
        insert = steps.insert

        async def forgetful(queue: str, jobs: Sequence[NewJob], *rest: Any) -> Any:
            """Find a job that is gone when it is read."""
            done = await insert(queue, jobs, *rest)
            if jobs[0].id != "gone" or len(jobs) == 1:
                return done
            await storage.cancel(queue, ["gone"])
            await storage.forget(queue, ["gone"])
            return done._replace(answers=[None, *done.answers[1:]])

        monkeypatch.setattr(steps, "insert", forgetful)
        jobs = [
            NewJob("gone", b""),
            NewJob("x", b""),
            NewJob("x", b"", reuse=Reuse.RERUN),
            NewJob("last", b""),
        ]
        with pytest.raises(NotConfirmedError):
            await storage.insert("q", jobs)
        assert (await storage.counts("q")).queued == 3


@pytest.mark.parametrize("flavour", ["valkey"])
async def test_an_answer_means_that_the_disk_has_the_job(start_server: Callable[..., Server]) -> None:
    server = start_server(*AOF)
    async with opened(server.url, Confirm(local_fsync=True, timeout=10)) as storage:
        for i in range(3):
            await storage.insert("q", job(f"job-{i}"))
            server.kill()
            await asyncio.to_thread(server.start)
        assert (await storage.counts("q")).queued == 3


@pytest.mark.parametrize("flavour", ["valkey"])
async def test_how_far_it_got_is_told(start_server: Callable[..., Server]) -> None:
    server = start_server(*AOF)
    async with opened(server.url, Confirm(local_fsync=True, replicas=2, timeout=1.5)) as storage:
        with pytest.raises(NotConfirmedError, match="0 of 2 replicas and the server's disk") as raised:
            await storage.insert("q", job("a"))
    assert raised.value.reached == Reached(True, 0)
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (copy.asked, copy.reached, str(copy)) == (
        raised.value.asked,
        raised.value.reached,
        str(raised.value),
    )


async def test_a_server_that_cannot_confirm_is_refused(server: Server, flavour: str) -> None:
    wanted = "appendonly yes" if "valkey_version" in info_of(server, "server").decode() else "7.2 or later"
    storage = RedisStorage(server.url, confirm=Confirm(local_fsync=True))
    with pytest.raises(StorageError, match=wanted):
        await storage.open()


def test_what_servers_can_confirm() -> None:
    fsync = Confirm(local_fsync=True)
    check_server(fsync, {"redis_version": "7.2.0", "aof_enabled": "1"})
    check_server(fsync, {})  # it may not tell: then its answer will
    check_server(Confirm(replicas=1), {"redis_version": "6.2.0", "aof_enabled": "0"})
    with pytest.raises(StorageError, match=r"7\.0 lacks"):
        check_server(fsync, {"redis_version": "7.0.15", "aof_enabled": "1"})
    with pytest.raises(StorageError, match="appendonly"):
        check_server(fsync, {"redis_version": "7.2.0", "aof_enabled": "0"})


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"replicas": 1.5}, "replicas"),
        ({"local_fsync": 1}, "local_fsync"),
        ({"replicas": 1, "timeout": 0}, "timeout"),
        ({"replicas": 1, "timeout": float("inf")}, "timeout"),
    ],
)
def test_bad_options(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidArgumentError, match=argument):
        Confirm(**options)


def test_a_bad_confirm_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="confirm"):
        RedisStorage("redis://localhost", confirm=1)  # type: ignore[arg-type]
