"""The file store keeps the contract: through a clone, and through a second opening of the directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio

from jobqueue.storage.contract import Storage
from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.commands import state
from jobqueue.storage.file.disk.files import Files
from jobqueue.testing import FakeClock, StorageContract, model_test

MORE = int(os.environ.get("JOBQUEUE_TEST_MORE", "1"))
"""How many times as much to try: a nightly run takes 20."""


MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where the suite's thousands of syncs cost nothing; tests/storage/file has the disk."""


@asynccontextmanager
async def make_storage(clock: FakeClock) -> AsyncIterator[Storage]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield FileStorage(Path(directory) / "store", clock=clock)


class TestFileStorage(StorageContract):
    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)


class TestFileStorageOpenedTwice(StorageContract):
    """The other handle shares nothing but the directory, as in another process."""

    def make_storage(self, clock: FakeClock) -> AbstractAsyncContextManager[Storage]:
        return make_storage(clock)

    @pytest_asyncio.fixture
    async def other(self, storage: FileStorage, clock: FakeClock) -> AsyncIterator[Storage]:
        other = FileStorage(storage.path, clock=clock)
        await other.open()
        try:
            yield other
        finally:
            await other.close()


TestFileStorageModel = model_test(make_storage, max_examples=25 * MORE)


class CompactHere(Files):
    """Compacts in a thread: starting a process for every few commands would take too long."""

    def spawn(self, directory: int, path: Path) -> None:
        return None


class Restless(FileStorage):
    """Its clone is a second opening of the directory, closed and opened again all the time.

    So every answer depends on what went through the files, and on journals of a few commands each.
    """

    gets = 0

    def clone(self) -> Self:
        return type(self)(self.path, clock=self.clock, files=CompactHere(), rotate_at=2000)

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        self.gets += 1
        if self.gets % 7 == 0 and not len(self._open_session().wake_ups):
            await self.close()
            await self.open()
        return await super().get(*args, **kwargs)


@asynccontextmanager
async def make_restless(clock: FakeClock) -> AsyncIterator[Storage]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "SEEN_EVERY", 0)  # when a worker was seen last is compared to the millisecond
        yield Restless(Path(directory) / "store", clock=clock, files=CompactHere(), rotate_at=2000)


TestFileStorageRestlessModel = model_test(make_restless, max_examples=10 * MORE)
