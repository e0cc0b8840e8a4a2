"""The schema: made once by whoever comes first, checked by every store, used without rights to make any."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from jobqueue.errors import InvalidArgumentError, StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.findings import Severity
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import STORE, apply, check, latest, quoted, script
from jobqueue.storage.values import MAX_DOCUMENT, Change, Conflict, Limit, NewJob, Rate, Renewal, Rules
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection, postgres_storage


@pytest_asyncio.fixture
async def fresh() -> AsyncIterator[PostgresStorage]:
    """A store whose schema does not exist yet."""
    name = f"fresh-{unique_id()}"
    yield PostgresStorage(postgres_url(), name, retry_for=1.0)
    async with connection() as admin:
        await admin.execute(f"drop schema if exists {quoted(name)} cascade")


async def test_a_store_without_its_schema_refuses_to_open(fresh: PostgresStorage) -> None:
    with pytest.raises(StorageError, match="jobqueue schema apply"):
        await fresh.open()
    assert await fresh.apply_schema() == (0, latest())
    await fresh.open()
    assert await fresh.queues() == []
    await fresh.close()


async def test_applying_again_and_at_once_is_harmless(fresh: PostgresStorage) -> None:
    versions = await asyncio.gather(*(fresh.clone().apply_schema() for _ in range(4)))
    assert sorted(versions) == [(0, latest()), *[(latest(), latest())] * 3]
    assert await fresh.apply_schema() == (latest(), latest())
    assert await fresh.check_schema() == latest()


async def test_a_newer_and_an_older_schema_are_refused(fresh: PostgresStorage) -> None:
    await fresh.apply_schema()
    for version, remedy in ((latest() + 1, "newer release"), (latest() - 1, "schema apply")):
        async with connection() as admin:
            await admin.execute(f"update {quoted(fresh._settings.schema)}.meta set version = {version}")
        with pytest.raises(StorageError, match=remedy):
            await fresh.open()
    async with connection() as admin:
        await admin.execute(f"update {quoted(fresh._settings.schema)}.meta set version = {latest() + 1}")
    with pytest.raises(StorageError, match="newer release"):
        await fresh.apply_schema()


async def test_what_is_printed_makes_the_schema(fresh: PostgresStorage) -> None:
    async with connection() as admin:
        await admin.execute(fresh.schema_script())
    assert await fresh.check_schema() == latest()


@pytest.mark.parametrize("schema", ["Jobs", "a b", "o'b", 'q"q', "sélect", "table"])
async def test_any_name_of_a_schema(schema: str) -> None:
    name = f"{schema} {unique_id()}"
    store = PostgresStorage(postgres_url(), name)
    await store.apply_schema()
    try:
        await store.open()
        await store.insert("q", [NewJob("a", b"")])
        assert (await store.counts("q")).queued == 1
        await store.close()
    finally:
        async with connection() as admin:
            await admin.execute(f"drop schema {quoted(name)} cascade")


@pytest.mark.parametrize("schema", ["", "a$b", "a\nb", "x" * 64, 5])
def test_a_bad_name_of_a_schema_is_refused(schema: str) -> None:
    with pytest.raises(InvalidArgumentError, match="schema"):
        PostgresStorage("postgresql://localhost", schema)


def test_the_url_may_name_the_schema_and_its_password_is_not_shown() -> None:
    store = PostgresStorage("postgresql://me:secret@db:5/app?schema=jobs&sslmode=require")
    assert repr(store) == "PostgresStorage('postgresql://me@db:5/app', schema='jobs')"
    assert "schema" not in store._settings.target.dsn
    for bad in ("redis://h", "postgresql://me:a/b@h/app", "postgresql://me:a#b@h", 5):
        with pytest.raises(InvalidArgumentError) as caught:
            PostgresStorage(bad)  # type: ignore[arg-type]
        assert "a/b" not in str(caught.value)


def test_every_file_of_the_schema_has_a_number_of_its_own() -> None:
    folder = files("jobqueue.storage.postgres").joinpath("schema")
    numbers = sorted(int(file.name[:4]) for file in folder.iterdir() if file.name.endswith(".sql"))
    assert numbers == list(range(1, latest() + 1))


def later_release(path: Path, monkeypatch: pytest.MonkeyPatch, *added: str) -> str:
    """Make a package with the files of this release and more; return its name."""
    name = f"release_{unique_id().replace('-', '_')}"
    folder = path / name / "schema"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for number in range(1, latest() + 1):
        # These are applied already: to apply one again would fail.
        (folder / f"{number:04}_this.sql").write_text("create table jobqueue.meta ();")
    for number, text in enumerate(added, latest() + 1):
        (folder / f"{number:04}_added.sql").write_text(text)
    monkeypatch.syspath_prepend(str(path))
    return name


async def test_an_upgrade_applies_the_files_that_are_new_and_keeps_all_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: PostgresStorage
) -> None:
    package = later_release(
        tmp_path,
        monkeypatch,
        "alter table jobqueue.job add column colour text;",
        "update jobqueue.job set colour = 'red';",
    )
    await fresh.apply_schema()
    schema = fresh._settings.schema
    await fresh.open()
    await fresh.insert("q", [NewJob("ready", b"p"), NewJob("later", b"", delay=600_000)])
    async with connection() as admin:
        with pytest.raises(StorageError, match=f"this release needs {latest() + 2}"):
            await check(admin, schema, package)
        assert await apply(admin, schema, package) == (latest(), latest() + 2)
        assert await apply(admin, schema, package) == (latest() + 2, latest() + 2)
        assert await admin.fetchval(f"select count(*) from {quoted(schema)}.job where colour = 'red'") == 2
        await check(admin, schema, package)
        with pytest.raises(StorageError, match=f"this release knows up to {latest()}"):
            await check(admin, schema, STORE)
    # Who has it open goes on.
    counts = await fresh.counts("q")
    assert (counts.queued, counts.scheduled) == (1, 1)
    assert (await fresh.exchange("q", "w", [], 9, 60_000)).jobs[0].payload == b"p"
    await fresh.close()


async def test_an_upgrade_that_fails_leaves_the_schema_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: PostgresStorage
) -> None:
    package = later_release(
        tmp_path, monkeypatch, "alter table jobqueue.job add column colour text;", "select nothing;"
    )
    await fresh.apply_schema()
    async with connection() as admin:
        with pytest.raises(asyncpg.UndefinedColumnError):
            await apply(admin, fresh._settings.schema, package)
    assert await fresh.check_schema() == latest()
    await fresh.open()
    await fresh.insert("q", [NewJob("a", b"")])
    async with connection() as admin:
        rows = await admin.fetch(f"select * from {quoted(fresh._settings.schema)}.job")
    assert "colour" not in dict(rows[0])
    await fresh.close()


def test_each_thing_of_the_schema_is_defined_once() -> None:
    """Until the first release its files are edited in place: none changes what another one has made."""
    made = re.findall(r"^(create|drop)\b(.*?)(?=[(;]|$)", script("s"), re.MULTILINE)
    names = [rest.split() for verb, rest in made if verb == "create"]
    assert len({tuple(name) for name in names}) == len(names)
    assert not [rest for verb, rest in made if verb == "drop" or " or replace " in rest]


def test_a_script_names_its_schema_only() -> None:
    assert "jobqueue." not in script("other").replace("of jobqueue", "").replace("'jobqueue.'", "")


async def test_a_user_with_the_documented_rights_may_do_all_and_make_nothing() -> None:
    async with postgres_storage() as store, connection() as admin:
        name, role = quoted(store._settings.schema), f"role_{unique_id().replace('-', '_').lower()}"
        await admin.execute(
            f"create role {role} login; grant usage on schema {name} to {role};"
            f"grant select, insert, update, delete on all tables in schema {name} to {role};"
            f"grant select, usage, update on all sequences in schema {name} to {role};"
            f"grant execute on all functions in schema {name} to {role};"
        )
        plain = PostgresStorage(postgres_url().replace("//jq@", f"//{role}@"), store._settings.schema)
        try:
            await plain.open()
            await plain.insert("q", [NewJob(id, b"", wait=True) for id in "abc"], reply_to="me")
            (run, second) = (await plain.exchange("q", "w", (), 2, 1_000)).jobs
            await plain.extend("q", "w", [Renewal(run.id, run.fence, b"p", b"s")], 1_000)
            await plain.exchange(
                "q", "w", [Settlement(run.id, run.fence, Action.FAIL, b"e", 9_000)], 0, 1_000
            )
            then = (NewJob("d", b""),)
            done = Settlement(second.id, second.fence, Action.COMPLETE, b"r", 9_000, then=then)
            await plain.exchange("q", "w", [done], 0, 1_000)
            assert await plain.revive("q", ["a"]) == [True]
            assert await plain.forget("q", ["b"]) == [True]
            await plain.cancel("q", ["c"])
            await plain.set_ttl("q", [("c", 0)])
            assert await plain.sweep("q", 9) == []
            assert await plain.purge("q", 9) >= 1
            assert len((await plain.scan("q", JobState.QUEUED, 9)).records) == 2
            assert await plain.lock_acquire("l", "me", 1_000) is not None
            assert await plain.write_documents("s", [Change("a", 0, b"x")]) != [None]
            assert await plain.workers("q") != []
            assert {found.severity for found in await plain.diagnose() if found.name == "rights"} == {
                Severity.OK
            }
            await use_limits(plain, postgres_url().replace("//jq@", f"//{role}@"))
            assert await plain.check() == []
            with pytest.raises(StorageError, match="rights"):
                await plain.clone().apply_schema() if await _older(admin, name) else None
        finally:
            await plain.close()
            await admin.execute(f"update {name}.meta set version = {latest()}")
            await admin.execute(f"drop owned by {role}; drop role {role}")


async def use_limits(store: PostgresStorage, url: str) -> None:
    """Make each call of a queue with limits and groups that looks at other tables than those of others."""
    rate = Rate(1, per=3_600.0, burst=9)
    assert await store.set_rules("g", Rules(queue=Limit(8, rate), group=Limit(1, rate)))
    await store.insert("g", [NewJob(id, b"", group=id[0], weight=2) for id in ("a1", "a2", "b1", "c1")])
    await store.insert("g", [NewJob("plain", b"")])
    await store.insert("g", [NewJob("a2", b"", group="c", conflict=Conflict.REPLACE)])
    runs = (await store.exchange("g", "w", (), 9, 1_000)).jobs
    assert [run.id for run in runs] == ["plain", "a1", "b1", "c1"]
    assert [used.running for used in await store.usage("g", ["", "a", "c"])] == [4, 1, 1]
    actions = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE)
    ended = [
        Settlement(run.id, run.fence, action, b"e", 9_000) for run, action in zip(runs, actions, strict=True)
    ]
    assert [run.id for run in (await store.exchange("g", "w", ended, 9, 1)).jobs] == ["c1", "b1"]
    await asyncio.sleep(0.02)  # the leases run out
    assert [one.id for one in await store.sweep("g", 9)] == ["c1", "b1"]
    assert await store.revive("g", ["a1"]) == [True]
    mine = await asyncpg.connect(url)
    async with mine.transaction():
        await store.inside(mine).insert("g", [NewJob("inside", b"", group="d")])
    await mine.close()
    assert await store.cancel("g", ["a1"]) == ["cancelled"]
    assert await store.set_rules("g", None)
    assert "inside" in [run.id for run in (await store.exchange("g", "w", (), 9, 1_000)).jobs]
    await store.purge("g", 9)


async def _older(admin, name: str) -> bool:
    await admin.execute(f"update {name}.meta set version = {latest() - 1}")
    return True


async def test_documents_that_no_store_has_written_are_reported() -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.write_documents("s", [Change(name, 0, b"data") for name in ("good", "late", "large")])
        assert await store.check() == []
        async with connection() as admin:
            table = f"{quoted(store._settings.schema)}.document"
            await admin.execute(f"update {table} set version = version * 2 where name = 'late'")
            large = f"convert_to(repeat('x', {MAX_DOCUMENT + 1}), 'UTF8')"
            await admin.execute(f"update {table} set data = {large} where name = 'large'")
        found = {finding.name: finding.text for finding in await store.check()}
        assert found == {
            "documents of s: late": "has a version that was not given yet",
            "documents of s: large": "is larger than a document may be",
        }
        await store.close()
