"""Documents, for stores that keep them: small named values that are compared before they are set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.capabilities import Documents
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import (
    MAX_CHANGES,
    MAX_DOCUMENT,
    MAX_DOCUMENT_PAGE,
    Change,
    Document,
)
from jobqueue.testing.contract.arguments import BATCHES, BYTES, NUMBERS, TEXTS, in_batch, with_each
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import ALL_BYTES, Jobs

__all__ = ["DocumentCases"]

SPACE = "schedules"
NAMES = ("a", "d:{1}", "*", "ä b", "../x", "'; --", "x" * 256)
CALLS: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "read_documents": (
        {"space": SPACE, "names": ["a"]},
        {"space": TEXTS, "names": [*in_batch("a", TEXTS), ["a"] * (MAX_CHANGES + 1)]},
    ),
    "write_documents": (
        {"space": SPACE, "changes": [Change("a", 0, b"")]},
        {
            "space": TEXTS,
            "changes": [
                *BATCHES,
                *(
                    [Change("b", None, b""), bad]
                    for bad in with_each(
                        Change("a", 0, b""),
                        name=TEXTS,
                        expected=NUMBERS,
                        data=[*BYTES, bytes(MAX_DOCUMENT + 1)],
                    )
                ),
                [Change("b", None, b"")] * (MAX_CHANGES + 1),
            ],
        },
    ),
    "list_documents": (
        {"space": SPACE, "limit": 1, "cursor": None},
        {"space": TEXTS, "limit": [None, *NUMBERS], "cursor": [5, b"1", True, "nonsense"]},
    ),
}


def documents_of(store: Storage) -> Documents:
    """Return the store as one with documents; skip the test of a store without."""
    if not isinstance(store, Documents):
        pytest.skip("this store keeps no documents")
    return store


async def write(store: Documents, name: str, data: bytes | None, expected: int | None = None) -> int | None:
    (version,) = await store.write_documents(SPACE, [Change(name, expected, data)])
    return version


async def listed(store: Documents, space: str = SPACE, limit: int = 3) -> list[Document]:
    """List a space by small pages."""
    documents: list[Document] = []
    cursor = None
    while True:
        page = await store.list_documents(space, limit, cursor)
        assert len(page.documents) <= limit
        documents += page.documents
        cursor = page.cursor
        if cursor is None:
            return documents
        assert page.documents


class DocumentCases(Cases):
    """Documents."""

    async def test_a_document_is_read_as_it_was_written(self, storage: Storage, other: Storage) -> None:
        store, reader = documents_of(storage), documents_of(other)
        for data in (ALL_BYTES, b"", bytes(MAX_DOCUMENT)):
            versions = [await write(store, name, data) for name in NAMES]
            wanted = [
                Document(name, version or 0, data) for name, version in zip(NAMES, versions, strict=True)
            ]
            assert await reader.read_documents(SPACE, NAMES) == wanted
            assert sorted(await listed(reader)) == sorted(wanted)
        assert await reader.read_documents(SPACE, ["zz", "a", "zz"]) == [None, wanted[0], None]
        assert await reader.read_documents(SPACE, []) == []
        assert await store.write_documents(SPACE, []) == []

    async def test_only_the_expected_version_is_replaced(self, storage: Storage, other: Storage) -> None:
        store, second = documents_of(storage), documents_of(other)
        first = await write(store, "a", b"1", 0)
        assert first is not None
        assert first > 0
        assert await write(second, "a", b"2", 0) is None
        assert await write(second, "a", b"2", first + 1) is None
        assert await write(store, "b", b"2", first) is None
        assert await store.read_documents(SPACE, ["a", "b"]) == [Document("a", first, b"1"), None]
        later = await write(second, "a", b"2", first)
        assert later is not None
        assert later > first
        assert await write(store, "a", b"3", first) is None
        assert await store.read_documents(SPACE, ["a"]) == [Document("a", later, b"2")]
        latest = await write(store, "a", b"3")
        assert latest is not None
        assert latest > later

    async def test_deleting_compares_too(self, storage: Storage) -> None:
        store = documents_of(storage)
        version = await write(store, "a", b"1")
        assert version is not None
        assert await write(store, "a", None, version + 1) is None
        assert await write(store, "a", None, 0) is None
        gone = await write(store, "a", None, version)
        assert gone is not None
        assert await store.read_documents(SPACE, ["a"]) == [None]
        assert await listed(store) == []
        assert await write(store, "a", None, version) is None
        assert await write(store, "a", None) is not None
        assert await write(store, "a", None, 0) is not None

    async def test_no_version_of_a_name_comes_twice(self, storage: Storage) -> None:
        store = documents_of(storage)
        versions: list[int] = []
        for n in range(12):
            version = await write(
                store, "a", None if n % 3 == 2 else b"x", None if n % 2 else _now(versions, n)
            )
            assert version is not None
            versions.append(version)
        assert versions == sorted(set(versions))

    async def test_spaces_and_jobs_do_not_meet(self, jobs: Jobs) -> None:
        store = documents_of(jobs.storage)
        spaces = ("q", "Q", "q:a", "a", "d:{1}", "*", "x" * 256, "ö")
        for space in spaces:
            await store.write_documents(space, [Change("a", 0, space.encode()), Change("b", 0, b"")])
        await jobs.put("a")
        await store.write_documents("q", [Change("b", None, None)])
        for space in spaces:
            found, gone = await store.read_documents(space, ["a", "b"])
            assert found is not None
            assert found.data == space.encode()
            assert (gone is None) is (space == "q")
            assert [one.name for one in sorted(await listed(store, space))] == ["a", "b"][
                : 1 + (space != "q")
            ]
        assert await jobs.storage.queues() == ["q"]
        assert await jobs.storage.get("q", ["b"]) == [None]
        assert await store.read_documents("empty", ["a"]) == [None]

    async def test_changes_of_one_call_are_made_in_order(self, storage: Storage) -> None:
        store = documents_of(storage)
        first = await write(store, "a", b"1")
        changes = [
            Change("a", first, b"2"),
            Change("a", first, b"3"),
            Change("b", 0, b"1"),
            Change("b", 0, b"2"),
            Change("c", None, b"1"),
            Change("c", None, None),
            Change("c", 0, b"2"),
        ]
        answers = await store.write_documents(SPACE, changes)
        assert [answer is not None for answer in answers] == [True, False, True, False, True, True, True]
        given = [answer for answer in answers[4:] if answer is not None]
        assert given == sorted(set(given))
        found = await store.read_documents(SPACE, list("abc"))
        assert [one and one.data for one in found] == [b"2", b"1", b"2"]
        assert [one and one.version for one in found] == [answers[0], answers[2], answers[6]]

    async def test_as_many_changes_as_there_may_be(self, storage: Storage) -> None:
        store = documents_of(storage)
        names = [f"n{n}" for n in range(MAX_CHANGES)]
        answers = await store.write_documents(SPACE, [Change(name, 0, name.encode()) for name in names])
        assert None not in answers
        found = await store.read_documents(SPACE, names)
        assert [one and one.data.decode() for one in found] == names
        assert sorted(one.name for one in await listed(store, limit=77)) == sorted(names)

    async def test_one_of_two_that_read_the_same_version_wins(self, storage: Storage, other: Storage) -> None:
        handles = [documents_of(storage), documents_of(other)]
        version = await write(handles[0], "a", b"0")
        for n in range(20):
            calls = [
                write(handle, "a", f"{n}-{place}".encode(), version) for place, handle in enumerate(handles)
            ]
            answers = await asyncio.gather(*calls)
            assert answers.count(None) == 1
            winner = 0 if answers[0] is not None else 1
            version = answers[winner]
            (found,) = await handles[1 - winner].read_documents(SPACE, ["a"])
            assert found == Document("a", version or 0, f"{n}-{winner}".encode())

    async def test_no_increment_is_lost(self, storage: Storage, other: Storage) -> None:
        async def count(store: Documents) -> None:
            done = 0
            while done < 15:
                (found,) = await store.read_documents(SPACE, ["n"])
                value = 0 if found is None else int(found.data)
                version = 0 if found is None else found.version
                done += await write(store, "n", b"%d" % (value + 1), version) is not None

        await asyncio.gather(count(documents_of(storage)), count(documents_of(other)))
        (found,) = await documents_of(other).read_documents(SPACE, ["n"])
        assert found is not None
        assert int(found.data) == 30

    async def test_pages_are_bounded_in_bytes_too(self, storage: Storage) -> None:
        store = documents_of(storage)
        names = [f"{n:02}" for n in range(40)]
        await store.write_documents(SPACE, [Change(name, 0, bytes(MAX_DOCUMENT)) for name in names])
        page = await store.list_documents(SPACE, 1_000)
        assert page.cursor is not None
        assert sum(len(one.data) for one in page.documents) <= MAX_DOCUMENT_PAGE + MAX_DOCUMENT
        assert sorted(one.name for one in await listed(store, limit=1_000)) == names

    async def test_documents_that_stay_are_listed_once_whatever_others_do(self, storage: Storage) -> None:
        store = documents_of(storage)
        stay = [f"{n:02}-stay" for n in range(12)]
        await store.write_documents(SPACE, [Change(name, 0, b"") for name in stay])
        await store.write_documents(SPACE, [Change(f"{n:02}-leave", 0, b"") for n in range(12)])
        seen: list[str] = []
        cursor = None
        for n in range(40):
            page = await store.list_documents(SPACE, 2, cursor)
            seen += [one.name for one in page.documents]
            cursor = page.cursor
            if cursor is None:
                break
            changes = [Change(f"{n:02}-leave", None, None), Change(f"{n:02}-come", None, b"")]
            await store.write_documents(SPACE, [*changes, Change(stay[n % 12], None, b"%d" % n)])
        assert cursor is None
        assert sorted(name for name in seen if name.endswith("stay")) == stay

    async def test_a_page_of_nothing(self, storage: Storage) -> None:
        store = documents_of(storage)
        assert await store.list_documents(SPACE, 5) == ([], None)
        await write(store, "a", b"")
        assert (await store.list_documents(SPACE, 0)).documents == []

    @pytest.mark.parametrize(
        ("name", "argument"), [(name, argument) for name, (_, bad) in CALLS.items() for argument in bad]
    )
    async def test_a_bad_argument_fails_its_call_and_changes_no_document(
        self, storage: Storage, name: str, argument: str
    ) -> None:
        store = documents_of(storage)
        version = await write(store, "seen", b"1")
        good, bad = CALLS[name]
        for value in bad[argument]:
            with pytest.raises(InvalidArgumentError) as caught:
                await getattr(store, name)(**{**good, argument: value})
            assert caught.value.argument.startswith(argument), caught.value
        assert await listed(store) == [Document("seen", version or 0, b"1")]
        await getattr(store, name)(**good)


def _now(versions: list[int], step: int) -> int:
    """Return the version that a document has before a step; every third one deletes it."""
    return versions[-1] if versions and step % 3 else 0
