"""What stores share of opening and closing: see `jobqueue.storage.opening`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from jobqueue.errors import StorageError
from jobqueue.storage.opening import LoopBoundStorage, StoreSession


class Session(StoreSession):
    def __init__(self, said: list[str], may_start: asyncio.Event | None, error: Exception | None) -> None:
        super().__init__()
        self.said, self.may_start, self.error = said, may_start, error

    async def start(self) -> None:
        self.said.append("starting")
        if self.may_start is not None:
            await self.may_start.wait()
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.said.append("closed")

    def abandon(self) -> None:
        self.said.append("abandoned")


class Store(LoopBoundStorage[Session]):
    _kind = "test"

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.may_start: asyncio.Event | None = None
        self.error: Exception | None = None

    def _make_session(self) -> Session:
        return Session(self.said, self.may_start, self.error)

    def call(self) -> None:
        self._open_session()


def in_another_loop(call: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """Run a call in another thread's event loop; return the error it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(call())
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors[0] if errors else None


async def test_the_first_opening_starts_and_the_last_closing_ends() -> None:
    store = Store()
    await asyncio.gather(*(store.open() for _ in range(3)))
    for _ in range(2):
        await store.close()
        store.call()
    await store.close()
    await store.close()
    assert store.said == ["starting", "closed"]
    with pytest.raises(StorageError, match=r"the test store is not open: call open\(\) first"):
        store.call()


async def test_a_start_that_fails_is_cleaned_up_and_may_be_repeated() -> None:
    store = Store()
    store.error = StorageError("no")
    with pytest.raises(StorageError, match="no"):
        await store.open()
    store.error = None
    await store.open()
    assert store.said == ["starting", "closed", "starting"]
    await store.close()


async def test_a_start_that_is_cut_off_is_cleaned_up() -> None:
    store = Store()
    store.may_start = asyncio.Event()
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert store.said == ["starting", "closed"]


async def test_another_loop_is_refused_also_while_the_store_is_being_opened() -> None:
    store = Store()
    store.may_start = asyncio.Event()
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    for call in (store.open, store.close):
        assert "another event loop" in str(await asyncio.to_thread(in_another_loop, call))
    store.may_start.set()
    await opening
    for call in (store.open, store.close):
        assert "another event loop" in str(await asyncio.to_thread(in_another_loop, call))
    assert await asyncio.to_thread(in_another_loop, store.clone().open) is None
    await store.close()
    assert await asyncio.to_thread(in_another_loop, store.open) is None


def test_a_store_whose_loop_has_ended_counts_as_closed() -> None:
    store = Store()

    async def together() -> None:  # they wait for each other, which binds a lock to its loop
        await asyncio.gather(*(store.open() for _ in range(3)))

    for _ in range(3):
        asyncio.run(together())
    asyncio.run(store.close())
    assert store.said == ["starting", "abandoned"] * 3


def test_one_loop_after_the_other_may_open_and_close() -> None:
    store = Store()

    async def together() -> None:
        await asyncio.gather(*(store.open() for _ in range(3)))
        await asyncio.gather(*(store.close() for _ in range(3)))

    for _ in range(2):
        asyncio.run(together())
    assert store.said == ["starting", "closed"] * 2


@pytest.mark.parametrize("when", ["unopened", "closed", "opening", "open"])
def test_a_forked_child_is_told_to_make_its_own(when: str) -> None:
    store = Store()

    async def bring() -> None:
        if when == "unopened":
            return
        store.may_start = asyncio.Event()
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0)
        if when == "opening":
            store.forked()  # as `os.register_at_fork` does in the child; the lock is never let go there
            opening.cancel()
            return
        store.may_start.set()
        await opening
        if when == "closed":
            await store.close()

    asyncio.run(bring())
    if when != "opening":
        store.forked()
    store.may_start = None
    if when in {"opening", "open"}:
        for call in (store.call, lambda: asyncio.run(store.open())):
            with pytest.raises(StorageError, match="before a fork: make a new Store in the child process"):
                call()
        asyncio.run(store.close())  # nothing of its own
        return
    asyncio.run(store.open())
