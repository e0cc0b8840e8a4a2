"""demo --guard: Redis is killed under load, no job is lost, and a lost one would be noticed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from typing import Any

from jobqueue.cli.demo.guarded import servers
from jobqueue.cli.demo.guarded.check import judge
from jobqueue.cli.demo.guarded.display import result
from jobqueue.cli.demo.guarded.worker import QUEUE
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.guard import PostgresLedger
from jobqueue.storage.postgres.migrations import quoted
from tests.cli.processes import environ
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection


def test_no_job_is_lost():
    numbers, shown = on_a_terminal(
        "demo", "--guard", "--jobs", "600", "--ledger", postgres_url(), "-o", "json"
    )
    assert (numbers["jobs"], numbers["rows"], numbers["completed"]) == (600, 600, 600)
    assert (numbers["lost"], numbers["never_ran"], numbers["wrong"]) == (0, 0, [])
    assert numbers["brought_back"] > 0
    assert numbers["attributed"] == numbers["second_runs"]
    assert 0 < numbers["killed_at"] < numbers["restarted_at"] < numbers["back_at"]
    assert numbers["at_kill"]["ran"] >= 72
    assert b"completed in ledger" in shown
    assert b"Redis: up again, empty" in shown
    assert "lost" in "".join(column for column in result(numbers).columns[0].cells)

    async def left() -> list[str]:
        async with connection() as admin:
            sql = "select nspname from pg_namespace where nspname like 'jobqueue\\_demo%'"
            return [row["nspname"] for row in await admin.fetch(sql)]

    assert asyncio.run(left()) == [], "its schema is dropped"


def test_it_says_what_is_missing(cli, monkeypatch):
    monkeypatch.setattr(servers.shutil, "which", lambda _name: None)
    assert "install redis-server" in cli("demo", "--guard", code=1).stderr
    monkeypatch.setattr(servers.shutil, "which", lambda name: "/x/redis-server" if "redis" in name else None)
    monkeypatch.setattr(servers, "_DEBIAN", servers.Path("/nowhere"))
    said = cli("demo", "--guard", code=1).stderr
    assert "--ledger" in said
    assert "JOBQUEUE_LEDGER" in said


def test_it_has_a_store_of_its_own(cli):
    assert "Redis of its own" in cli("demo", "--guard", "-s", "redis://localhost", code=2).stderr
    assert "Redis of its own" in cli("demo", "--guard", "/tmp", code=2).stderr


def test_what_is_not_as_it_must_be_is_noticed():
    async def verdict():
        schema = f"check_{unique_id()}"
        await PostgresLedger(postgres_url(), schema).apply_schema()
        name = quoted(schema)
        async with connection() as admin:
            for id, state, history in (
                ("good", 5, "[]"),
                ("twice", 5, '[[1, "requeued", "", 0, ""]]'),
                ("why", 5, '[[1, "claimed", "", 1, ""]]'),
                ("open", 2, "[]"),
                ("idle", 5, "[]"),
            ):
                await admin.execute(
                    f"insert into {name}.job (token, queue, id, state, priority, due, max_attempts,"
                    " max_stalls, ttl, payload, headers, task, group_name, created, updated, history)"
                    " values (gen_random_uuid(), $1, $2, $3, 0, 0, 1, 1, 1, '', '', '', '', 0, 0, $4)",
                    QUEUE, id, state, history,
                )  # fmt: skip
            ids = ["good", "twice", "why", "open", "idle", "gone"]
            runs = Counter({"good": 1, "twice": 2, "why": 2, "open": 1, "gone": 1, "stranger": 1})
            return await judge(admin, schema, ids, runs)

    found = asyncio.run(verdict())
    assert (found.never_ran, found.completed, found.second_runs, found.attributed) == (1, 4, 2, 1)
    assert found.wrong == (
        "1 jobs never ran: idle",
        "1 jobs are not in the ledger: gone",
        "1 jobs are not completed in the ledger: open",
        "2 jobs ran and were never enqueued: gone, stranger",
        "1 jobs ran twice, and the ledger does not say why: why",
    )


def on_a_terminal(*command: str) -> tuple[Any, bytes]:
    """Run a command whose messages go to a terminal; return its JSON, and what that has shown."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobqueue", *command],
        stdout=subprocess.PIPE, stderr=other, stdin=subprocess.DEVNULL, env=environ(),
    )  # fmt: skip
    os.close(other)
    shown = b""
    with suppress(OSError):  # its end, on Linux
        while piece := os.read(main, 65536):
            shown += piece
    out, _ = process.communicate()
    os.close(main)
    assert process.returncode == 0, shown
    return json.loads(out), shown
