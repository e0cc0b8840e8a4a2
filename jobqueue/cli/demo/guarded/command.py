"""``jobqueue demo --guard``: makes what the experiment needs, runs it, and says what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobqueue.cli.demo.guarded.check import judge
from jobqueue.cli.demo.guarded.display import live, result
from jobqueue.cli.demo.guarded.scenario import Seen, Setting, experiment
from jobqueue.cli.demo.guarded.servers import Postgres, Redis, postgres_binaries, redis_binary
from jobqueue.cli.exits import Failure
from jobqueue.cli.output import console, emit_json, show
from jobqueue.cli.running import run_fast
from jobqueue.runtime.ids import unique_id
from jobqueue.runtime.text import printable
from jobqueue.storage.guard import PostgresLedger
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.target import Timeouts, connect, parse_dsn
from jobqueue.storage.urls import redact

__all__ = ["guard_demo"]

TIMEOUTS = Timeouts(5.0, 60.0, 10.0)


def guard_demo(ledger: str | None, jobs: int, slots: int, output: str) -> None:
    """Run the experiment and show its result. Raises `Failure` if anything is not as it must be."""
    binary = redis_binary()
    if ledger is None and postgres_binaries() is None:
        raise Failure(
            "demo --guard needs a PostgreSQL: give --ledger postgresql://… or set JOBQUEUE_LEDGER, or "
            "install the server (postgres and initdb), which is then started for the demo alone"
        )
    err = console(stderr=True)
    where = "a PostgreSQL of its own" if ledger is None else redact(ledger)
    err.print(printable(f"{jobs:,} jobs on a Redis without persistence, {slots} slots, guarded by {where}"))
    numbers = run_fast(_run(binary, ledger, jobs, slots))
    if output == "json":
        emit_json(numbers)
    else:
        show(result(numbers))
    for line in numbers["wrong"]:
        err.print(printable(line))
    if numbers["wrong"]:
        raise Failure("not as it must be: this is a defect of jobqueue")


async def _run(binary: str, ledger: str | None, jobs: int, slots: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="jobqueue-demo-")))
        if ledger is None:
            binaries = postgres_binaries()
            assert binaries is not None
            postgres = Postgres(binaries)
            stack.callback(postgres.remove)
            await asyncio.to_thread(postgres.start)
            ledger = postgres.url
        redis = Redis(binary)
        stack.callback(redis.remove)
        await asyncio.to_thread(redis.start)
        schema = f"jobqueue_demo_{unique_id().replace('-', '_').lower()}"
        await PostgresLedger(ledger, schema).apply_schema()
        target, _ = parse_dsn(ledger)
        connection = await connect(target, TIMEOUTS)
        stack.push_async_callback(connection.close)
        stack.push_async_callback(connection.execute, f"drop schema {quoted(schema)} cascade")
        setting = Setting(redis, ledger, schema, jobs, slots, directory / "runs")
        with live(console(stderr=True), jobs) as showing:
            seen = await experiment(setting, showing)
        verdict = await judge(connection, schema, list(setting.ids()), Counter(id for id, _ in seen.runs))
    return _numbers(setting, seen) | {
        "never_ran": verdict.never_ran,
        "rows": verdict.rows,
        "completed": verdict.completed,
        "lost": jobs - verdict.completed,
        "brought_back": verdict.brought_back,
        "second_runs": verdict.second_runs,
        "attributed": verdict.attributed,
        "wrong": [*_faults(seen), *verdict.wrong],
    }


def _numbers(setting: Setting, seen: Seen) -> dict[str, Any]:
    return {
        "jobs": setting.jobs,
        "slots": setting.slots,
        "seconds": round(seen.seconds, 2),
        "killed_at": round(seen.killed_at or 0.0, 2),
        "restarted_at": round(seen.restarted_at or 0.0, 2),
        "back_at": round(seen.back_at or 0.0, 2),
        "at_kill": seen.at_kill or {"enqueued": 0, "ran": 0},
        "enqueued_again": seen.again,
    }


def _faults(seen: Seen) -> list[str]:
    faults: list[str] = []
    if seen.gave_up:
        faults.append("nothing went on any more before all jobs had ended")
    if seen.killed_at is None:
        faults.append("Redis was never killed")
    return faults
