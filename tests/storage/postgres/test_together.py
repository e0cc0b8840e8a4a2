"""Looks at several queues at the same moment share a statement, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobqueue import StorageError
from jobqueue.storage.postgres import PostgresStorage
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.postgres.together import Together
from jobqueue.storage.values import Change, Counts, NewJob, Rules
from tests.storage.postgres.support import connection, postgres_storage
from tests.support import within


@pytest.fixture
async def store() -> AsyncIterator[PostgresStorage]:
    async with postgres_storage() as made:
        await made.open()
        yield made
        await made.close()


@pytest.fixture
async def sent(store: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the statements that are sent."""
    statements, found = store._open_session().statements, list[str]()
    fetch = statements._fetch

    async def noted(sql: str, *args: Any) -> Any:
        found.append(sql)
        return await fetch(sql, *args)

    monkeypatch.setattr(statements, "_fetch", noted)
    return found


NAMES = [f"q{number}" for number in range(30)]


async def fill(store: PostgresStorage) -> None:
    for number, name in enumerate(NAMES[1:], start=1):
        await store.insert(name, [NewJob(f"j{n}", b"x", delay=60_000 * (n % 2)) for n in range(number)])
        await store.exchange(name, f"w{number}", [], number % 3, 60_000)


async def look(store: PostgresStorage, name: str) -> tuple[Any, ...]:
    return (
        await store.counts(name),
        await store.ended(name),
        await store.workers(name),
        (await store.get_rules(name, counted=False)).rules,
        await store.read_documents(name, ["a", "b"]),
    )


async def test_together_is_as_one_after_the_other(store: PostgresStorage, sent: list[str]) -> None:
    await fill(store)
    await store.set_rules("q3", Rules(paused=True))
    await store.write_documents("q4", [Change("b", None, b"4")])
    alone = [await look(store, name) for name in NAMES]
    sent.clear()
    together = await within(asyncio.gather(*(look(store, name) for name in NAMES)))
    assert together == alone
    assert len(sent) == 5
    assert together[0] == (Counts(), 0, [], Rules(), [None, None]), "a queue that was never used"
    assert together[4][4][1].data == b"4"


async def test_a_large_queue_is_counted_alone(
    store: PostgresStorage, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue.storage.postgres.together._SMALL", 20)
    await fill(store)
    for _ in range(2):
        sent.clear()
        found = await within(asyncio.gather(*map(store.counts, NAMES)))
        assert [sum(counts[:-1]) for counts in found] == list(range(30))
    assert len(sent) == 1 + 9


async def test_rules_that_cannot_be_read_concern_no_other_queue(store: PostgresStorage) -> None:
    await fill(store)
    async with connection() as admin:
        schema = quoted(store._settings.schema)
        await admin.execute(f"""update {schema}.queue set rules = '{{"paused": 7}}' where name = 'q1'""")
    one, other = await asyncio.gather(
        store.get_rules("q1", counted=False), store.get_rules("q2", counted=False), return_exceptions=True
    )
    assert isinstance(one, StorageError)
    assert not isinstance(other, BaseException)


async def test_who_leaves_takes_nobody_along(store: PostgresStorage) -> None:
    await fill(store)
    for _ in range(2):
        leaving, staying = (asyncio.create_task(store.counts("q5")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert sum((await within(staying))[:-1]) == 5


async def test_everybody_is_told_of_a_fault() -> None:
    async def fails(_keys: object) -> dict[int, int]:
        raise StorageError("away")

    together = Together[int, int](asyncio.ensure_future, fails)
    found = await asyncio.gather(*map(together.answer, (1, 2, 1)), return_exceptions=True)
    assert [str(each) for each in found] == ["away"] * 3


async def test_closing_ends_what_is_asked() -> None:
    begun, asking = asyncio.Event(), list[asyncio.Future[None]]()

    async def hangs(_keys: object) -> dict[int, int]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    together = Together[int, int](lambda call: asking.append(asyncio.ensure_future(call)), hangs)
    answer = asyncio.create_task(together.answer(1))
    await within(begun.wait())
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(answer)
