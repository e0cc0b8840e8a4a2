"""A server compares strings by its locale; the scripts do not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.values import CancelStatus, NewJob
from tests.services import Server, unavailable

COUNT = 200
TTL = 3_600_000


@pytest_asyncio.fixture
async def storage(start_server: Callable[..., Server], tmp_path: Path) -> AsyncIterator[RedisStorage]:
    """Open a store on a server whose locale orders strings otherwise than by their bytes."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/en_US").exists():
        unavailable("the source of a locale")
    name = "en_US.UTF-8"
    subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", str(tmp_path / name)], check=True)
    server = start_server(env={"LOCPATH": str(tmp_path), "LC_ALL": name})
    if server.command("EVAL", "return tostring('B' < 'a')", "0") != b"false":
        pytest.skip("this server compares by bytes whatever its locale")
    storage = RedisStorage(server.url)
    await storage.open()
    yield storage
    await storage.close()


async def listed(storage: RedisStorage, state: JobState) -> list[str]:
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.scan("q", state, 7, cursor)
        ids += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return ids


def names(prefix: str = "Ab") -> list[str]:
    return [f"{prefix[i % len(prefix)]}-{i}" for i in range(COUNT)]


async def test_ready_jobs_are_listed_and_found_in_the_middle(storage: RedisStorage) -> None:
    ids = names()
    for id in ids:
        await storage.insert("q", [NewJob(id, b"")])
    assert await listed(storage, JobState.QUEUED) == ids
    cancelled = await storage.cancel("q", ids[::3])
    assert set(cancelled) == {CancelStatus.CANCELLED}
    left = [id for id in ids if id not in set(ids[::3])]
    assert (await storage.counts("q")).queued == len(left)
    assert await storage.check() == []
    assert [job.id for job in (await storage.exchange("q", "w", [], COUNT, 1000)).jobs] == left
    assert await listed(storage, JobState.PROCESSING) == left


async def test_jobs_due_at_one_moment_are_promoted_in_their_order(storage: RedisStorage) -> None:
    ids = names()
    for id in ids:
        await storage.insert("q", [NewJob(id, b"", run_at=1)])
        await storage.insert("q", [NewJob(f"later-{id}", b"", run_at=4_000_000_000_000)])
    assert await listed(storage, JobState.SCHEDULED) == [f"later-{id}" for id in ids]
    assert [job.id for job in (await storage.exchange("q", "w", [], COUNT, 1000)).jobs] == ids


@pytest.mark.parametrize(
    ("action", "state"), [(Action.COMPLETE, JobState.COMPLETED), (Action.FAIL, JobState.FAILED)]
)
async def test_jobs_that_ended_at_one_moment_are_listed_once(
    storage: RedisStorage, action: Action, state: JobState
) -> None:
    await storage.insert("q", [NewJob(id, b"") for id in names()])
    claimed = (await storage.exchange("q", "w", [], COUNT, 60_000)).jobs
    ended = [Settlement(job.id, job.fence, action, b"", TTL) for job in claimed]
    await storage.exchange("q", "w", ended, 0, 60_000)
    assert await listed(storage, state) == sorted(names())
