"""Faults of a real server: calls are repeated and recognised, or raise; nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
import pytest_asyncio

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.findings import Severity
from jobqueue.storage.postgres import PostgresStorage, doctor
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.target import Connection
from jobqueue.storage.values import Change, Conflict, InsertStatus, NewJob, Renewal
from jobqueue.testing import FakeClock, model_test
from jobqueue.testing.contract.support import Box
from tests.storage.postgres.server import PostgresServer
from tests.storage.postgres.support import connection, postgres_storage

CHANGES = (
    "insert", "exchange", "extend", "sweep", "cancel", "set_ttl", "revive", "forget", "purge",
    "write_documents", "lock_acquire", "lock_renew", "lock_release",
)  # fmt: skip
_changes: ContextVar[bool] = ContextVar("changes", default=False)


class RestlessPostgresStorage(PostgresStorage):
    """Loses the answer of every second call that changes something, and repeats it as the pool would."""

    lose_every = 2

    async def open(self) -> None:
        await super().open()
        pool = self._open_session().pool
        if pool.run.__name__ == "run":
            calls, run = 0, pool.run

            async def restless(call: Any) -> Any:
                nonlocal calls
                calls += _changes.get()
                lose = _changes.get() and calls % self.lose_every == 0

                async def losing(connection: Connection, repeated: bool) -> Any:
                    answer = await call(connection, repeated)
                    return await call(connection, True) if lose else answer

                return await run(losing)

            pool.run = restless  # type: ignore[method-assign]


def _losing(name: str) -> Any:
    async def change(self: RestlessPostgresStorage, *args: Any, **options: Any) -> Any:
        token = _changes.set(True)
        try:
            return await getattr(PostgresStorage, name)(self, *args, **options)
        finally:
            _changes.reset(token)

    return change


for _name in CHANGES:
    setattr(RestlessPostgresStorage, _name, _losing(_name))


def restless(clock: FakeClock) -> Any:
    return postgres_storage(clock, RestlessPostgresStorage)


async def test_calls_whose_answers_are_lost_are_recognised() -> None:
    async with postgres_storage(kind=RestlessPostgresStorage) as store:
        await store.open()
        for n in range(40):
            (inserted,) = await store.insert("q", [NewJob(f"{n}", b"")])
            assert inserted.status is InsertStatus.CREATED
        claimed = [job for _ in range(40) for job in (await store.exchange("q", "w", (), 1, 60_000)).jobs]
        assert [job.id for job in claimed] == [f"{n}" for n in range(40)]
        assert {job.attempts for job in claimed} == {1}
        for job in claimed:
            done = Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000)
            assert (await store.exchange("q", "w", [done], 0, 60_000)).settled == ["accepted"]
        assert (await store.counts("q")).completed == 40
        await store.close()


class RepeatingPostgresStorage(RestlessPostgresStorage):
    """Makes every call that changes something twice."""

    lose_every = 1


async def test_what_leaves_no_record_is_answered_the_same_when_it_is_repeated() -> None:
    async with postgres_storage(kind=RepeatingPostgresStorage) as store:
        await store.open()
        await store.insert("q", [NewJob(id, b"", ttl=60_000, max_stalls=0) for id in "abcd"])
        failing, short, running = (await store.exchange("q", "w", (), 3, 60_000)).jobs
        settled = [
            Settlement(failing.id, failing.fence, Action.FAIL, b"e", 60_000),
            Settlement(short.id, short.fence, Action.COMPLETE, b"r", 0),
        ]
        assert (await store.exchange("q", "w", settled, 0, 1_000)).settled == ["accepted", "accepted"]
        assert await store.revive("q", ["a"]) == [True]
        assert await store.cancel("q", ["a", "d"]) == ["cancelled", "cancelled"]
        assert await store.set_ttl("q", [("a", 0)]) == ["updated"]
        assert await store.forget("q", ["d"]) == [True]
        await store.extend("q", "w", [Renewal(running.id, running.fence)], 0)
        assert [one.id for one in await store.sweep("q", 9)] == ["c"]
        (version,) = await store.write_documents("s", [Change("x", 0, b"1")])
        assert await store.write_documents("s", [Change("x", version, None)]) != [None]
        await store.lock_acquire("l", "me", 60_000)
        assert await store.lock_release("l", "me") is True
        then = Settlement("none", 1, Action.COMPLETE, b"r", 0, then=(NewJob("next", b""),))
        assert (await store.exchange("q", "w", [then], 0, 1_000)).settled == ["lost"]
        await store.close()


async def test_a_job_is_replaced_once_when_the_call_is_repeated() -> None:
    async with postgres_storage(kind=RepeatingPostgresStorage) as store:
        await store.open()
        await store.insert("q", [NewJob("a", b"old", ttl=60_000), NewJob("b", b"old", ttl=60_000)])
        replacing = NewJob("a", b"new", delay=50_000, ttl=60_000, conflict=Conflict.REPLACE)
        answers = await store.insert("q", [replacing, NewJob("c", b""), replacing._replace(id="d")])
        assert [str(answer.status) for answer in answers] == ["replaced", "created", "created"]
        records = await store.get("q", ["a", "c", "d"], payload=True)
        assert [answer.seq for answer in answers] == [record.seq for record in records if record is not None]
        assert (await store.counts("q"))[:2] == (2, 2)
        await store.close()


async def test_two_hundred_inserts_of_one_id_at_once_make_one_job() -> None:
    async with postgres_storage() as store:
        await store.open()
        answers = await asyncio.gather(*(store.insert("q", [NewJob("a", b"")]) for _ in range(200)))
        statuses = [one.status for (one,) in answers]
        assert (statuses.count(InsertStatus.CREATED), statuses.count(InsertStatus.FOUND)) == (1, 199)
        await store.close()


async def test_ended_connections_are_made_anew() -> None:
    async with postgres_storage(retry_for=30.0) as store, connection() as admin:
        await store.open()
        box = Box()
        await store.subscribe("q", "me", box)

        async def end_all() -> None:
            await admin.fetch(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'jobqueue'"
            )

        for n in range(12):
            await asyncio.gather(store.insert("q", [NewJob(f"{n}", b"")]), end_all())
            claimed, _ = await asyncio.gather(store.exchange("q", "w", (), 1, 60_000), end_all())
            (job,) = claimed.jobs
            assert (job.id, job.attempts) == (f"{n}", 1)
            done = Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000)
            settled, _ = await asyncio.gather(store.exchange("q", "w", [done], 0, 60_000), end_all())
            assert settled.settled == ["accepted"]
        async with asyncio.timeout(10):
            while not box.resyncs:
                await asyncio.sleep(0.02)
            await store.insert("q", [NewJob("last", b"", wait=True)], reply_to="me")
            (job,) = (await store.exchange("q", "w", (), 1, 60_000)).jobs
            await store.exchange(
                "q", "w", [Settlement("last", job.fence, Action.COMPLETE, b"r", 9_000)], 0, 9_000
            )
            while not box.replies:  # the listener may still be on its way back: then the waiter reads
                if (await store.get("q", ["last"]))[0].state == "completed":  # type: ignore[union-attr]
                    break
                await asyncio.sleep(0.02)
        await store.close()


async def test_an_id_that_another_transaction_holds_is_waited_for_and_then_named_unavailable() -> None:
    async with postgres_storage(retry_for=0.2, lock_timeout=0.1) as store, connection() as admin:
        await store.open()
        await store.insert("q", [NewJob("a", b"")])
        name = quoted(store._settings.schema)
        async with admin.transaction():
            await admin.execute(f"select * from {name}.ready for update")
            with pytest.raises(StorageUnavailableError, match="lock"):
                await store.cancel("q", ["a"])
            assert (await store.exchange("q", "w", (), 1, 1_000)).jobs == []
            await store.insert("q", [NewJob("b", b"")])
            assert [job.id for job in (await store.exchange("q", "w", (), 1, 1_000)).jobs] == ["b"]
        assert await store.cancel("q", ["a"]) == ["cancelled"]
        await store.close()


async def test_a_lock_that_is_released_in_time_is_waited_for() -> None:
    async with postgres_storage(lock_timeout=0.05) as store, connection() as admin:
        await store.open()
        await store.insert("q", [NewJob("a", b"")])
        async with admin.transaction():
            await admin.execute(f"select * from {quoted(store._settings.schema)}.ready for update")
            cancelling = asyncio.create_task(store.cancel("q", ["a"]))
            async with asyncio.timeout(10):
                while not await admin.fetchval("select count(*) from pg_locks where not granted"):
                    await asyncio.sleep(0.01)
        assert await cancelling == ["cancelled"]
        await store.close()


async def test_another_default_isolation_is_overruled() -> None:
    async with postgres_storage() as owner, connection() as admin:
        role = f"strict_{unique_id().replace('-', '_').lower()}"
        await admin.execute(
            f"create role {role} superuser login;"
            f"alter role {role} set default_transaction_isolation = serializable"
        )
        url = owner._settings.target.dsn.replace("//jq@", f"//{role}@")
        store = PostgresStorage(url, owner._settings.schema)
        await store.open()
        answers = await asyncio.gather(*(store.insert("q", [NewJob("a", b"")]) for _ in range(30)))
        assert [one.status for (one,) in answers].count(InsertStatus.CREATED) == 1
        opened = await store.begin()
        assert await opened.connection.fetchval("show transaction_isolation") == "read committed"
        await opened.rollback()
        await store.close()
        await admin.execute(f"drop role {role}")


async def test_work_goes_on_and_the_doctor_tells_of_a_transaction_that_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_OLD", 0.1)
    async with postgres_storage() as store, connection() as other, connection() as admin:
        await store.open()
        async with other.transaction(isolation="repeatable_read"):
            await other.fetch("select 1")
            for n in range(20):
                await store.insert("q", [NewJob(f"{n}", b"")])
                (job,) = (await store.exchange("q", "w", (), 1, 60_000)).jobs
                done = Settlement(job.id, job.fence, Action.COMPLETE, b"r", 60_000)
                assert (await store.exchange("q", "w", [done], 0, 60_000)).settled == ["accepted"]
            await admin.fetch("select pg_sleep(0.2)")
            (finding,) = [one for one in await store.diagnose() if one.name == "transactions"]
            assert finding.severity is Severity.WARNING
        await store.close()


async def test_numbers_rise_although_the_server_lost_its_last_writes() -> None:
    async with postgres_storage() as store, connection() as admin:
        await store.open()
        await store.insert("q", [NewJob("a", b""), NewJob("b", b"")])
        (first,) = (await store.exchange("q", "w", (), 1, 60_000)).jobs
        await admin.fetch("select setval($1::regclass, 5)", f"{quoted(store._settings.schema)}.number")
        (second,) = (await store.exchange("q", "w", (), 1, 60_000)).jobs
        assert second.fence > 1_700_000_000_000_000
        again = store.clone()
        await again.open()  # as after a failover: above all that may have been given
        (inserted,) = await again.insert("q", [NewJob("c", b"")])
        assert inserted.seq > max(first.fence, second.fence)
        await again.close()
        await store.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[PostgresServer]:
    private = PostgresServer(fsync=True).start()
    yield private
    private.remove()


async def test_a_server_that_is_killed_keeps_what_it_acknowledged(server: PostgresServer) -> None:
    store = PostgresStorage(server.url, retry_for=30.0)
    await store.apply_schema()
    await store.open()
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def produce(lane: int) -> None:
        n = 0
        while not stop.is_set():
            id = f"{lane}-{n}"
            (inserted,) = await store.insert("q", [NewJob(id, b"")])
            assert inserted.status is InsertStatus.CREATED
            acknowledged.append(id)
            n += 1

    lanes = [asyncio.create_task(produce(lane)) for lane in range(8)]
    for _ in range(2):
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.gather(*lanes)
    claimed: list[str] = []
    while jobs := (await store.exchange("q", "w", (), 500, 60_000)).jobs:
        claimed += [job.id for job in jobs]
    assert sorted(claimed) == sorted(acknowledged)
    await store.close()


async def test_a_server_that_is_away_is_said_to_be(server: PostgresServer) -> None:
    store = PostgresStorage(server.url, retry_for=0.3, connect_timeout=1.0)
    await store.apply_schema()
    await store.open()
    server.stop()
    with pytest.raises(StorageUnavailableError):
        await store.counts("q")
    assert await store.wait_for_work("q", "w", 0.1) is False
    await store.close()


TestRestlessModel = model_test(restless, max_examples=3)
