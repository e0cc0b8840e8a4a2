"""The store is wiped, killed and set back: every job whose enqueue has returned is still there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import Job, Queue, Reaper, Reuse
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.guard.ledger import Beat
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import InsertStatus, NewJob
from tests.services import Server
from tests.storage.guard.support import rows
from tests.storage.postgres.server import postgres_url
from tests.support import LIMIT, until, within


async def told(store: GuardedStorage) -> None:
    """Wait until the ledger has heard of everything."""
    await until(lambda: store.guard.buffered == 0)
    await asyncio.sleep(0.05)  # what was taken out is on its way
    await until(lambda: store.guard.buffered == 0)


async def test_waiting_scheduled_failing_and_running_jobs_come_back(
    redis: Server, store: GuardedStorage
) -> None:
    jobs = [
        NewJob(id, id.encode(), max_attempts=5, headers=b'{"a":"b"}', group="g") for id in ("runs", "fails")
    ]
    await store.insert(
        "q", [*jobs, NewJob("waits", b"w", priority=7), NewJob("later", b"l", delay=3_600_000)]
    )
    claimed = {job.id: job for job in (await store.exchange("q", "w", [], 3, 60_000)).jobs}
    assert claimed["runs"].headers == b'{"a":"b"}'
    failed = Settlement("fails", claimed["fails"].fence, Action.RETRY, b"{}", delay=3_600_000)
    released = Settlement("waits", claimed["waits"].fence, Action.RELEASE)
    await store.exchange("q", "w", [failed, released], 0, 60_000)
    before = {record.id: record for record in await store.get("q", ["later", "fails"]) if record}
    await told(store)
    redis.command("FLUSHALL")
    done = await store.guard.reconcile()
    assert (done.compared, done.requeued) == (4, 4)
    back = {
        record.id: record for record in await store.get("q", ["runs", "fails", "waits", "later"]) if record
    }
    assert {id: record.state for id, record in back.items()} == {
        "runs": JobState.QUEUED, "waits": JobState.QUEUED,
        "fails": JobState.SCHEDULED, "later": JobState.SCHEDULED,
    }  # fmt: skip
    assert back["waits"].priority == 7
    assert (back["runs"].max_attempts, back["fails"].max_attempts) == (4, 4)
    for id, record in before.items():
        assert abs(back[id].run_at - record.run_at) < 2_000
    again = (await store.exchange("q", "w", [], 9, 60_000)).jobs
    assert [(job.id, job.payload, job.headers) for job in again] == [
        ("waits", b"w", b""), ("runs", b"runs", b'{"a":"b"}')
    ]  # fmt: skip
    assert (await store.guard.reconcile()).requeued == 0


async def test_ended_jobs_do_not_run_again_and_are_answered_from_the_ledger(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    await store.insert("q", [NewJob("done", b"1"), NewJob("failed", b"2"), NewJob("gone", b"3")])
    jobs = {job.id: job.fence for job in (await store.exchange("q", "w", [], 2, 60_000)).jobs}
    await store.cancel("q", ["gone"])
    await store.exchange("q", "w", [
        Settlement("done", jobs["done"], Action.COMPLETE, b"result", 600_000),
        Settlement("failed", jobs["failed"], Action.FAIL, b'{"type":"E","message":"m"}', 600_000),
    ], 0, 60_000)  # fmt: skip
    await told(store)
    assert [state for _, state in await rows(schema)] == [5, 6, 7]
    redis.command("FLUSHALL")
    await until(lambda: store._open_session()._asks_for_doubt or store._open_session()._doubt_until > 0)
    assert (await store.guard.reconcile()).compared == 0
    done, failed = await store.insert("q", [NewJob("done", b"1"), NewJob("failed", b"2")])
    assert (done.status, done.state, done.data) == (InsertStatus.FOUND, JobState.COMPLETED, b"result")
    assert (failed.status, failed.state) == (InsertStatus.FOUND, JobState.FAILED)
    (record,) = await store.get("q", ["done"])
    assert record is not None
    assert (record.state, record.result, record.seq) == (JobState.COMPLETED, b"result", done.seq)
    (rerun,) = await store.insert("q", [NewJob("failed", b"2", reuse=Reuse.RERUN_FAILED)])
    assert rerun.status is InsertStatus.CREATED
    (gone,) = await store.insert("q", [NewJob("gone", b"3")])
    assert gone.status is InsertStatus.CREATED


async def test_a_found_job_leaves_no_second_row(store: GuardedStorage, schema: str) -> None:
    for _ in range(3):
        await store.insert("q", [NewJob("a", b""), NewJob("a", b"")])
    await told(store)
    assert await rows(schema) == [("a", 2)]


async def test_a_crash_between_ledger_and_store_loses_nothing(
    redis: Server, store: GuardedStorage, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    async def die(*_args: Any, **_options: Any) -> Any:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(store._inner, "insert", die)
        with pytest.raises(asyncio.CancelledError):
            await store.insert("q", [NewJob("a", b"payload")])
    assert await rows(schema) == [("a", 2)]
    assert (await store.guard.reconcile()).requeued == 1
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    assert job.payload == b"payload"


async def test_a_store_that_is_set_back_does_not_run_what_has_ended(
    redis: Server, store: GuardedStorage
) -> None:
    await store.insert("q", [NewJob("old", b"1")])
    dumps = {key: redis.command("DUMP", key) for key in redis.command("KEYS", "*")}  # type: ignore[attr-defined]
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    await store.exchange("q", "w", [Settlement("old", job.fence, Action.COMPLETE, b"r", 600_000)], 0, 60_000)
    await store.insert("q", [NewJob("new", b"2")])
    await told(store)
    store._open_session().epoch.renews = True
    await asyncio.sleep(1.5)  # the epoch is renewed: the state that comes back is older
    store._open_session().epoch.renews = False
    redis.command("FLUSHALL")
    for key, dump in dumps.items():
        redis.command("RESTORE", key, "0", dump)
    await until(lambda: store._open_session()._asks_for_doubt or store._open_session()._doubt_until > 0)
    await store.guard.reconcile()
    jobs = (await store.exchange("q", "w", [], 9, 60_000)).jobs
    assert [job.id for job in jobs] == ["new"]
    (record,) = await store.get("q", ["old"])
    assert record is not None
    assert (record.state, record.result) == (JobState.COMPLETED, b"r")


async def test_callers_get_their_results_although_redis_is_killed_and_comes_back_empty(
    redis: Server, schema: str
) -> None:
    started = asyncio.Event()

    async def handler(job: Job[int]) -> int:
        started.set()
        await asyncio.sleep(0.05)
        return job.payload * 2

    def make() -> GuardedStorage:
        return GuardedStorage(RedisStorage(redis.url), PostgresLedger(postgres_url(), schema))

    producing, working = make(), make()
    worker: Queue[int, int] = Queue(working, "q", concurrency=4, visibility_timeout=2.0)
    worker.execute(handler)
    reaper = Reaper(make(), sweep_interval=0.2)
    async with Queue[int, int](producing, "q") as producer, worker, reaper:
        calls = [
            asyncio.create_task(producer.enqueue_and_wait(f"job-{n}", n, timeout=LIMIT)) for n in range(60)
        ]
        await within(started.wait())
        redis.kill()
        await asyncio.sleep(0.3)
        redis.start()
        assert await within(asyncio.gather(*calls)) == [2 * n for n in range(60)]
    states = [state for _, state in await rows(schema)]
    assert states == [5] * 60
    async with make_open(make()) as store:
        history = await store.guard.history("q", "job-59")
        assert [entry.event for entry in history][0::1][0] == "enqueued"
        assert history[-1].event == "completed"
        assert "requeued" in {
            entry.event for n in range(60) for entry in await store.guard.history("q", f"job-{n}")
        }


class make_open:
    def __init__(self, store: GuardedStorage) -> None:
        self.store = store

    async def __aenter__(self) -> GuardedStorage:
        await self.store.open()
        return self.store

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()


async def test_a_claim_that_is_cut_off_while_the_ledger_is_asked_is_given_back(
    store: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert("q", [NewJob("a", b"")])
    session, asked = store._open_session(), asyncio.Event()
    session._doubt_until = session.now() + 60_000

    async def never(_tokens: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(session.ledger, "ended", never)
        claiming = asyncio.create_task(store.exchange("q", "w", [], 1, 60_000))
        await within(asked.wait())
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    assert job.attempts == 1


async def test_a_process_that_starts_while_another_notes_that_nothing_is_lost_believes_it(
    redis: Server, store: GuardedStorage, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = PostgresLedger(postgres_url(), schema)
    late = GuardedStorage(RedisStorage(redis.url), ledger)
    session = store._open_session()
    session.epoch.renews = True
    await session.epoch.look()
    beat = ledger.beat

    async def beat_late() -> Beat:
        session.epoch._renewed_at = float("-inf")  # the other one is due
        await session.epoch.look()
        return await beat()

    monkeypatch.setattr(ledger, "beat", beat_late)
    monkeypatch.setattr(PostgresLedger, "clone", lambda _self: ledger)
    await late.open()
    await late.insert("q", [NewJob("a", b"")])
    assert late.guard.losses == 0
    await late.close()
