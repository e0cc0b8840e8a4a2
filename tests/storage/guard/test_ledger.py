"""What the ledger is told, and what it takes to tell it."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit, urlunsplit

import pytest
from click.testing import CliRunner

from jobqueue.cli.main import main
from jobqueue.model.new_job import Conflict
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.guard import GuardedStorage, PostgresLedger
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import InsertStatus, NewJob
from tests.services import Server
from tests.storage.guard.support import rows
from tests.storage.guard.test_losses import told
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection


async def test_rights_to_read_and_write_rows_are_enough(redis: Server, schema: str) -> None:
    user, name = f"guard_{unique_id().replace('-', '_').lower()}", quoted(schema)
    async with connection() as admin:
        await admin.execute(f"create role {user} login")
        await admin.execute(f"grant usage on schema {name} to {user}")
        await admin.execute(f"grant select, insert, update, delete on all tables in schema {name} to {user}")
    parts = urlsplit(postgres_url())
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"{user}@{host}"))
    store = GuardedStorage(RedisStorage(redis.url), PostgresLedger(url, schema))
    await store.open()
    await store.insert("q", [NewJob("a", b""), NewJob("b", b"")])
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    await store.exchange("q", "w", [Settlement(job.id, job.fence, Action.COMPLETE, b"", 60_000)], 0, 60_000)
    await told(store)
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    assert await store._open_session().reconciler.clean() == 0
    assert (await store.guard.stats()).total == 2
    assert [event.event for event in await store.guard.history("q", "a")] == [
        "enqueued",
        "claimed",
        "completed",
    ]
    await store.close()


async def test_every_change_of_state_is_told(store: GuardedStorage, schema: str) -> None:
    async def history(id: str) -> list[str]:
        await told(store)
        return [event.event for event in await store.guard.history("q", id)]

    async def claim(id: str) -> int:
        (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
        assert job.id == id
        return job.fence

    async def settle(id: str, fence: int, action: Action, data: bytes = b"") -> None:
        await store.exchange("q", "w", [Settlement(id, fence, action, data, 60_000)], 0, 60_000)

    await store.insert("q", [NewJob("a", b"")])
    await settle("a", await claim("a"), Action.RETRY, b'{"type":"E","message":"m"}')
    await settle("a", await claim("a"), Action.FAIL, b'{"type":"E","message":"m"}')
    assert await store.revive("q", ["a"]) == [True]
    await settle("a", await claim("a"), Action.RELEASE)
    (stalled,) = (await store.exchange("q", "dies", [], 1, 1)).jobs
    await asyncio.sleep(0.05)
    assert [job.id for job in await store.sweep("q", 10)] == [stalled.id]
    fence = await claim("a")
    await store.cancel("q", ["a"], running=True)
    await settle("a", fence, Action.COMPLETE, b"r")
    assert await history("a") == [
        "enqueued", "claimed", "retried", "claimed", "failed", "revived", "claimed", "released", "claimed",
        "recovered", "claimed", "cancelled",
    ]  # fmt: skip
    await store.insert("q", [NewJob("b", b"")])
    await store.cancel("q", ["b"])
    assert await history("b") == ["enqueued", "cancelled"]
    await store.insert("q", [NewJob("c", b"")])
    assert await store.forget("q", ["c"]) == [True]
    assert await history("c") == ["enqueued", "removed"]
    assert [state for _, state in await rows(schema)] == [7, 7, 7]


async def test_the_ledger_learns_which_jobs_have_not_started_in_time(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    await store.insert("q", [NewJob(id, b"", expires=1) for id in "ab"])
    await asyncio.sleep(0.01)
    assert [(job.id, job.expired) for job in await store.sweep("q", 1)] == [("a", True)]
    assert (await store.exchange("q", "w", [], 1, 60_000)).expired == ("b",)
    await told(store)
    assert await rows(schema) == [("a", 6), ("b", 6)]
    assert [event.event for event in await store.guard.history("q", "b")] == ["enqueued", "expired"]
    await store.insert("q", [NewJob("c", b"", expires=1)])
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    assert (await store.exchange("q", "w", [], 1, 60_000)).expired == ("c",), "it is late all the same"


async def test_jobs_that_follow_are_guarded_too(redis: Server, store: GuardedStorage, schema: str) -> None:
    await store.insert("q", [NewJob("first", b"")])
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    then = (NewJob("second", b"2"),)
    stale = Settlement("first", job.fence + 1, Action.COMPLETE, b"", 60_000, then=(NewJob("never", b""),))
    done = Settlement("first", job.fence, Action.COMPLETE, b"", 60_000, then=then)
    await store.exchange("q", "w", [stale, done], 0, 60_000)
    await told(store)
    assert await rows(schema) == [("first", 5), ("second", 2)]
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    (job,) = (await store.exchange("q", "w", [], 1, 60_000)).jobs
    assert (job.id, job.payload) == ("second", b"2")


async def test_every_field_of_a_job_comes_back(store: GuardedStorage, schema: str) -> None:
    job = NewJob(
        "a", b"p", priority=7, run_at=2_000_000_000_000, max_attempts=9, max_stalls=8, ttl=77, headers=b"h",
        task="t", group="g", dead_letter_ttl=66, weight=5, expires=44,
    )  # fmt: skip
    await store.insert("q", [job])
    ((token,),) = await rows(schema, "token")
    back = (await store._open_session().ledger.jobs([token.hex]))[token.hex]
    assert back == job
    plain = NewJob("a", b"p")._asdict()
    same = {name for name, value in plain.items() if value == getattr(job, name)}
    assert same - {"id", "payload"} == {"delay", "reuse", "wait", "conflict"}, "a new field belongs in here"


async def test_an_outcome_that_the_ledger_has_not_heard_of_is_found_by_comparing(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    unguarded = RedisStorage(redis.url)
    await unguarded.open()
    await store.insert("q", [NewJob("a", b"")])
    (job,) = (await unguarded.exchange("q", "w", [], 1, 60_000)).jobs
    done = Settlement("a", job.fence, Action.COMPLETE, b"result", 60_000)
    await unguarded.exchange("q", "w", [done], 0, 60_000)
    await unguarded.close()
    assert await rows(schema) == [("a", 2)]
    assert (await store.guard.reconcile()).updated == 1
    assert await rows(schema, "id, state, outcome") == [("a", 5, b"result")]
    (record,) = await store.get("q", ["a"])
    assert record is not None
    assert record.state is JobState.COMPLETED


async def test_a_job_that_was_replaced_comes_back_as_the_new_one(
    redis: Server, store: GuardedStorage, schema: str
) -> None:
    await store.insert("q", [NewJob("a", b"old", delay=3_600_000)])
    later = NewJob("a", b"new", priority=3, delay=1_000, conflict=Conflict.DEBOUNCE)
    (answer,) = await store.insert("q", [later])
    assert answer.status is InsertStatus.REPLACED
    (before,) = await store.get("q", ["a"])
    await told(store)
    redis.command("FLUSHALL")
    assert (await store.guard.reconcile()).requeued == 1
    (record,) = await store.get("q", ["a"], payload=True)
    assert before is not None
    assert record is not None
    assert (record.payload, record.priority) == (b"new", 3)
    assert abs(record.run_at - before.run_at) < 2_000
    assert [state for _, state in await rows(schema)] == [8, 1]


@pytest.mark.parametrize("way", ["call", "script", "command"])
async def test_the_tables_are_made_by_a_call_a_script_or_a_command(redis: Server, way: str) -> None:
    name = f"made_{unique_id().replace('-', '_').lower()}"
    url = urlsplit(postgres_url())
    dsn = urlunsplit(url._replace(query=f"{url.query}&schema={name}"))
    store = GuardedStorage(RedisStorage(redis.url), PostgresLedger(dsn))
    match way:
        case "call":
            assert await store.apply_schema() == (0, 1)
        case "script":  # for migrations of one's own
            async with connection() as admin:
                await admin.execute(store.schema_script())
        case _:
            arguments = ["schema", "print", "-s", redis.url, "--ledger", dsn]
            printed = await asyncio.to_thread(CliRunner().invoke, main, arguments, prog_name="jobqueue")
            assert printed.exit_code == 0, printed.output
            async with connection() as admin:
                await admin.execute(printed.stdout)
    assert await store.check_schema() == 1
    assert await store.apply_schema() == (1, 1), "once is enough"
    await store.open()
    await store.insert("q", [NewJob("a", b"")])
    assert (await store.guard.stats()).pending == 1
    await store.close()


async def test_sql_reads_what_happened_to_a_job(redis: Server, store: GuardedStorage, schema: str) -> None:
    await store.insert("q", [NewJob("a", b"")])
    (job,) = (await store.exchange("q", "worker-1", [], 1, 60_000)).jobs
    await told(store)
    redis.command("FLUSHALL")
    await store.guard.reconcile()
    (again,) = (await store.exchange("q", "worker-2", [], 1, 60_000)).jobs
    done = Settlement("a", again.fence, Action.COMPLETE, b"r", 60_000)
    await store.exchange("q", "worker-2", [done], 0, 60_000)
    await told(store)
    async with connection() as admin:
        found = await admin.fetch(
            f"select event, worker, attempt from {quoted(schema)}.audit where id = 'a' order by at"
        )
    assert [tuple(row) for row in found] == [
        ("enqueued", None, 0), ("claimed", "worker-1", 1), ("requeued", "", 1), ("claimed", "worker-2", 1),
        ("completed", "worker-2", 1),
    ]  # fmt: skip
    assert job.payload == b""


async def test_the_log_of_a_guard_is_steered_like_any_other(
    redis: Server, store: GuardedStorage, caplog: pytest.LogCaptureFixture
) -> None:
    for level, said in ((logging.WARNING, 1), (logging.ERROR, 0)):
        caplog.clear()
        with caplog.at_level(level, "jobqueue"):
            redis.command("FLUSHALL")
            await store._open_session().epoch.look()
        assert caplog.text.count("the store was wiped") == said
        assert {record.name for record in caplog.records} <= {"jobqueue.storage.guard"}
