"""A queue with tasks, and schedulers that a test steps itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from jobqueue import Queue, Storage
from jobqueue.model.states import JobState
from jobqueue.schedules.scheduler import Scheduler
from jobqueue.schedules.stored import StoredSchedule, space_of
from jobqueue.storage.capabilities import Documents
from jobqueue.storage.values import Change
from tests.support import within

QUEUE = "q"
HOUR = 3_600_000


def made(storage: Storage) -> Queue[Any, Any]:
    """Make a queue with the task ``report``."""
    queue: Queue[Any, Any] = Queue(storage, QUEUE)

    @queue.task
    async def report(day: str = "today") -> str:
        return f"the report of {day}"

    return queue


@asynccontextmanager
async def producing(storage: Storage) -> Any:
    """Start that queue without a worker: jobs stay where they are."""
    queue = made(storage)
    await queue.start(work=False)
    try:
        yield queue
    finally:
        await within(queue.stop())


class Steps:
    """A scheduler without its loop."""

    def __init__(self, storage: Storage, *queues: str, leads: bool = True) -> None:
        self.errors: list[BaseException] = []
        self.scheduler = Scheduler(
            storage, queues or None, leads=lambda: leads, failed=lambda error, *_: self.errors.append(error)
        )

    async def look(self) -> float:
        """Read what was changed, and do what is due; return the seconds until the next step."""
        self.scheduler._look_at = 0.0
        return await within(self.scheduler._step())


async def set_mark(storage: Storage, name: str, *, back: int, queue: str = QUEUE) -> None:
    """Put a schedule back by so many milliseconds, as if nobody had run it since."""
    assert isinstance(storage, Documents)
    (document,) = await storage.read_documents(space_of(queue), [name])
    assert document is not None
    stored = StoredSchedule.read(document)
    data = replace(stored, mark=stored.mark - back).data()
    (version,) = await storage.write_documents(space_of(queue), [Change(name, document.version, data)])
    assert version is not None
    await storage.write_documents("schedules", [Change(queue, None, b"")])


async def ids(storage: Storage, queue: str = QUEUE) -> list[str]:
    """Return the ids of all jobs of a queue, sorted."""
    found = []
    for state in JobState:
        cursor = None
        while True:
            page = await storage.scan(queue, state, 500, cursor)
            found += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
    return sorted(found)
