"""What each call looks at: no more than it was asked about, however the tables were when it was planned."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import Conflict, Limit, NewJob, Rate, Renewal, Rules
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import TABLES, connection

FEW = 10
MANY = 4_000
"""Jobs of each kind in a table that is not empty."""
MOST_EXAMINED = 300
"""Rows that a call about `FEW` jobs may look at in one step of its plan."""
BIG = frozenset({"job", "ready", "due", "outcome", "detail", "attempt", "waiter", "line", "pace"})
EXPLAIN = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_analyze = on;
set auto_explain.log_timing = off;
set auto_explain.log_nested_statements = on;
set auto_explain.log_format = json;
set client_min_messages = log;
"""


class Plans:
    """The plans of a store with one connection, while it is asked for them."""

    def __init__(self, store: PostgresStorage, schema: str) -> None:
        self.store = store
        self.schema = schema
        self._plans: list[dict[str, Any]] = []

    async def explain(self) -> None:
        """Record the plans from now on; skip the test where the server cannot tell them."""

        async def ask(connected: asyncpg.Connection[Any], _repeated: bool) -> None:
            await connected.execute(EXPLAIN)
            connected.add_log_listener(self._hear)

        try:
            await self.store._open_session().pool.run(ask)
        except Exception as error:
            pytest.skip(f"no auto_explain: {error}")

    def _hear(self, _connection: object, message: Any) -> None:
        _, found, plan = message.message.partition("plan:\n")
        if found:
            self._plans.append(json.loads(plan))

    def check(self) -> None:
        """Raise unless each step looked at few rows of each big table."""
        assert self._plans
        for plan in self._plans:
            if "limit 1001" in plan["Query Text"] or "set slot = v_now" in plan["Query Text"]:
                continue  # of take_turn, which counts what is left in a slot, and moves it
            for node in _nodes(plan["Plan"]):
                table = re.sub(r"_\d$", "", node.get("Relation Name", ""))  # of slots: their table
                removed = sum(value for key, value in node.items() if key.startswith("Rows Removed"))
                examined = (node.get("Actual Rows", 0) + removed) * node.get("Actual Loops", 1)
                if table in BIG and examined > MOST_EXAMINED:
                    text = json.dumps(node, indent=1)
                    pytest.fail(f"{examined} rows of {table} in: {plan['Query Text']:.600}\n{text:.1500}")
        self._plans.clear()


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


@asynccontextmanager
async def new_schema() -> AsyncIterator[str]:
    """Make a schema that no test has used: rows that others have deleted are looked at, too."""
    schema = f"plans {unique_id()}"
    await PostgresStorage(postgres_url(), schema).apply_schema()
    yield schema
    async with connection() as admin:
        await admin.execute(f"drop schema {quoted(schema)} cascade")


@asynccontextmanager
async def opened() -> AsyncIterator[Plans]:
    async with new_schema() as schema:
        store = PostgresStorage(postgres_url(), schema, pool_size=1)
        await store.open()
        try:
            yield Plans(store, schema)
        finally:
            await store.close()


async def fill(store: PostgresStorage, name: str) -> None:
    """Have many jobs in every state but running."""
    for start in range(0, MANY, 1_000):
        jobs = [NewJob(f"{name}-done-{n}", b"x", priority=1) for n in range(start, start + 1_000)]
        await store.insert("q", jobs)
        claimed = (await store.exchange("q", "w", [], 1_000, 60_000)).jobs
        done = [Settlement(job.id, job.fence, Action.COMPLETE, b"true", 60_000) for job in claimed]
        await store.exchange("q", "w", done, 0, 60_000)
        await store.insert("q", [NewJob(f"{name}-ready-{n}", b"x") for n in range(start, start + 1_000)])
        later = [NewJob(f"{name}-due-{n}", b"x", delay=600_000) for n in range(start, start + 1_000)]
        await store.insert("q", later)
        groups = [
            NewJob(f"{name}-group-{n}", b"x", group=f"{n % 1_000}") for n in range(start, start + 1_000)
        ]
        await store.insert("of-groups", groups)


async def every_call(store: PostgresStorage, name: str) -> None:
    """Make each call about a few jobs."""
    ids = [f"{name}-{n}" for n in range(FEW)]
    await store.insert("q", [NewJob(id, b"x", priority=5, wait=True) for id in ids], reply_to="a")
    await store.insert("q", [NewJob(id, b"x", wait=True) for id in ids], reply_to="b")
    claimed = (await store.exchange("q", "w", [], FEW, 60_000)).jobs
    assert sorted(job.id for job in claimed) == sorted(ids)
    await store.extend("q", "w", [Renewal(job.id, job.fence, b"1", b"2") for job in claimed], 60_000)
    actions = [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.COMPLETE] * 2
    settlements = [
        Settlement(job.id, job.fence, action, b"{}", 60_000, 0, b"{}")
        for job, action in zip(claimed, actions, strict=True)
    ]
    again = (await store.exchange("q", "w", settlements, FEW, 60_000)).jobs
    await store.exchange("q", "w", settlements, 0, 60_000)  # as if the answer had been lost
    back = [Settlement(job.id, job.fence, Action.RELEASE) for job in again]
    await store.exchange("q", "w", back, 0, 60_000)
    await store.get("q", ids, payload=True)
    await store.set_ttl("q", [(id, 1_000) for id in ids])
    await store._open_session().statements.outcomes("q", [job.seq for job in claimed])
    await store._open_session().statements.work_in("q")
    for state in JobState:
        await store.scan("q", state, FEW)
    await store.cancel("q", ids[:5])
    failed = [s.id for s in settlements if s.action is Action.FAIL]
    await store.revive("q", failed)
    await store.forget("q", ids)
    await store.sweep("q", FEW)
    await store.purge("q", FEW)
    await store.to_sweep(["q"])
    await every_call_of_groups(store, name)


async def every_call_of_groups(store: PostgresStorage, name: str) -> None:
    """Make each call that looks at groups and limits, in a queue that has many of them."""
    queue, half = "of-groups", FEW // 2
    for rules in (
        Rules(),
        Rules(queue=Limit(running=1_000), group=Limit(running=2, rate=Rate(1_000, burst=1_000))),
        Rules(group=Limit(running=1)),
    ):
        await store.set_rules(queue, rules)
        ids = [f"{name}-{rules.group.running}-{n}" for n in range(FEW)]
        jobs = [NewJob(id, b"x", group=f"{n % half}", weight=1 + n % 2) for n, id in enumerate(ids)]
        await store.insert(queue, jobs)
        await store.insert(queue, [NewJob(ids[0], b"x", group="other", conflict=Conflict.REPLACE)])
        await store.insert(queue, [NewJob(f"{ids[0]}-plain", b"x")])
        for count in (1, FEW):
            claimed = (await store.exchange(queue, "w", [], count, 60_000)).jobs
            assert claimed
            back = [Settlement(job.id, job.fence, Action.RELEASE) for job in claimed]
            await store.exchange(queue, "w", back, 0, 60_000)
        await store.usage(queue, ["", "0", "1"])
        await store._open_session().statements.work_in(queue)
        await store.cancel(queue, ids)
        await store.sweep(queue, FEW)
        await store.purge(queue, FEW)


async def analyze(schema: str) -> None:
    async with connection() as admin:
        await admin.execute(";".join(f"analyze {quoted(schema)}.{table}" for table in TABLES))


async def test_plans_that_were_made_for_empty_tables_fit_full_ones() -> None:
    async with opened() as plans:
        await every_call(plans.store, "a")
        await analyze(plans.schema)
        await every_call(plans.store, "b")
        await fill(plans.store, "f")
        await plans.explain()
        await every_call(plans.store, "c")
        plans.check()


async def test_plans_that_are_made_for_full_tables_fit_them() -> None:
    async with opened() as plans:
        await fill(plans.store, "f")
        await plans.explain()
        await every_call(plans.store, "a")
        plans.check()
        await analyze(plans.schema)
        await every_call(plans.store, "b")
        plans.check()
