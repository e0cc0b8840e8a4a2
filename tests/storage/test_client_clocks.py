"""Machines whose clocks are years off: what is due, leased and kept follows the server's clock alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from jobqueue import Job, JobState, Queue, Reaper, Storage
from jobqueue.runtime.clock import SYSTEM_CLOCK
from tests.everywhere import EVERYWHERE

SERVERS = sorted({*EVERYWHERE} - {"memory", "file"})
"""The stores whose clock is another machine's."""
TEN_YEARS = timedelta(days=3653).total_seconds()
BOUND = 30.0


@pytest_asyncio.fixture(params=SERVERS)
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    def directory() -> Any:
        raise AssertionError("a server needs no directory")

    async with EVERYWHERE[request.param](directory) as made:
        yield made


@pytest.mark.parametrize("off", [TEN_YEARS, -TEN_YEARS], ids=["ahead", "behind"])
async def test_a_clock_that_is_ten_years_off_changes_nothing(
    storage: Storage, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Queue[Any, Any](storage, name="q") as right, Reaper(storage.clone(), sweep_interval=0.1):
        await right.enqueue("before", None, delay=0.2, result_ttl=600.0)
        started = datetime.now(UTC)
        monkeypatch.setattr(type(SYSTEM_CLOCK), "time", staticmethod(lambda: time.time() + off))
        worker, runs = Queue[Any, Any](storage.clone(), name="q", visibility_timeout=5.0), list[str]()

        @worker.execute
        async def run(job: Job[Any]) -> int:
            runs.append(job.id)
            await asyncio.sleep(0.5)  # long enough for a sweep that takes the lease for an old one
            return job.attempts

        async with asyncio.timeout(2 * BOUND), worker:
            assert await right.wait("before", timeout=BOUND) == 1
            await worker.enqueue("soon", None, delay=0.2, result_ttl=600.0)
            await worker.enqueue("later", None, delay=3600.0)
            await worker.enqueue("at", None, run_at=started + timedelta(hours=1))
            assert await worker.wait("soon", timeout=BOUND) == 1
            assert sorted(runs) == ["before", "soon"]
            assert await right.get_result("soon") == 1  # kept for its time
            for id in ("later", "at"):
                status = await right.get_status(id)
                assert status is not None
                assert status.state is JobState.SCHEDULED
                assert abs((status.created_at - started).total_seconds()) < 3600.0
