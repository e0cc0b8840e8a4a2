"""The commands that judge and make a store on PostgreSQL, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from jobqueue.runtime.ids import unique_id
from jobqueue.storage.postgres.migrations import latest, quoted
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection

SCHEMA = 'command\'s "own"'


def execute(sql: str) -> None:
    async def run() -> None:
        async with connection(URL) as admin:
            await admin.execute(sql)

    asyncio.run(run())


URL = ""


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    """Find the server before variables of the environment are hidden from the commands."""
    global URL  # noqa: PLW0603 - for `execute`
    URL = postgres_url()


@pytest.fixture
def schema(server: None) -> Iterator[str]:
    """Name of a schema that does not exist yet."""
    name = f"{SCHEMA} {unique_id()}"
    yield name
    execute(f"drop schema if exists {quoted(name)} cascade")


@pytest.fixture
def fresh(schema: str) -> str:
    """URL of a store without its schema."""
    return f"{URL}&schema={quote(schema)}"


def test_schema_is_made_once(cli, fresh):
    missing = cli("schema", "check", "-s", fresh, code=1).stderr
    assert "jobqueue schema apply" in missing
    assert (
        f"has version {latest()} of the schema now; it had none" in cli("schema", "apply", "-s", fresh).stderr
    )
    assert (
        f"has version {latest()} of the schema, which is the latest"
        in cli("schema", "apply", "-s", fresh).stderr
    )
    assert f"has version {latest()} of the schema" in cli("schema", "check", "-s", fresh).stderr


def test_what_is_printed_makes_the_schema(cli, fresh, schema):
    away = f"postgresql://nobody@127.0.0.1:1/none?schema={quote(schema)}"
    execute(cli("schema", "print", "-s", away).stdout)
    assert f"has version {latest()}" in cli("schema", "check", "-s", fresh).stderr


@pytest.mark.parametrize(
    ("off", "remedy"), [(1, "newer release"), (-1, "schema apply")], ids=["newer", "older"]
)
def test_a_schema_of_another_release(cli, fresh, schema, off, remedy):
    cli("schema", "apply", "-s", fresh)
    execute(f"update {quoted(schema)}.meta set version = {latest() + off}")
    assert remedy in cli("schema", "check", "-s", fresh, code=1).stderr
    assert remedy in cli("enqueue", "a", "1", "-s", fresh, code=1).stderr


def test_a_store_of_another_kind_has_no_schema(cli, made):
    for command in ("apply", "print", "check"):
        assert "postgresql://" in cli("schema", command, "-s", made, code=2).stderr


def test_a_server_that_is_away(cli):
    away = "postgresql://me:secret@127.0.0.1:1/none"
    result = cli("schema", "check", "-s", away, code=5)
    assert "does the server run" in result.stderr
    assert "secret" not in result.stdout + result.stderr


def test_the_doctor_of_a_server(cli, data, fresh, schema):
    (finding,) = [
        one for one in data("doctor", "-s", fresh, code=7)["findings"] if one["severity"] == "error"
    ]
    assert finding["name"] == "open"
    assert "jobqueue schema apply" in finding["text"]
    cli("schema", "apply", "-s", fresh)
    found = data("doctor", "-s", fresh, "--samples", "20")
    assert found["healthy"] is True
    assert found["round_trip_ms"]["p50"] > 0
    assert {
        "version", "schema", "rights", "durability", "clock", "connections", "transactions", "vacuum",
        "notifications",
    } < {finding["name"] for finding in found["findings"]}  # fmt: skip


def test_fsck_of_a_server(cli, data, fresh, schema):
    cli("schema", "apply", "-s", fresh)
    data("enqueue", "a", "1", "-s", fresh)
    data("enqueue", "b", "1", "-s", fresh)
    assert data("fsck", "-s", fresh)["sound"] is True
    execute(f"delete from {quoted(schema)}.ready where id = 'a'")
    found = data("fsck", "-s", fresh, code=7)
    assert [(one["name"], one["text"][:8]) for one in found["findings"]] == [("default: a", "is in 0 ")]
    assert data("status", "b", "-s", fresh)["state"] == "queued"
    assert data("stats", "-s", fresh)["queues"][0]["queue"] == "default"
