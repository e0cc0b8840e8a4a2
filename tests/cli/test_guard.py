"""The guard on the command line: any command with a ledger is on a guarded store."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from jobqueue.runtime.ids import unique_id
from tests.services import Server, redis_binary
from tests.storage.postgres.server import postgres_url


@pytest.fixture
def redis() -> Iterator[Server]:
    made = Server(redis_binary()).start()
    yield made
    made.remove()


@pytest.fixture
def ledger() -> str:
    url = postgres_url()
    return f"{url}{'&' if '?' in url else '?'}schema=ledger_{unique_id().replace('-', '_')}"


def test_jobs_come_back_after_the_store_was_wiped(cli, data, redis, ledger):
    on = ["-s", redis.url, "--ledger", ledger]
    cli("schema", "apply", *on)
    for id in ("a", "b"):
        cli("enqueue", id, '"x"', *on)
    assert data("guard", "status", *on)["pending"] == 2
    redis.command("FLUSHALL")
    assert data("guard", "reconcile", *on) == {
        "compared": 2,
        "requeued": 2,
        "updated": 0,
        "stuck": 0,
        "set_aside": 0,
    }
    assert data("status", "a", *on)["state"] == "queued"
    history = data("guard", "history", "a", *on)["history"]
    assert [event["event"] for event in history] == ["enqueued", "requeued"]
    shown = cli("guard", "history", "a", *on).stdout
    assert "requeued" in shown
    assert cli("guard", "status", *on).stdout.split()[:2] == ["pending", "2"]
    assert "0 brought back" in cli("guard", "reconcile", *on).stdout
    assert json.loads(cli("guard", "history", "nobody", *on, "-o", "json", code=3).stdout)["error"]


def test_the_ledger_may_be_named_before_the_command_or_in_a_variable(cli, data, redis, ledger, monkeypatch):
    cli("--ledger", ledger, "schema", "apply", "-s", redis.url)
    cli("--ledger", ledger, "enqueue", "a", "1", "-s", redis.url)
    monkeypatch.setenv("JOBQUEUE_LEDGER", ledger)
    assert data("guard", "status", "-s", redis.url)["total"] == 1


def test_a_store_without_a_ledger(cli, redis):
    assert "--ledger or JOBQUEUE_LEDGER" in cli("guard", "status", "-s", redis.url, code=2).stderr
