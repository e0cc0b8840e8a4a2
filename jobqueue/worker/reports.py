"""Stores what a handler reports while it runs, under the fence of its lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobqueue.errors import LeaseLostError
from jobqueue.model.outcomes import AbortedReason
from jobqueue.model.serde import dump
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import LeaseStatus, Renewal
from jobqueue.worker.execution import Execution
from jobqueue.worker.job import Job
from jobqueue.worker.run import Run
from jobqueue.worker.run_events import Announcer

__all__ = ["RunReports"]


class RunReports:
    """The reports of one worker's runs. Each renews the lease, too.

    ``lease`` is in milliseconds, ``runs`` are the running ones by fence, ``abort(fence, reason)`` ends one.
    """

    def __init__(
        self,
        storage: Storage,
        execution: Execution,
        lease: int,
        runs: Mapping[int, Run],
        abort: Callable[[int, AbortedReason], None],
        announcer: Announcer,
    ) -> None:
        self._storage = storage
        self._execution = execution
        self._lease = lease
        self._runs = runs
        self._abort = abort
        self._announcer = announcer

    async def progress(self, job: Job[Any], value: Any) -> None:
        """Store the progress of a run. Raises `LeaseLostError`."""
        execution = self._execution
        data = dump(execution.result_serde, value, "the progress", execution.max_bytes)
        run = await self._renew(job, Renewal(job.id, job.fence, data))
        self._announcer.progressed(run, value)

    async def save(self, job: Job[Any], data: bytes) -> None:
        """Store what a run saves for the next attempt. Raises `LeaseLostError`."""
        await self._renew(job, Renewal(job.id, job.fence, saved=data))

    async def _renew(self, job: Job[Any], renewal: Renewal) -> Run:
        """Renew a lease with news of the run, which is returned."""
        execution, run = self._execution, self._runs.get(job.fence)
        started = self._storage.clock.monotonic()
        status = LeaseStatus.LOST
        if run is not None:
            (status,) = await self._storage.extend(
                execution.queue, execution.worker_id, [renewal], self._lease
            )
        if run is None or status is LeaseStatus.LOST:
            self._abort(job.fence, AbortedReason.LEASE_LOST)
            raise LeaseLostError(f"job {job.id!r} now belongs to another run: end this one")
        run.confirmed_at = max(run.confirmed_at, started)
        if status is LeaseStatus.CANCELLING:
            self._abort(job.fence, AbortedReason.CANCELLED)
        return run
