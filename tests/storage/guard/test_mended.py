"""Moments in which a guard could lose a job, run one twice, or stop: each is arranged by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import Reuse, StorageError
from jobqueue.model.new_job import Conflict
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.guard import GuardedStorage, PostgresLedger, epoch, outbox, reconcile
from jobqueue.storage.guard.outbox import Outbox
from jobqueue.storage.guard.records import ledgered
from jobqueue.storage.guard.values import Change, History
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import CancelStatus, Claimed, InsertStatus, NewJob
from tests.services import Server
from tests.storage.guard.support import rows
from tests.storage.guard.test_losses import told
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection
from tests.support import until, within


def another(redis: Server, schema: str, **options: Any) -> GuardedStorage:
    return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema), **options)


async def claim(store: GuardedStorage, limit: int = 1) -> list[Claimed]:
    return (await store.exchange("q", "w", [], limit, 60_000)).jobs


async def complete(store: GuardedStorage, job: Claimed, ttl: int = 60_000) -> None:
    done = Settlement(job.id, job.fence, Action.COMPLETE, b"result", ttl)
    await store.exchange("q", "w", [done], 0, 60_000)


async def sql(text: str, schema: str, *args: Any) -> None:
    async with connection() as admin:
        await admin.execute(text.format(s=quoted(schema)), *args)


def dump(redis: Server) -> dict[Any, Any]:
    return {key: redis.command("DUMP", key) for key in redis.command("KEYS", "*")}  # type: ignore[attr-defined]


def set_back(redis: Server, kept: dict[Any, Any]) -> None:
    redis.command("FLUSHALL")
    for key, value in kept.items():
        redis.command("RESTORE", key, "0", value)


# -- which rows come back -----------------------------------------------------------------------------


async def test_of_two_rows_of_one_id_the_one_that_the_store_had_comes_back(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    opened = store._open_session()
    for id in ("claimed", "waiting"):
        await store.insert("q", [NewJob(id, b"first", priority=int(id == "claimed"))])
    (_job,) = await claim(store)
    await told(store)
    for id in ("claimed", "waiting"):  # joins: written, and not dropped yet
        await opened.write(ledgered(opened, "q", [NewJob(id, b"second")]))
    await told(store)
    await sql("update {s}.job set updated = updated + 1000 where payload = 'first'", schema)
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 2
    assert {job.id: job.payload for job in await claim(store, 9)} == {
        "claimed": b"first",
        "waiting": b"first",
    }


async def test_a_job_that_followed_another_of_its_id_at_once_comes_back(
    redis: Server, store: GuardedStorage, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "EVERY", 0.2)
    await store.insert("q", [NewJob("a", b"first")])
    await complete(store, (await claim(store))[0])
    await store.insert("q", [NewJob("a", b"second", reuse=Reuse.RERUN)])
    await told(store)  # of the end of the first after the second was there
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    assert [job.payload for job in await claim(store)] == [b"second"]


async def test_what_was_replaced_does_not_come_back(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    await store.insert("q", [NewJob("a", b"old")])
    failed = Settlement("a", (await claim(store))[0].fence, Action.RETRY, b"{}", delay=60_000)
    await store.exchange("q", "w", [failed], 0, 60_000)
    (answer,) = await store.insert("q", [NewJob("a", b"new", conflict=Conflict.REPLACE)])
    assert answer.status is InsertStatus.REPLACED
    await told(store)
    assert next(state for _, state in await rows(schema)) == 8
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    (record,) = await store.get("q", ["a"], payload=True)
    assert record is not None
    assert record.payload == b"new"


async def test_a_store_that_is_set_back_gets_the_later_job_of_an_id_too(
    redis: Server, store: GuardedStorage
) -> None:
    store._open_session().epoch.renews = True
    await store.insert("q", [NewJob("a", b"first")])
    kept = dump(redis)
    await complete(store, (await claim(store))[0])
    await store.insert("q", [NewJob("a", b"second", reuse=Reuse.RERUN)])
    await told(store)
    noted = await store._open_session().ledger.beat()
    await until(lambda: store._open_session().epoch._seen[1] > noted.version)  # type: ignore[index]
    set_back(redis, kept)
    await until(lambda: store._open_session().losses > 0)
    ran: list[bytes] = []
    for _ in range(3):
        await store.guard.reconcile()
        ran += [job.payload for job in await claim(store, 9)]
    assert ran == [b"second"], "the first had ended, and does not run again"


async def test_attempts_are_counted_across_several_losses(redis: Server, store: GuardedStorage) -> None:
    await store.insert("q", [NewJob("a", b"", max_attempts=5)])
    left = []
    for _ in range(3):
        await claim(store)
        await told(store)
        redis.command("FLUSHALL")
        await store.guard.reconcile()
        (record,) = await store.get("q", ["a"])
        assert record is not None
        left.append(record.max_attempts)
    assert left == [4, 3, 2]


async def test_a_job_that_was_started_in_time_comes_back_although_that_time_is_over(
    redis: Server, store: GuardedStorage
) -> None:
    await store.insert("q", [NewJob("a", b"", expires=300)])
    await claim(store)
    await told(store)
    await asyncio.sleep(0.3)
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    assert [job.id for job in await claim(store)] == ["a"]


async def test_an_enqueue_after_a_loss_joins_the_lost_job(redis: Server, store: GuardedStorage) -> None:
    await store.insert("q", [NewJob("a", b"first")])
    redis.command("FLUSHALL")
    (answer,) = await store.insert("q", [NewJob("a", b"second")])
    assert answer.status is InsertStatus.FOUND
    assert [job.payload for job in await claim(store, 9)] == [b"first"]


async def test_a_lost_job_can_be_cancelled(redis: Server, store: GuardedStorage, schema: str) -> None:
    await store.insert("q", [NewJob("a", b"")])
    redis.command("FLUSHALL")
    assert await store.cancel("q", ["a"]) == [CancelStatus.CANCELLED]
    await told(store)
    assert (await store.guard.reconcile()).requeued == 0
    assert await claim(store) == []


async def test_a_cancelled_job_without_a_record_does_not_come_back(
    store: GuardedStorage, schema: str
) -> None:
    await store.insert("q", [NewJob("a", b"", ttl=0)])
    assert await store.cancel("q", ["a"]) == [CancelStatus.CANCELLED]
    await told(store)
    assert await rows(schema) == [("a", 7)]


async def test_a_removed_outcome_is_not_remembered(redis: Server, store: GuardedStorage) -> None:
    await store.insert("q", [NewJob("a", b"")])
    await complete(store, (await claim(store))[0])
    await told(store)
    assert await store.forget("q", ["a"]) == [True]
    await told(store)
    redis.command("FLUSHALL")
    (answer,) = await store.insert("q", [NewJob("a", b"")])
    assert answer.status is InsertStatus.CREATED


# -- what is told late --------------------------------------------------------------------------------


async def test_a_failure_that_is_told_late_does_not_end_the_revived_job(
    redis: Server, store: GuardedStorage, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "EVERY", 0.3)
    reviver = another(redis, schema)
    await reviver.open()
    await store.insert("q", [NewJob("a", b"p")])
    failed = Settlement(
        "a", (await claim(store))[0].fence, Action.FAIL, b'{"type":"E","message":"m"}', 60_000
    )
    await store.exchange("q", "w", [failed], 0, 60_000)
    assert await reviver.revive("q", ["a"]) == [True]
    assert await rows(schema, "id, state, attempts") == [("a", 2, 0)], "before the store has it"
    await told(store)
    assert await rows(schema, "id, state, attempts") == [("a", 2, 0)]
    redis.command("FLUSHALL")
    assert (await reviver.guard.reconcile()).requeued == 1
    (job,) = await claim(reviver)
    await complete(reviver, job)
    await told(reviver)
    ((state, outcome),) = await rows(schema, "state, outcome")
    assert (state, outcome) == (5, b"result")
    await reviver.close()


async def test_what_ends_as_it_is_compared_does_not_run_again(
    store: GuardedStorage, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "EVERY", 0.2)
    await store.insert("q", [NewJob("a", b"")])
    await sql("update {s}.job set created = created - 60000", schema)
    await complete(store, (await claim(store))[0], ttl=0)
    done = await store._open_session().reconciler.once()
    assert (done.compared, done.requeued) == (1, 0)
    assert await rows(schema) == [("a", 5)]


async def test_what_is_told_twice_is_in_the_history_once(store: GuardedStorage, schema: str) -> None:
    await store.insert("q", [NewJob("a", b"")])
    ((token,),) = await rows(schema, "token")
    ledger = store._open_session().ledger
    for at in (1, 1, 2):
        await ledger.record([Change(token.hex, history=[History(1, "one"), History(at, "two")])])
    names = [(event.event, event.at.microsecond) for event in await store.guard.history("q", "a")]
    assert names[1:] == [("one", 1000), ("two", 1000), ("two", 2000)]
    for at in range(150):
        await ledger.record([Change(token.hex, history=[History(at, "many")])])
    events = await store.guard.history("q", "a")
    assert len(events) == 101
    assert events[1].event == "one"
    assert events[-1].at.microsecond == 149_000


# -- what cannot be written or read -------------------------------------------------------------------


async def test_a_write_that_is_refused_holds_up_no_other(
    store: GuardedStorage, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    await store.insert("q", [NewJob(id, b"") for id in ("a", "bad", "c")])
    tokens = {id: token.hex for id, token in await rows(schema, "id, token")}
    opened = store._open_session()
    for id, token in tokens.items():
        opened.tell(Change(token, 99 if id == "bad" else 3))
    await told(store)
    assert await rows(schema) == [("a", 3), ("bad", 2), ("c", 3)]
    assert store.guard.lost == 1
    assert store.guard.breaker == "closed"
    assert "refuses what is in a write" in caplog.text


async def test_rows_that_were_edited_by_hand_are_left_alone(
    redis: Server, store: GuardedStorage, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ["good", "empty", "control", "high", "late", "queue", "zzz"]
    await store.insert("q", [NewJob(id, b"") for id in ids])
    for id, change in {
        "empty": "id = ''",
        "control": r"id = E'a\x1bb'",
        "high": "priority = 50000",
        "late": "due = -1",
        "queue": r"queue = E'a\nb'",
    }.items():
        await sql(f"update {{s}}.job set {change} where id = $1", schema, id)
    await sql("update {s}.job set history = '[1, [2], [3, 4, 5, 6, 7]]' where id = 'good'", schema)
    redis.command("FLUSHALL")
    done = await store.guard.reconcile()
    assert (done.requeued, done.set_aside) == (2, 5)
    assert {job.id for job in await claim(store, 9)} == {"good", "zzz"}
    assert caplog.text.count("stays as it is") == 5
    assert "\x1b" not in caplog.text
    events = [event.event for event in await store.guard.history("q", "good")]
    assert events[1:3] == ["unreadable", "unreadable"]
    assert (await store.guard.reconcile()).set_aside >= 3


async def test_tables_that_are_missing_are_told_at_the_start(redis: Server) -> None:
    store = another(redis, f"missing {unique_id()}")
    with pytest.raises(StorageError, match="schema apply"):
        await store.open()


async def test_large_jobs_come_back_in_pieces(
    redis: Server, store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert("q", [NewJob(f"job-{n:02}", bytes(200_000)) for n in range(20)])
    redis.command("FLUSHALL")
    opened, most = store._open_session(), 0
    read = opened.ledger.jobs

    async def measured(tokens: Any) -> Any:
        nonlocal most
        jobs = await read(tokens)
        most = max(most, sum(len(job.payload) for job in jobs.values()))
        return jobs

    monkeypatch.setattr(opened.ledger, "jobs", measured)
    assert (await store.guard.reconcile()).requeued == 20
    assert 0 < most < 1_500_000


# -- losses, and who has heard of them ------------------------------------------------------------------


async def test_a_loss_whose_finder_was_cut_off_is_noted(
    redis: Server, store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, noting = store._open_session(), asyncio.Event()
    await opened.epoch.close()
    redis.command("FLUSHALL")

    async def never(*_args: Any, **_options: Any) -> Any:
        noting.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(opened.ledger, "note_epoch", never)
        looking = asyncio.create_task(opened.epoch.look())
        await within(noting.wait())
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
    await opened.epoch.look()
    assert (await opened.ledger.beat()).lost_at > 0
    assert opened.losses == 1


async def test_outcomes_are_looked_for_until_the_last_one_expires(
    redis: Server, store: GuardedStorage
) -> None:
    opened = store._open_session()
    await store.insert("q", [NewJob("short", b""), NewJob("long", b"")])
    for job in await claim(store, 2):
        await complete(store, job, ttl=60_000 if job.id == "short" else 7_200_000)
    await told(store)
    redis.command("FLUSHALL")
    await opened.epoch.look()
    assert 500_000 < (await opened.ledger.doubt())[1] - opened.now() <= 601_000  # its clock is estimated
    await store.guard.reconcile()
    assert 7_000_000 < (await opened.ledger.doubt())[1] - opened.now() <= 7_200_000
    opened._doubt_until = opened.now() - 1  # what it knew is over: it asks once more
    await opened.in_doubt()
    assert await opened.in_doubt()
    assert opened._doubt_until - opened.now() > 7_000_000


async def test_callers_share_a_look_that_begins_after_they_ask(store: GuardedStorage) -> None:
    opened = store._open_session()
    await opened.epoch.close()
    began, looks = asyncio.Event(), 0
    read = opened.epoch._store.read_documents

    async def slowly(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        began.set()
        await asyncio.sleep(0.05)
        return await read(*args)

    opened.epoch._store.read_documents = slowly  # type: ignore[method-assign]
    first = asyncio.create_task(opened.epoch.look())
    await within(began.wait())
    await asyncio.gather(first, *(opened.epoch.look() for _ in range(20)))
    assert looks == 2


async def test_who_leads_next_brings_back_at_once_what_another_has_noted_as_lost(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    await store.insert("q", [NewJob(f"job-{n}", b"") for n in range(300)])
    redis.command("FLUSHALL")
    await store._open_session().epoch.look()  # noted; and this one does not compare
    later = another(redis, schema, rate=1.0)
    await later.open()
    tending = asyncio.create_task(later.tend())

    async def all_back() -> None:
        while (await later.counts("q")).queued < 300:
            await asyncio.sleep(0.02)

    await within(all_back())
    ledger = later._open_session().ledger

    async def noted() -> None:
        while not (beat := await ledger.beat()).restored == beat.lost_at > 0:
            await asyncio.sleep(0.02)

    await within(noted())
    tending.cancel()
    await later.close()


async def test_a_loss_ends_the_limit_to_the_rate(redis: Server, store: GuardedStorage, schema: str) -> None:
    slow = another(redis, schema, rate=1.0, interval=60.0)
    await slow.open()
    await store.insert("q", [NewJob(f"job-{n}", b"") for n in range(40)])
    await sql("update {s}.job set created = created - 60000", schema)
    await store._inner.forget("q", [f"job-{n}" for n in range(40)])  # type: ignore[attr-defined]
    tending = asyncio.create_task(slow.tend())
    await until(lambda: slow._open_session().reconciler.brought_back > 0)
    redis.command("FLUSHALL")

    async def all_back() -> None:
        while (await slow.counts("q")).queued < 40:
            await asyncio.sleep(0.02)

    await within(all_back())
    tending.cancel()
    await slow.close()


# -- in one process -------------------------------------------------------------------------------------


async def test_a_clock_of_the_machine_that_is_set_moves_nothing(
    store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = store._open_session()
    before, time = opened.now(), SYSTEM_CLOCK.time
    monkeypatch.setattr(type(SYSTEM_CLOCK), "time", lambda _self: time() + 3600.0)
    assert abs(opened.now() - before) < 5_000


async def test_the_room_is_free_again_when_all_is_written(store: GuardedStorage, schema: str) -> None:
    await store.insert("q", [NewJob("a", b"")])
    ((token,),) = await rows(schema, "token")
    box = store._open_session().outbox
    for n in range(100):
        store._open_session().tell(Change(token.hex, 3, n, data=bytes(1000), history=[History(n, "claimed")]))
    assert 0 < box._bytes < 50_000, "changes of one job are merged"
    await told(store)
    assert box._bytes == 0


async def test_nobody_waits_for_room_in_a_store_that_closes(
    store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 1000)
    monkeypatch.setattr(outbox, "LAST", 0.05)
    opened = store._open_session()
    stuck = asyncio.Event()

    async def never(_changes: Any) -> Any:
        await stuck.wait()

    monkeypatch.setattr(opened.ledger, "record", never)
    opened.tell(Change("0" * 32, 3, history=[History(1, "x")]))
    waiting = asyncio.create_task(opened.outbox.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await within(opened.outbox.close())
    await within(waiting)


async def test_a_closing_that_is_cut_off_closes_all(
    store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closing = store._open_session(), asyncio.Event()

    async def never(_self: Outbox) -> None:
        closing.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "close", never)
        ending = asyncio.create_task(opened.close())
        await within(closing.wait())
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
    assert opened.ledger._pool is None
    with pytest.raises(StorageError):
        await opened.inner.counts("q")
    await opened.inner.open()  # the fixture closes it


async def test_writes_of_several_callers_are_one_statement(
    store: GuardedStorage, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    opened, statements = store._open_session(), 0
    write = opened.ledger.write

    async def counted(*args: Any) -> None:
        nonlocal statements
        statements += 1
        await write(*args)

    monkeypatch.setattr(opened.ledger, "write", counted)
    await asyncio.gather(*(store.insert("q", [NewJob(f"job-{n}", b"")]) for n in range(50)))
    assert statements <= 3
    assert len(await rows(schema)) == 50


def test_constants_that_other_modules_rely_on() -> None:
    assert reconcile.SECOND_LOOK > 10 * outbox.EVERY
    assert epoch.LEAST_DOUBT > reconcile.GRACE


async def test_a_claim_that_finds_a_job_replayed_says_so(redis: Server, store: GuardedStorage) -> None:
    await store.insert("q", [NewJob("a", b"")])
    kept = dump(redis)
    await complete(store, (await claim(store))[0])
    await told(store)
    set_back(redis, kept)
    opened = store._open_session()
    opened._doubt_until = opened.now() + 60_000
    answer = await store.exchange("q", "w", [], 1, 60_000)
    assert answer.jobs == []
    assert answer.more
    (record,) = await store.get("q", ["a"])
    assert record is not None
    assert record.state is JobState.COMPLETED
