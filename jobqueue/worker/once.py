"""A worker that claims a bounded number of jobs, runs them, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from jobqueue.emitter import Emitter
from jobqueue.errors import JobQueueError
from jobqueue.model.states import Action
from jobqueue.runtime.bounded import all_end
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.supervisor import Supervisor
from jobqueue.runtime.timers import Timers
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Claimed, SettleStatus
from jobqueue.worker.execution import Execution
from jobqueue.worker.options import WorkerOptions
from jobqueue.worker.run import Run
from jobqueue.worker.run_events import Announcer
from jobqueue.worker.worker import Worker

__all__ = ["OneShot", "Processed"]


class Processed(NamedTuple):
    """What one `Queue.process_once` did.

    ``claimed`` is the sum of the others, and of jobs that were cancelled or lost to another worker meanwhile.
    """

    claimed: int
    """Jobs that were taken."""
    completed: int
    """Jobs that have their result."""
    failed: int
    """Jobs that failed for good."""
    retried: int
    """Jobs that failed, and are tried again later."""
    released: int
    """Jobs that were given back as the time was up, without using up an attempt."""


class OneShot(Worker):
    """Claims until nothing is ready, ``limit`` jobs were claimed, or it is stopped. For one `process`."""

    _warns_when_full = False
    _may_halve = False

    def __init__(
        self,
        storage: Storage,
        execution: Execution,
        options: WorkerOptions,
        emitter: Emitter,
        timers: Timers,
        supervisor: Supervisor,
        limit: int,
    ) -> None:
        super().__init__(storage, execution, options, emitter, timers, supervisor)
        self._left = limit
        self._counting = _Counting(emitter, storage.clock, execution.queue, execution.worker_id)
        self._announcer: Announcer = self._counting
        self._error: BaseException | None = None
        """The last error of the store."""

    async def process(self, timeout: float | None) -> Processed:
        """Claim and run jobs; after ``timeout`` seconds, abort and give back those that still run.

        Raises the error of a store that does not answer.
        """
        self.start()
        claimer = self._claimer
        assert claimer is not None, "started"
        try:
            if timeout is None:
                await asyncio.wait([claimer])
            else:
                await all_end(self._clock, [claimer], timeout)
        finally:
            await self.stop(0.0)
        if self._pauses.failures and self._error is not None:
            raise self._error
        counts = self._counting.counts
        return Processed(
            self.claimed,
            counts.get(Action.COMPLETE, 0),
            counts.get(Action.FAIL, 0),
            counts.get(Action.RETRY, 0),
            counts.get(Action.RELEASE, 0),
        )

    async def _claim_forever(self) -> None:
        while True:
            self._awake = False
            self._wake.clear()
            limit = 0 if self._draining else self._free_slots()
            if self._finished or (limit > 0 and self._hint.promising):
                await self._exchange(limit)
                if self._pauses.failures:  # hand in what was claimed, and no more
                    self._draining = True
            elif not self._runs:
                return
            else:
                await self._wake.wait()

    def _free_slots(self) -> int:
        return min(super()._free_slots(), self._left)

    def _launch(self, jobs: Sequence[Claimed], now: float) -> None:
        self._left -= len(jobs)
        super()._launch(jobs, now)

    def _report(self, error: BaseException, doing: str) -> None:
        if isinstance(error, JobQueueError):
            self._error = error
        super()._report(error, doing)


class _Counting(Announcer):
    """Counts the outcomes that the store has accepted."""

    def __init__(self, emitter: Emitter, clock: Clock, queue: str, worker_id: str) -> None:
        super().__init__(emitter, clock, queue, worker_id)
        self.counts: dict[Action, int] = {}

    @property
    def hears_results(self) -> bool:
        """True: it wants to be told of all."""
        return True

    def settled(self, run: Run, status: SettleStatus) -> None:
        """Count the outcome of a run, and emit it."""
        if status is SettleStatus.ACCEPTED:
            action = run.settlement.action
            self.counts[action] = self.counts.get(action, 0) + 1
        super().settled(run, status)
