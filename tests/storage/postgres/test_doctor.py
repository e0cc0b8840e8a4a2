"""What ``jobqueue doctor`` says of a server, of the tables, and of the rights of a user."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio
from click.testing import CliRunner

from jobqueue.cli.main import main
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.postgres import PostgresStorage, doctor
from jobqueue.storage.postgres.migrations import latest, quoted
from jobqueue.storage.values import NewJob
from tests.storage.postgres.server import PostgresServer, postgres_url
from tests.storage.postgres.support import connection, postgres_storage

OK, WARNING, ERROR = Severity.OK, Severity.WARNING, Severity.ERROR
NAMES = [
    "version", "schema", "rights", "durability", "clock", "connections", "transactions", "vacuum",
    "notifications",
]  # fmt: skip


@pytest_asyncio.fixture
async def storage() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage() as store:
        await store.open()
        yield store
        await store.close()


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[asyncpg.Connection[Any]]:
    async with connection() as connected:
        yield connected


async def finding(storage: PostgresStorage, name: str) -> Finding:
    (found,) = [one for one in await storage.diagnose() if one.name == name]
    return found


async def test_a_healthy_server(storage: PostgresStorage) -> None:
    found = await storage.diagnose()
    assert [one.name for one in found] == NAMES
    texts = {one.name: one.text for one in found}
    assert texts["version"].startswith("PostgreSQL 1")
    assert str(latest()) in texts["schema"]
    assert "autovacuum is on" in texts["vacuum"]
    assert "was heard" in texts["notifications"]
    bad = [one for one in found if one.severity is not OK and one.name != "durability"]
    assert bad == []  # the server of the tests flushes nothing


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        ("revoke delete on {s}.outcome from {r}", "outcome"),
        ("revoke update on sequence {s}.number from {r}", "number"),
        ("revoke execute on function {s}.count_jobs(text, bigint) from {r}, public", "count_jobs()"),
    ],
    ids=["table", "sequence", "function"],
)
async def test_rights_that_lack_are_named(
    storage: PostgresStorage, admin: asyncpg.Connection[Any], taken: str, named: str
) -> None:
    schema, role = quoted(storage._settings.schema), f"role_{unique_id().replace('-', '_').lower()}"
    await admin.execute(
        f"create role {role} login; grant usage on schema {schema} to {role};"
        f"grant select, insert, update, delete on all tables in schema {schema} to {role};"
        f"grant select, usage, update on all sequences in schema {schema} to {role};"
        f"grant execute on all functions in schema {schema} to {role};"
    )
    plain = PostgresStorage(postgres_url().replace("//jq@", f"//{role}@"), storage._settings.schema)
    try:
        await plain.open()
        assert (await finding(plain, "rights")).severity is OK
        await admin.execute(taken.format(s=schema, r=role))
        found = await finding(plain, "rights")
        assert found.severity is ERROR
        assert f"not all rights on {named}." in found.text
    finally:
        await plain.close()
        await admin.execute(f"grant execute on all functions in schema {schema} to public")
        await admin.execute(f"drop owned by {role}; drop role {role}")


async def test_few_connections_left_to_a_user(
    storage: PostgresStorage, admin: asyncpg.Connection[Any]
) -> None:
    role = f"role_{unique_id().replace('-', '_').lower()}"
    await admin.execute(f"create role {role} login superuser connection limit 7")
    limited = PostgresStorage(postgres_url().replace("//jq@", f"//{role}@"), storage._settings.schema)
    try:
        await limited.open()
        found = await finding(limited, "connections")
        assert found.severity is WARNING
        assert int(found.text.split()[0]) < 7
    finally:
        await limited.close()
        await admin.execute(f"drop role {role}")
    assert (await finding(storage, "connections")).severity is OK


async def test_a_transaction_that_stays_open_is_named(
    storage: PostgresStorage, admin: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_OLD", 0.2)
    async with connection() as other, other.transaction():
        # It has written, and reads nothing now.
        await storage.inside(other).insert("q", [NewJob("a", b"")])
        await admin.fetch("select pg_sleep(0.4)")
        found = await finding(storage, "transactions")
        assert found.severity is WARNING
        assert f"process {other.get_server_pid()} of user jq, idle in transaction" in found.text
        # How long it has been open is told anew.
        assert [(one.name, one.severity) for one in await storage.hindrances()] == [("transactions", WARNING)]
    assert await storage.hindrances() == []


def test_the_figures_come_with_what_hinders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_OLD", 0.0)
    url = f"{postgres_url()}&schema=hindered"
    asyncio.run(PostgresStorage(url).apply_schema())
    with psycopg.connect(postgres_url()) as other:
        other.execute("create temporary table held (number int) on commit drop")
        process = other.info.backend_pid
        arguments = ["stats", "-s", url, "--sample", "0"]
        table = CliRunner().invoke(main, arguments)
        data = CliRunner().invoke(main, [*arguments, "-o", "json"])
        other.execute("drop schema hindered cascade")
    assert data.exit_code == 0, data.stderr
    (text,) = json.loads(data.stdout)["hindrances"]
    assert f"process {process} " in text
    assert f"warning: {text}" in table.stderr


async def test_a_prepared_transaction_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_OLD", 0.2)
    server = PostgresServer(settings={"max_prepared_transactions": "2", "autovacuum": "off"}).start()
    try:
        storage = PostgresStorage(server.url)
        await storage.apply_schema()
        await storage.open()
        async with connection(server.url) as admin:
            await admin.execute("begin; create table forgotten (a int); prepare transaction 'left behind'")
            await admin.fetch("select pg_sleep(0.4)")
            found = await finding(storage, "transactions")
            assert "prepared transaction 'left behind'" in found.text
            await admin.execute("rollback prepared 'left behind'")
        assert (await finding(storage, "vacuum")).text == "autovacuum is off on this server: dead rows stay"
        await storage.close()
    finally:
        server.remove()


async def test_vacuum_that_is_off_or_does_not_keep_up(
    storage: PostgresStorage, admin: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{quoted(storage._settings.schema)}.job"
    await admin.execute(f"alter table {table} set (autovacuum_enabled = false)")
    found = await finding(storage, "vacuum")
    assert (found.severity, found.text) == (WARNING, "autovacuum is off for job: dead rows stay")
    await admin.execute(f"alter table {table} reset (autovacuum_enabled)")
    assert (await finding(storage, "vacuum")).severity is OK
    monkeypatch.setattr(doctor, "_MANY_DEAD", -1)
    found = await finding(storage, "vacuum")
    assert found.severity is WARNING
    assert "does not keep up" in found.text


async def test_a_clock_that_is_off(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await finding(storage, "clock")).severity is OK
    monkeypatch.setattr(type(SYSTEM_CLOCK), "time", staticmethod(lambda: time.time() - 3600.0))
    found = await finding(storage, "clock")
    assert found.severity is WARNING
    assert re.search(r"is \+(3599|3600)\.\d+ s", found.text)
