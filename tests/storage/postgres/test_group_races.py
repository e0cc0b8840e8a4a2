"""Races of groups and limits in SQL: no group stays parked, nobody waits in a circle, limits hold."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import pytest

from jobqueue.errors import StorageUnavailableError
from jobqueue.model.limits import Limit, Rate
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.postgres import PostgresStorage, statements
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import Claimed, Conflict, NewJob, Reuse, Rules, SettleStatus
from jobqueue.testing import FakeClock
from tests.storage.postgres.support import connection, postgres_storage
from tests.support import within

SECONDS = float(os.environ.get("JOBQUEUE_CHAOS_SECONDS", "4"))
SEED = int(os.environ.get("JOBQUEUE_CHAOS_SEED", "1"))
LEASE = 60_000
ENDS = (Action.COMPLETE, Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)
ONE_OF_EACH = Rules(group=Limit(running=1))


def schema_of(store: PostgresStorage) -> str:
    return quoted(store._settings.schema)


def done(run: Claimed) -> Settlement:
    return Settlement(run.id, run.fence, Action.COMPLETE, b"true", LEASE)


async def ids(store: PostgresStorage, *, lease: int = LEASE) -> list[str]:
    return [job.id for job in (await store.exchange("q", "w", [], 10, lease)).jobs]


async def test_a_sweep_that_passes_by_a_locked_run_has_the_group_of_the_next_one_go_on() -> None:
    clock = FakeClock()
    async with postgres_storage(clock) as store, connection() as mine:
        await store.open()
        assert await store.set_rules("q", ONE_OF_EACH)
        await store.insert(
            "q", [NewJob("a", b"", group="a"), *(NewJob(f"b{n}", b"", group="b") for n in (1, 2))]
        )
        assert await ids(store, lease=1_000) == ["a", "b1"]
        clock.move(2.0)
        async with mine.transaction():
            await mine.execute(f"select 1 from {schema_of(store)}.lease where id = 'a' for update")
            assert [job.id for job in await within(store.sweep("q", 1))] == ["b1"]
        assert await store.check() == []
        assert await ids(store) == ["b1"]
        await store.close()


async def test_who_has_waited_for_a_turn_knows_the_limits_that_were_set_meanwhile() -> None:
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        assert await store.set_rules("q", Rules(queue=Limit(running=5)))
        s = schema_of(store)
        (number,) = await mine.fetchrow(f"select queue from {s}.queue") or ()
        async with mine.transaction():
            await mine.execute(f"select {s}.lock_turns($1)", number)
            waiting = asyncio.create_task(other.fetchval(f"select running from {s}.lock_turns($1)", number))
            pid = other.get_server_pid()
            while not await mine.fetchval(
                "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1", pid
            ):
                await asyncio.sleep(0.01)
            await mine.execute(f'update {s}.queue set rules = \'{{"queue":{{"running":3}}}}\'')
        assert await within(waiting) == 3
        await store.close()


async def test_who_cancels_holds_no_line_while_it_waits_for_a_run() -> None:
    """Or a claim that has the run in hand and finds the line at its limit would wait for it in turn."""
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        await store.insert("q", [NewJob(id, b"", group=id[0]) for id in ("g1", "g2", "h1")])
        assert await store.set_rules("q", ONE_OF_EACH)
        assert await ids(store) == ["g1", "h1"]
        s = schema_of(store)
        async with mine.transaction():
            await mine.execute(f"select 1 from {s}.lease where id = 'h1' for update")
            cancelling = asyncio.create_task(store.cancel("q", ["g2", "h1"], running=True))
            while not await other.fetchval("select exists (select 1 from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
            await within(mine.execute(f"update {s}.line set opens = null where group_name = 'g'"), 0.9)
        assert await within(cancelling) == ["cancelled", "cancelling"]
        await store.close()


async def test_who_ends_runs_with_jobs_that_follow_takes_them_in_the_order_of_all_others() -> None:
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        await store.insert("q", [NewJob(id, b"") for id in "ab"])
        a, b = (await store.exchange("q", "w", [], 2, LEASE)).jobs
        following = Settlement(b.id, b.fence, Action.COMPLETE, b"true", LEASE, then=(NewJob("c", b""),))
        s = schema_of(store)
        async with mine.transaction():
            await mine.execute(f"select 1 from {s}.lease where id = 'a' for update")
            ending = asyncio.create_task(store.exchange("q", "w", [following, done(a)], 0, LEASE))
            while not await other.fetchval("select exists (select 1 from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
            await other.execute(f"select 1 from {s}.lease where id = 'b' for update nowait")
        assert (await within(ending)).settled == [SettleStatus.ACCEPTED] * 2
        await store.close()


async def test_who_deletes_jobs_holds_no_line_while_it_waits_for_a_job() -> None:
    """Or somebody who revives that job, and puts it into the line, would wait for it in turn."""
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        await store.insert("q", [NewJob("a", b"", group="g"), NewJob("b", b"")])
        assert await store.cancel("q", ["b"]) == ["cancelled"]
        s = schema_of(store)
        async with mine.transaction():
            await mine.execute(f"select 1 from {s}.job where id = 'b' for update")
            deleting = asyncio.create_task(store.forget("q", ["a", "b"]))
            while not await other.fetchval("select exists (select 1 from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
            await within(mine.execute(f"update {s}.line set opens = null where group_name = 'g'"), 0.9)
        assert await within(deleting) == [True, True]
        await store.close()


CLAIMING = (
    "pg_advisory_xact_lock_shared(('{s}.queue'::regclass::oid::bigint - 2147483648)::int, hashtext('q'))"
)


@pytest.mark.parametrize(
    ("holds", "writes"),
    [
        (CLAIMING, "{s}.queue_number('q')"),
        (CLAIMING, "{s}.use_groups({s}.queue_number('q'))"),
        ("{s}.lock_turns({s}.queue_number('q'))", "{s}.use_groups({s}.queue_number('q'))"),
    ],
    ids=[
        "a claim of an unknown queue",
        "a claim with the first group",
        "the end of a run with the first group",
    ],
)
async def test_who_sets_rules_holds_no_row_while_it_waits_for_a_claim(holds: str, writes: str) -> None:
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        if writes.count("{s}") > 1:
            assert await store.set_rules("q", Rules(queue=Limit(running=5)))
        s = schema_of(store)
        as_text = s.replace("'", "''")
        async with mine.transaction():
            await mine.execute("select " + holds.replace("'{s}", f"'{as_text}").replace("{s}", s))
            setting = asyncio.create_task(store.set_rules("q", ONE_OF_EACH))
            while not await other.fetchval("select exists (select 1 from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
            await within(mine.execute("select " + writes.replace("{s}", s)), 0.9)
        assert await within(setting)
        await store.close()


@pytest.mark.parametrize("then", ["a worker claims", "the transaction ends a run"])
async def test_who_sets_rules_keeps_nobody_waiting_while_a_caller_has_the_queue(then: str) -> None:
    """As an open transaction that has inserted into a queue that is nearly full."""
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        await store.insert("q", [NewJob("a", b"")])
        assert await store.set_rules("q", Rules(queue=Limit(running=5)))
        s = schema_of(store)
        async with mine.transaction():
            await mine.execute(f"select 1 from {s}.queue for update")
            setting = asyncio.create_task(store.set_rules("q", ONE_OF_EACH))
            while not await other.fetchval(
                "select exists (select 1 from pg_stat_activity"
                " where wait_event = 'PgSleep' and query ~ 'set_rules')"
            ):
                await asyncio.sleep(0.01)
            if then == "a worker claims":
                assert await within(ids(store), 0.9) == ["a"]
            else:
                await within(mine.execute(f"select {s}.lock_turns({s}.queue_number('q'))"), 0.9)
        assert await within(setting)
        assert (await store.get_rules("q")).rules == ONE_OF_EACH
        await store.close()


async def test_a_client_that_freezes_before_its_commit_does_not_hold_up_the_queue_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statements, "_COMMIT_WITHIN", 300)
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob(id, b"", group="g") for id in "ab"])
        (run,) = (await store.exchange("q", "w", [], 1, LEASE)).jobs
        session = store._open_session()
        transaction = await store.begin()
        settled = await session.statements.settle_in(transaction.connection, "q", done(run), 5.0)
        assert settled is SettleStatus.ACCEPTED
        assert await within(ids(store)) == ["b"]
        with pytest.raises(StorageUnavailableError):
            await transaction.settle("q", done(run))
        (record,) = await store.get("q", ["a"])
        assert record is not None
        assert record.state == "processing"
        await store.close()


async def test_a_purge_passes_by_the_jobs_that_an_open_transaction_of_a_caller_has_locked() -> None:
    clock = FakeClock()
    async with postgres_storage(clock) as store, connection() as mine:
        await store.open()
        await store.insert("q", [NewJob(id, b"") for id in "ab"])
        runs = (await store.exchange("q", "w", [], 2, LEASE)).jobs
        await store.exchange("q", "w", [done(run) for run in runs], 0, LEASE)
        async with mine.transaction():
            joining = NewJob("a", b"", conflict=Conflict.REPLACE)
            assert [one.status for one in await store.inside(mine).insert("q", [joining])] == ["found"]
            clock.move(LEASE / 1000 + 1)
            assert await within(store.purge("q", 10), 2.0) == 1
        assert await store.purge("q", 10) == 1
        await store.close()


async def test_who_cancels_runs_takes_them_in_the_order_in_which_workers_renew_them() -> None:
    async with postgres_storage() as store, connection() as mine, connection() as other:
        await store.open()
        await store.insert("q", [NewJob(id, b"") for id in "ab"])
        first, _ = (await store.exchange("q", "w", [], 2, LEASE)).jobs
        await store.exchange("q", "w", [Settlement(first.id, first.fence, Action.RELEASE)], 1, LEASE)
        s = schema_of(store)
        async with mine.transaction():
            await mine.execute(f"select 1 from {s}.lease where id = 'b' for update")
            cancelling = asyncio.create_task(store.cancel("q", ["a", "b"], running=True))
            while not await other.fetchval("select exists (select 1 from pg_locks where not granted)"):
                await asyncio.sleep(0.01)
            await other.execute(f"select 1 from {s}.lease where id = 'a' for update nowait")
        assert await within(cancelling) == ["cancelling", "cancelling"]
        await store.close()


# -- everything at once ----------------------------------------------------------------------------


class Storm:
    """Calls of all kinds at random, by several stores at once."""

    def __init__(self, stores: list[PostgresStorage], seed: int) -> None:
        self.stores = stores
        self.dice = random.Random(seed)
        self.end = time.monotonic() + SECONDS

    def new(self, *, joins: bool = False) -> NewJob:
        dice = self.dice
        ttl, delay = dice.choice((0, LEASE)), dice.choice((0, 0, 0, 100))
        conflict = Conflict.JOIN if joins else dice.choice((Conflict.JOIN, Conflict.JOIN, *Conflict))
        return NewJob(
            f"{dice.randrange(300)}", b"x", priority=dice.choice((0, 0, 1)), delay=delay, ttl=ttl,
            group=dice.choice(("", *"aabbcde")), weight=dice.choice((1, 1, 3)), max_stalls=2,
            reuse=dice.choice(tuple(Reuse)), conflict=conflict, expires=dice.choice((None, None, None, 100)),
        )  # fmt: skip

    async def insert(self, store: PostgresStorage) -> None:
        await store.insert("q", [self.new() for _ in range(self.dice.randrange(1, 9))], reply_to="me")

    async def work(self, store: PostgresStorage) -> None:
        held: list[Claimed] = []
        for _ in range(4):
            ending = [run for run in held if self.dice.random() < 0.7]
            settlements = [self.settlement(run) for run in ending]
            held = [run for run in held if run not in ending]
            answer = await store.exchange("q", "w", settlements, self.dice.choice((0, 1, 8)), 200)
            held += answer.jobs  # those that are left at the end are for a sweep

    def settlement(self, run: Claimed) -> Settlement:
        action = self.dice.choice(ENDS)
        then = (self.new(joins=True),) if self.dice.random() < 0.2 else ()
        return Settlement(run.id, run.fence, action, b"x", LEASE, summary=b"x", then=then)

    async def end_some(self, store: PostgresStorage) -> None:
        some = [f"{self.dice.randrange(300)}" for _ in range(self.dice.choice((1, 20)))]
        await self.dice.choice((
            lambda: store.cancel("q", some, running=True), lambda: store.forget("q", some),
            lambda: store.revive("q", some), lambda: store.get("q", some, reply_to="me"),
            lambda: store.sweep("q", self.dice.choice((1, 100))), lambda: store.purge("q", 100),
        ))()  # fmt: skip

    async def limit(self, store: PostgresStorage) -> None:
        await store.set_rules("q", self.dice.choice((
            None, ONE_OF_EACH, Rules(queue=Limit(running=9), group=Limit(running=2)), Rules(paused=True),
            Rules(group=Limit(running=2, rate=Rate(20))),
        )))  # fmt: skip
        await asyncio.sleep(0.2)

    async def call(self, act: Any, store: PostgresStorage) -> None:
        while time.monotonic() < self.end:
            await act(store)

    async def run(self) -> None:
        acts = [*(act for _ in self.stores for act in (self.insert, self.work, self.end_some)), self.limit]
        await asyncio.gather(
            *(self.call(act, self.stores[n % len(self.stores)]) for n, act in enumerate(acts))
        )


async def test_whatever_is_called_at_once_no_group_is_left_behind_and_nobody_waits_in_a_circle() -> None:
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    async with postgres_storage() as store, connection() as admin:
        stores = [store, store.clone(), store.clone()]
        for each in stores:
            await each.open()
        before = await admin.fetchval(deadlocks)
        await Storm(stores, SEED).run()
        assert await store.check() == []
        assert await store.set_rules("q", ONE_OF_EACH)
        give_up_at = time.monotonic() + 30.0
        left = 1
        while left:  # runs that were left alone are swept when their leases are over
            assert time.monotonic() < give_up_at
            await store.sweep("q", 1_000)
            jobs = (await store.exchange("q", "w", [], 50, LEASE)).jobs
            assert len({job.group for job in jobs if job.group}) == len([job for job in jobs if job.group])
            await store.exchange("q", "w", [done(job) for job in jobs], 0, LEASE)
            left = sum((await store.counts("q"))[:4])
        assert await store.check() == []
        assert await admin.fetch(f"select * from {schema_of(store)}.line") == []
        for each in stores:
            await each.close()
        assert await admin.fetchval(deadlocks) == before
