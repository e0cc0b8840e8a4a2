"""Calls whose answer is lost are sent again, and carried out once, whatever has happened meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import pytest_asyncio

from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.redis import RedisStorage, callers
from jobqueue.storage.values import (
    CancelStatus,
    Claimed,
    Conflict,
    InsertStatus,
    NewJob,
    Reuse,
    Rules,
    SettleStatus,
    UpdateTtlStatus,
)
from jobqueue.testing import FakeClock
from tests.services import Server
from tests.storage.redis.load import LEASE
from tests.storage.redis.meddler import Meddler
from tests.storage.redis.proxy import chaos_proxy

TTL = 60_000


@pytest_asyncio.fixture
async def other(server: Server) -> AsyncIterator[RedisStorage]:
    """Open a second store, as another process has it."""
    storage = RedisStorage(server.url)
    await storage.open()
    yield storage
    await storage.close()


async def claim(storage: RedisStorage, limit: int = 1, worker: str = "w") -> list[Claimed]:
    return (await storage.exchange("q", worker, [], limit, LEASE)).jobs


async def end(
    storage: RedisStorage, action: Action = Action.COMPLETE, *, ttl: int = TTL, data: bytes = b""
) -> None:
    """Claim one job and end it."""
    (job,) = await claim(storage, worker="ender")
    answer = await storage.exchange(
        "q", "ender", [Settlement(job.id, job.fence, action, data, ttl)], 0, LEASE
    )
    assert answer.settled == [SettleStatus.ACCEPTED]


# -- insert ---------------------------------------------------------------------------------------


async def test_a_repeated_insertion_runs_no_job_twice_that_ended_meanwhile(
    storage: RedisStorage, other: RedisStorage
) -> None:
    async def run() -> None:
        await end(other, ttl=0)
        await other.purge("q", 10)

    Meddler(storage).lose("insert", run)
    (answer,) = await storage.insert("q", [NewJob("a", b"", ttl=0)])
    assert (answer.status, answer.state) == (InsertStatus.CREATED, JobState.QUEUED)
    assert await storage.get("q", ["a"]) == [None]
    assert await claim(other) == []


async def test_a_repeated_insertion_leaves_the_job_that_follows_its_own(
    storage: RedisStorage, other: RedisStorage
) -> None:
    async def replace() -> None:
        await other.cancel("q", ["a"])
        await other.insert("q", [NewJob("a", b"theirs")])

    Meddler(storage).lose("insert", replace)
    (answer,) = await storage.insert("q", [NewJob("a", b"mine", reuse=Reuse.RERUN)])
    (job,) = await claim(other)
    (record,) = await other.get("q", ["a"])
    assert (answer.status, job.payload) == (InsertStatus.CREATED, b"theirs")
    assert record is not None
    assert answer.seq < record.seq


async def test_a_repeated_insertion_replaces_nothing_once_more(
    storage: RedisStorage, other: RedisStorage
) -> None:
    replacing = NewJob("a", b"mine", conflict=Conflict.REPLACE)
    await storage.insert("q", [NewJob("a", b"old"), NewJob("b", b"old")])

    async def replace() -> None:
        await other.insert("q", [replacing._replace(payload=b"theirs")])

    Meddler(storage).lose("insert", replace)
    later = replacing._replace(id="b", priority=3)
    answers = await storage.insert("q", [replacing, NewJob("c", b""), later, NewJob("d", b"")])
    assert [str(answer.status) for answer in answers] == ["replaced", "created", "replaced", "created"]
    records = await other.get("q", ["a", "c", "b", "d"], payload=True)
    assert [answer.seq for answer in answers] == [record.seq for record in records if record is not None]
    assert records[0] is not None
    assert records[0].payload == b"theirs"


async def test_a_repeated_insertion_does_not_run_again_what_it_has_replaced(
    storage: RedisStorage, other: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b"old")])

    async def run() -> None:
        await end(other, ttl=0)
        await other.purge("q", 10)

    Meddler(storage).lose("insert", run)
    (answer,) = await storage.insert("q", [NewJob("a", b"new", ttl=0, conflict=Conflict.REPLACE)])
    assert answer.status is InsertStatus.REPLACED
    assert await storage.get("q", ["a"]) == [None]
    assert await claim(other) == []


async def test_a_repeated_insertion_has_its_first_answer(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("ended", b"")])
    await end(storage, data=b"result")
    await storage.insert("q", [NewJob("live", b"")])
    Meddler(storage).lose("insert")
    jobs = [
        NewJob("live", b""),
        NewJob("new", b""),
        NewJob("ended", b"", delay=10),
        NewJob("later", b"", delay=1000),
        NewJob("new", b""),
        NewJob("ended", b"", reuse=Reuse.RERUN),
        NewJob("full", b""),
    ]
    answers = await storage.insert("q", jobs, max_length=4)
    assert [answer.status.value for answer in answers] == [
        "found", "created", "found", "created", "found", "created", "full",
    ]  # fmt: skip
    records = await storage.get("q", ["new", "later", "ended"])
    assert [record and record.seq for record in records] == [answers[i].seq for i in (1, 3, 5)]
    # As it was found, although the same call has replaced it since.
    assert (answers[2].state, answers[2].data) == (JobState.COMPLETED, b"result")
    assert await storage.check("q") == []


async def test_what_a_repeated_insertion_had_found_is_inserted_if_it_is_gone(
    storage: RedisStorage, other: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("old", b"", ttl=TTL)])
    await end(storage, ttl=TTL)

    async def expire() -> None:
        await other.set_ttl("q", [("old", 0)])
        await other.purge("q", 10)

    Meddler(storage).lose("insert", expire)
    old, new = await storage.insert("q", [NewJob("old", b"again"), NewJob("new", b"")])
    assert (old.status, new.status) == (InsertStatus.CREATED, InsertStatus.CREATED)
    assert [(job.id, job.payload) for job in await claim(other, 5)] == [("new", b""), ("old", b"again")]


# -- exchange -------------------------------------------------------------------------------------


async def test_workers_of_one_name_do_not_take_each_others_claims(
    storage: RedisStorage, other: RedisStorage
) -> None:
    await storage.insert("q", [NewJob(f"{n}", b"") for n in range(4)])

    async def exchange() -> None:
        assert [job.id for job in await claim(other, 2)] == ["2", "3"]

    Meddler(storage).lose("exchange", exchange)
    assert [job.id for job in await claim(storage, 2)] == ["0", "1"]


async def test_calls_of_one_worker_at_once_do_not_take_each_others_claims(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{n}", b"") for n in range(4)])

    async def exchange() -> None:
        assert [job.id for job in await claim(storage, 2)] == ["2", "3"]

    Meddler(storage).lose("exchange", exchange)
    assert [job.id for job in await claim(storage, 2)] == ["0", "1"]


async def test_claims_whose_answer_never_came_go_back_with_the_next_call(server: Server) -> None:
    async with chaos_proxy(server.port) as proxy:
        storage = RedisStorage(proxy.url, retry_for=0.2, reply_timeout=0.2)
        await storage.open()
        await storage.insert("q", [NewJob(f"{n}", b"") for n in range(900)])
        proxy.swallow = True
        for _ in range(2):  # the second may be carried out or not
            with pytest.raises(StorageUnavailableError):
                await claim(storage, 1000)
        proxy.swallow = False
        assert [(job.id, job.attempts) for job in await claim(storage, 1000)] == [
            (f"{n}", 1) for n in range(900)
        ]
        assert await storage.check("q") == []
        await storage.close()


async def test_claims_that_another_call_gave_back_are_not_given_back_twice(
    storage: RedisStorage, other: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b""), NewJob("b", b"")])
    meddler = Meddler(storage)
    meddler.fail("exchange", 0)
    with pytest.raises(StorageUnavailableError):
        await claim(storage)
    meddler.mend()
    assert [job.id for job in await claim(storage)] == ["a"]
    assert [job.id for job in await claim(other, 5)] == ["b"]
    assert await claim(storage) == []


async def test_settlements_in_pieces_claim_nothing_before_the_last(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{n}", b"") for n in range(1200)])
    jobs = await claim(storage, 600)
    done = [Settlement(job.id, job.fence, Action.COMPLETE, b"", TTL) for job in jobs]
    meddler = Meddler(storage)
    meddler.fail("exchange", 1)
    with pytest.raises(StorageUnavailableError):
        await storage.exchange("q", "w", done, 5, LEASE)
    meddler.mend()
    answer = await storage.exchange("q", "w", done, 5, LEASE)
    assert set(answer.settled) == {SettleStatus.ACCEPTED}
    assert [job.attempts for job in answer.jobs] == [1] * 5
    counts = await storage.counts("q")
    assert (counts.completed, counts.processing, counts.queued) == (600, 5, 595)


async def test_a_claim_is_answered_although_the_queue_cannot_be_named(storage: RedisStorage) -> None:
    meddler = Meddler(storage)
    meddler.refused = {b"SADD"}
    (answer,) = await storage.insert("q", [NewJob("a", b"")])
    assert answer.status is InsertStatus.CREATED
    assert [job.id for job in await claim(storage)] == ["a"]
    assert await storage.queues() == []
    meddler.mend()
    await storage.insert("q", [NewJob("b", b"")])
    assert await storage.queues() == ["q"]


async def test_a_cancelled_caller_gives_its_claims_back(storage: RedisStorage, other: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{n}", b"") for n in range(700)])
    claimed = asyncio.Event()

    async def be_slow() -> None:
        claimed.set()

    Meddler(storage).lose("exchange", be_slow)
    claiming = asyncio.create_task(claim(storage, 700))
    await claimed.wait()
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    async with asyncio.timeout(10):
        while (await other.counts("q")).queued < 700:
            await asyncio.sleep(0)
    assert [job.attempts for job in await claim(other, 700)] == [1] * 700


# -- the others -----------------------------------------------------------------------------------


async def test_a_repeated_cancel_spares_the_job_that_follows(
    storage: RedisStorage, other: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b"")])

    async def enqueue() -> None:
        await other.insert("q", [NewJob("a", b"new")])

    Meddler(storage).lose("cancel", enqueue)
    assert await storage.cancel("q", ["a", "nobody"]) == [CancelStatus.CANCELLED, CancelStatus.NOT_FOUND]
    assert [job.payload for job in await claim(other)] == [b"new"]


async def test_a_repeated_keep_spares_the_job_that_follows(
    storage: RedisStorage, other: RedisStorage
) -> None:
    await storage.insert("q", [NewJob("a", b"")])
    await end(storage)

    async def run_again() -> None:
        await other.insert("q", [NewJob("a", b"", reuse=Reuse.RERUN)])
        await end(other)

    Meddler(storage).lose("set_ttl", run_again)
    assert await storage.set_ttl("q", [("a", 1), ("b", 1)]) == [
        UpdateTtlStatus.UPDATED, UpdateTtlStatus.NOT_FOUND,
    ]  # fmt: skip
    (record,) = await storage.get("q", ["a"])
    assert record is not None
    assert (record.expires_at or 0) - record.updated_at == TTL


async def test_a_repeated_sweep_tells_what_it_took(server: Server) -> None:
    clock = FakeClock()
    storage = RedisStorage(server.url, clock=clock)
    await storage.open()
    await storage.insert("q", [NewJob("a", b"", max_stalls=0), NewJob("b", b"")])
    await claim(storage, 2, worker="dead")
    clock.move(LEASE / 1000)

    async def run() -> None:
        await end(storage)

    Meddler(storage).lose("sweep", run)
    swept = await storage.sweep("q", 10)
    assert [(one.id, one.state, one.stalls, one.worker) for one in swept] == [
        ("a", JobState.FAILED, 1, "dead"), ("b", JobState.QUEUED, 1, "dead"),
    ]  # fmt: skip
    await storage.close()


async def test_a_repeated_release_leaves_the_lock_to_its_next_holder(storage: RedisStorage) -> None:
    term = await storage.lock_acquire("lock", "me", LEASE)

    async def acquire() -> None:
        assert await storage.lock_acquire("lock", "me", LEASE) is not None

    Meddler(storage).lose("lock_release", acquire)
    assert await storage.lock_release("lock", "me")
    held = await storage.lock_holder("lock")
    assert held is not None
    assert held.term > (term or 0)
    assert not await storage.lock_release("lock", "you")


@pytest.mark.parametrize("name", ["insert", "exchange", "cancel", "set_ttl", "sweep"])
async def test_a_late_copy_of_a_call_has_no_effect(server: Server, name: str) -> None:
    clock = FakeClock()
    storage = RedisStorage(server.url, clock=clock)
    await storage.open()
    meddler = Meddler(storage)
    await storage.insert("q", [NewJob("a", b"", ttl=0), NewJob("b", b""), NewJob("c", b"")])
    await claim(storage, 2)
    clock.move(LEASE / 1000)
    await storage.sweep("q", 10)
    await end(storage, ttl=0)
    await storage.cancel("q", ["c"])
    await storage.set_ttl("q", [("c", TTL)])
    await storage.insert("q", [NewJob("a", b""), NewJob("c", b"")])
    before = await storage.counts("q"), await storage.get("q", ["a", "b", "c"])
    copies = [at for at, (script, _, _) in enumerate(meddler.sent) if script.name == name]
    assert copies
    for at in copies:
        script, keys, args = meddler.sent[at]
        fresh = [b"%d" % int(clock.time() * 1000), *args[1:]]
        meddler.sent[at] = script, keys, fresh
        with suppress(StorageError):  # "STALE", if the caller's later calls were remembered
            await meddler.again(at)
    assert (await storage.counts("q"), await storage.get("q", ["a", "b", "c"])) == before
    await storage.close()


async def test_a_repeated_exchange_says_again_that_the_queue_is_paused_and_what_has_expired(
    server: Server,
) -> None:
    clock = FakeClock()
    storage = RedisStorage(server.url, clock=clock)
    await storage.open()
    meddler = Meddler(storage)
    await storage.insert("q", [NewJob("a", b"", expires=1)])
    clock.move(1.0)
    meddler.lose("exchange")
    answer = await storage.exchange("q", "w", [], 1, LEASE)
    assert answer.expired == ("a",)
    await storage.set_rules("q", Rules(paused=True))
    meddler.lose("exchange")
    assert (await storage.exchange("q", "w", [], 1, LEASE)).paused
    await storage.close()


async def full(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("x", b"", ttl=0)])
    answers = await storage.insert("q", [NewJob("a", b"")], max_length=1)
    assert [answer.status for answer in answers] == [InsertStatus.FULL]
    await end(storage, ttl=0)


async def found(storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob("a", b"", ttl=0)])
    answers = await storage.insert("q", [NewJob("a", b"")])
    assert [answer.status for answer in answers] == [InsertStatus.FOUND]
    await end(storage, ttl=0)


async def nothing_to_cancel(storage: RedisStorage) -> None:
    assert await storage.cancel("q", ["b"]) == [CancelStatus.NOT_FOUND]


async def nothing_to_keep(storage: RedisStorage) -> None:
    assert await storage.set_ttl("q", [("b", 1)]) == [UpdateTtlStatus.NOT_FOUND]


async def nothing_to_forget(storage: RedisStorage) -> None:
    await storage.forget("q", ["b"])


async def nothing_to_revive(storage: RedisStorage) -> None:
    assert await storage.revive("q", ["b"]) == [False]


IN_VAIN = {
    full: "insert",
    found: "insert",
    nothing_to_cancel: "cancel",
    nothing_to_keep: "set_ttl",
    nothing_to_forget: "forget",
    nothing_to_revive: "revive",
}


@pytest.mark.parametrize("call", IN_VAIN)
async def test_a_late_copy_of_a_call_that_changed_nothing_has_no_effect(
    storage: RedisStorage, other: RedisStorage, call: Callable[[RedisStorage], Awaitable[None]]
) -> None:
    meddler = Meddler(storage)
    await call(storage)
    at = max(at for at, (script, _, _) in enumerate(meddler.sent) if script.name == IN_VAIN[call])
    await other.insert("q", [NewJob("b", b"")])
    if call is not nothing_to_cancel:
        await end(other)
    before = await storage.counts("q"), await storage.get("q", ["a", "b"])
    with suppress(StorageError):  # "STALE"
        await meddler.again(at)
    assert (await storage.counts("q"), await storage.get("q", ["a", "b"])) == before


async def test_calls_about_a_queue_that_nobody_has_leave_nothing_behind(
    server: Server, storage: RedisStorage
) -> None:
    for call in (nothing_to_cancel, nothing_to_keep, nothing_to_forget, nothing_to_revive):
        await call(storage)
    left = server.command("PTTL", "{jq:q}:meta")
    assert isinstance(left, int)
    assert 0 < left <= 600_000
    await storage.insert("q", [NewJob("a", b"")])
    assert server.command("PTTL", "{jq:q}:meta") == -1


# -- the memory of calls --------------------------------------------------------------------------


async def test_the_memory_of_calls_holds_no_payloads(server: Server, storage: RedisStorage) -> None:
    await storage.insert("q", [NewJob(f"{n}", b"x" * 100_000) for n in range(50)])
    meddler = Meddler(storage)
    meddler.lose("exchange")
    jobs = await claim(storage, 50)
    assert [len(job.payload) for job in jobs] == [100_000] * len(jobs)
    assert sum(len(part) for part in meddler.replies[-1] if isinstance(part, bytes)) < 1_300_000
    size = server.command("EVAL", "return #table.concat(redis.call('HVALS', KEYS[1]))", "1", "{jq:q}:meta")
    assert isinstance(size, int)
    assert size < 1000


async def test_callers_are_forgotten_where_nobody_sweeps(server: Server) -> None:
    clock = FakeClock()
    for n in range(400):
        storage = RedisStorage(server.url, clock=clock)
        await storage.open()
        await storage.insert("q", [NewJob(f"{n}", b"", ttl=0)])
        await storage.close()
        clock.move(10)
    fields = server.command("HLEN", "{jq:q}:meta")
    assert isinstance(fields, int)
    assert fields < 150  # 60 have been seen within ten minutes


async def test_a_name_that_two_processes_use_at_once_is_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    storage, other = RedisStorage(server.url, clock=clock), RedisStorage(server.url, clock=clock)
    await storage.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callers, "unique_id", lambda: "another1process-1")
        await other.open()

    async def use(*pairs: tuple[RedisStorage, str]) -> list[str]:
        for used, worker in pairs:
            await claim(used, worker=worker)
            clock.move(1)
        for used in (storage, other):
            await used.purge("q", 10)
        return [text for text in caplog.messages if "two processes" in text]

    with caplog.at_level(logging.WARNING, "jobqueue.storage.redis"):
        assert (
            await use((storage, "web"), (storage, "web"), (other, "web")) == []
        )  # one has followed the other
        (told,) = await use((storage, "web"), (other, "web"))
        assert "'web'" in told
        assert "'q'" in told
        assert await use((storage, "web"), (other, "web")) == [told]
    await storage.close()
    await other.close()
