"""The worker of one queue in one process.

Its duties:

* keep ``concurrency`` slots full, through `Storage.exchange`: one atomic, non-blocking step hands in
  every run that has ended and claims as many jobs as there are free slots;
* sleep until the store's wake-up while there is nothing to do;
* abort runs: at `job_timeout`, on request, when their lease is lost, at the end of a shutdown;
* stop without losing anything: claim no more, let run, abort, give back what is left, hand in.

One claimer does the talking, so the cost per job is a task, two dict writes and its share of a batch. Where
batches are large and calls overlap, a second one takes half of each: the store works while the worker does.
Settlements that the store could not take are kept and handed in again. The file is long because claiming,
running and stopping share the runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from jobqueue.emitter import Emitter
from jobqueue.errors import JobQueueError, StorageUnavailableError
from jobqueue.events import ErrorOccurred
from jobqueue.model.checks import millis
from jobqueue.model.missing_handler import uncounted
from jobqueue.model.outcomes import AbortedReason, Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.batching import fitting
from jobqueue.runtime.bounded import end_within
from jobqueue.runtime.supervisor import Supervisor
from jobqueue.runtime.timers import Timers
from jobqueue.storage.capabilities import ClaimsOnArrival, OverlapsCalls
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Claimed, SettleStatus
from jobqueue.worker.arrivals import Arrivals
from jobqueue.worker.execution import Execution
from jobqueue.worker.heartbeat import Heartbeat
from jobqueue.worker.options import WorkerOptions
from jobqueue.worker.outbox import Outbox
from jobqueue.worker.reports import RunReports
from jobqueue.worker.run import PLAIN, Run
from jobqueue.worker.run_events import Announcer
from jobqueue.worker.self_report import SelfReport, Tally
from jobqueue.worker.slots import SlotWatch
from jobqueue.worker.work_hint import Pauses, WorkHint

__all__ = ["Worker"]

ABORT_GRACE = 1.0
"""Seconds that an aborted run gets to end before its job is given back without it."""
HAND_IN = 30.0
"""Longest time, in seconds, that a stopping worker spends on storing the last outcomes."""
LAST_TRIES = 8
"""Failed exchanges in a row after which a stopping worker leaves its jobs to their leases."""
MAX_BATCH = 1000
"""Jobs handed in and claimed by one exchange at the most."""
HALF = 32
"""Least number of outcomes that are worth a call beside the one under way."""

_ACCEPTED, _COMPLETE = SettleStatus.ACCEPTED, Action.COMPLETE
_GOES_ON = frozenset({Action.RETRY, Action.RELEASE})


class Worker:
    """Runs the jobs of one queue. Made for one start and one stop."""

    _warns_when_full = True
    _may_halve = True

    def __init__(
        self,
        storage: Storage,
        execution: Execution,
        options: WorkerOptions,
        emitter: Emitter,
        timers: Timers,
        supervisor: Supervisor,
    ) -> None:
        self._storage = storage
        self._clock = storage.clock
        self._execution = execution
        self._queue = execution.queue
        self._worker_id = execution.worker_id
        self._options = options
        self._emitter = emitter
        self._announcer = Announcer(emitter, storage.clock, execution.queue, execution.worker_id)
        self._timers = timers
        self._supervisor = supervisor
        self._lease = millis(options.visibility_timeout)
        self._runs: dict[int, Run] = {}  # by fence: one id may run twice here, one of them lost
        self._stuck_threads = 0
        self._outbox = Outbox()
        self._finished = self._outbox.waiting
        self.reports = RunReports(storage, execution, self._lease, self._runs, self.abort, self._announcer)
        """Stores what handlers report."""
        self.self_report = SelfReport(
            storage, self._queue, self._worker_id, Tally(storage.clock),
            lambda: (execution.handler is not None, tuple(execution.tasks)),
        )  # fmt: skip
        """Tells those who ask for statistics what this worker does."""
        # Set when there is work for the second claimer; ``None``: there is none.
        self._crowd = asyncio.Event() if self._may_halve and _overlaps(storage) else None
        self._create_task = asyncio.get_running_loop().create_task
        self._wake = asyncio.Event()
        self._awake = False  # so that only the first run of a batch sets the event
        self._hint = WorkHint(
            storage, self._queue, self._worker_id, options.block_timeout, supervisor,
            self._wake.set, self._report, self._arrivals(storage),
        )  # fmt: skip
        self._slots = SlotWatch(storage, self._queue, options.concurrency)
        self._pauses = Pauses(storage.clock)
        self._draining = False
        self._reached = False
        self._over: asyncio.Future[None] | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._claimer: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None

    def _arrivals(self, storage: Storage) -> Arrivals | None:
        if not isinstance(storage, ClaimsOnArrival):
            return None
        return Arrivals(
            storage, self._queue, self._worker_id, self._lease, self._runs, self._launch,
            self._announcer.expired,
        )  # fmt: skip

    @property
    def claimed(self) -> int:
        """Number of jobs that were claimed here so far."""
        return self.self_report.tally.claimed

    @property
    def running(self) -> int:
        """Number of jobs that run now."""
        return len(self._runs)

    @property
    def ready(self) -> bool:
        """Whether the worker can claim: the last call to the store succeeded, and no stop has begun."""
        return self._reached and self._pauses.failures == 0 and not self._draining

    def start(self) -> None:
        """Start claiming and running jobs."""
        heartbeat = Heartbeat(
            self._storage, self._queue, self._worker_id, self._options.visibility_timeout,
            self._runs, self._outbox, self.abort, self._begin_again,
            lambda error: self._report(error, "renewing leases"),
        )  # fmt: skip
        self._heart = self._supervisor.spawn(heartbeat.run(), "heartbeat")
        self._claimer = self._supervisor.spawn(self._claim_forever(), "claimer")
        if self._crowd is not None:
            self._supervisor.spawn(self._claim_beside(self._crowd), "second-claimer")
        self._supervisor.spawn(self.self_report.keep(), "report")
        if self._warns_when_full and not self._execution.threaded:
            self._supervisor.spawn(self._slots.watch(), "slots")

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a task is the run of a job here, or runs its handler for a middleware."""
        return task is not None and any(run.awaits(task) for run in self._runs.values())

    def abort(self, fence: int, reason: AbortedReason) -> None:
        """Ask a run to end. Unknown fences are ignored: the run has ended."""
        run = self._runs.get(fence)
        if run is not None:
            run.abort(reason)

    async def until_empty(self) -> None:
        """Wait until the store, asked from now on, has no job that is ready, and none runs here."""
        asked = self._emptied = self._emptied or asyncio.get_running_loop().create_future()
        self._hint.promising = True
        self._wake.set()
        await asyncio.shield(asked)  # others may wait for it, too

    async def stop(self, timeout: float | None) -> None:
        """Stop claiming, then wait ``timeout`` seconds for the runs; ``None``: until all have ended.

        Cancelled, it waits for them no longer, but still gives back what has not ended.
        """
        self._draining = True
        self._wake.set()
        try:
            await self._until_idle(timeout)
        finally:
            try:
                await self._abort_runs()
            finally:
                await self._hand_in()
                await self._hint.close()
                if self._heart is not None:
                    self._supervisor.dismiss(self._heart)
                    await asyncio.wait([self._heart])

    async def _abort_runs(self) -> None:
        for run in tuple(self._runs.values()):
            run.abort(AbortedReason.SHUTDOWN)
        try:
            await self._until_idle(ABORT_GRACE)
        finally:
            for run in tuple(self._runs.values()):
                self._abandon(run)

    def break_off(self) -> None:
        """Claim no more and end the runs: the background tasks have ended, and nothing renews the leases.

        Their jobs are not given back: one that breaks its worker each time would run for ever. They are
        recovered, and the stalls counted, as if the process had died. `stop` hands in what had ended before.
        """
        self._draining = True
        for run in tuple(self._runs.values()):
            if run.task is None or not run.task.cancelling():  # else other code is ending it, with an error
                run.abort(AbortedReason.LEASE_LOST)

    async def _hand_in(self) -> None:
        """Store the last outcomes, within `HAND_IN` seconds."""
        claimer = self._claimer
        if claimer is None:
            return
        if claimer.done():  # it broke, and has left outcomes behind
            claimer = asyncio.create_task(self._claim_forever(), name="jobqueue-claimer")
        await end_within(self._clock, claimer, HAND_IN, partial(self._supervisor.dismiss, claimer))
        self._give_up(self._outbox.clear())

    # -- claiming ---------------------------------------------------------------------------------

    async def _claim_forever(self) -> None:
        while True:
            self._awake = False
            self._wake.clear()
            limit = 0 if self._draining else self._free_slots()
            if self._finished or (limit > 0 and self._hint.promising):
                if self._crowd is not None and len(self._finished) >= 2 * HALF and not self._draining:
                    self._crowd.set()
                    await self._exchange(-(-limit // 2), min(MAX_BATCH, len(self._finished) // 2))
                else:
                    await self._exchange(limit)
            elif self._draining and not self._runs and not self._outbox.under_way:
                return
            else:
                self._slots.note(full=limit <= 0)
                if self._emptied is not None and limit > 0 and not self._runs and not self._outbox.under_way:
                    self._emptied.set_result(None)
                    self._emptied = None
                if limit > 0:
                    self._hint.listen(alone=not self._outbox.under_way)
                else:
                    self._hint.stop()
                await self._wake.wait()

    async def _claim_beside(self, crowd: asyncio.Event) -> None:
        """Take half of the large batches, so that the store has one while this process has the other."""
        while True:
            await crowd.wait()
            crowd.clear()
            # When stopping, one call at a time: two that fail would use up the tries in half of the time.
            while len(self._finished) >= HALF and not self._draining:
                await self._exchange(self._free_slots())
            self._wake.set()

    def _free_slots(self) -> int:
        taken = len(self._runs) + self._stuck_threads + self._outbox.asked
        return min(MAX_BATCH, self._options.concurrency - taken)

    async def _exchange(self, limit: int, most: int = MAX_BATCH) -> None:
        if self._storage.batched:
            most = fitting([len(run.settlement.data) for run in self._finished[:most]])
        limit = max(0, limit)
        batch = self._outbox.send(most, limit)
        runs = batch.runs
        settlements = [run.settlement for run in runs]
        started = self._clock.monotonic()
        if limit:
            self._hint.promising = False
        try:
            answer = await self._storage.exchange(
                self._queue, self._worker_id, settlements, limit, self._lease
            )
        except BaseException as error:
            self._outbox.put_back(batch)
            self._hint.promising = True
            if not isinstance(error, JobQueueError):
                self._wake.set()  # the other claimer may wait for this call to end
                raise
            await self._bear(error)
            return
        self._outbox.answered(batch)
        self._pauses.failures = 0
        self._reached = True
        self._launch(answer.jobs, started)
        self._hint.take(answer, limit)
        if answer.expired:
            self._announcer.expired(answer.expired)
        # Most batches are accepted results, and those have no listener.
        settled = answer.settled
        plain = not batch.telling and settled.count(_ACCEPTED) == len(runs)
        self.self_report.tally.ended += len(runs) if plain else sum(map(_has_ended, runs, settled))
        if not plain or self._announcer.hears_results:
            for run, status in zip(runs, settled, strict=True):
                self._announcer.settled(run, status)
        if answer.jobs:
            # Runs that end at once are handed in next, ahead of a wait for more work: callers wait for them.
            await self._clock.sleep(0)

    async def _bear(self, error: JobQueueError) -> None:
        """Wait after a call that failed; when stopping, give up after several."""
        self._report(error, "exchanging jobs with the store")
        await self._pauses.pause()
        if self._draining and self._pauses.failures >= LAST_TRIES:
            self._give_up(self._outbox.drop_waiting())

    def _give_up(self, runs: Sequence[Run]) -> None:
        """Give up storing the last outcomes; their leases will expire and the jobs run again."""
        if not runs:
            return
        lost = [run.id for run in runs]
        problem = StorageUnavailableError(f"outcomes of {len(lost)} runs could not be stored: {lost!r:.200}")
        self._report(problem, "stopping")

    # -- running ----------------------------------------------------------------------------------

    def _launch(self, jobs: Sequence[Claimed], now: float) -> None:
        try:
            self._start_runs(jobs, now)
        except BaseException:
            runs = self._runs
            self._give_back([job for job in jobs if job.fence not in runs or runs[job.fence].task is None])
            raise

    def _start_runs(self, jobs: Sequence[Claimed], held_since: float) -> None:
        timeout, runs, create_task = self._options.job_timeout, self._runs, self._create_task
        perform, ended, tell = self._execution.perform, self._ended, self._announcer.hears_starts
        now = self._clock.monotonic()
        count = len(jobs)
        if count:  # in their middle: as long as that one they all have waited
            tally = self.self_report.tally
            tally.claimed += count
            tally.note((jobs[count // 2].due, count, now))
        for claimed in jobs:
            run = Run(claimed, now, held_since)
            fence = run.fence
            runs[fence] = run
            if claimed.history:
                run.leave_out(uncounted(claimed.history, claimed.attempts - 1))
            limit = timeout
            if claimed.task:
                limit = self._execution.timeout(claimed) or timeout
            if limit is not None:
                run.renew_until = now + limit
                self._timers.start(run, limit)
            if tell:
                self._announcer.started(run)
            task = create_task(perform(run, ended))
            if fence in runs:  # else it was eager, and has ended before it is returned
                run.task = task
        if self._draining:  # brought by an exchange that was on its way when the stop began
            for claimed in jobs:
                self.abort(claimed.fence, AbortedReason.SHUTDOWN)

    def _begin_again(self, fence: int) -> None:
        """Begin a run whose task was cancelled before its first step: it could not even say so."""
        run = self._runs.get(fence)
        if run is not None and run.over:
            run.task = self._create_task(self._execution.perform(run, self._ended))

    def _ended(self, run: Run, settlement: Settlement | None) -> None:
        """Record the end of a run. Called by its own task, as its last step."""
        if run.lane is not None:
            self._timers.stop(run)
        if run.extras is PLAIN and settlement is not None:  # nearly all; `_settle` in place, 2 % of a job
            del self._runs[run.fence]
            run.settlement = settlement
            self._finished.append(run)
            if settlement.action is not _COMPLETE:
                self._outbox.telling = True
            if not self._awake:
                self._awake = True
                self._wake.set()
            return
        if run.extras is not PLAIN:
            thread = run.extras.thread
            if thread is not None and not thread.done():
                self._stuck_threads += 1
                thread.add_done_callback(self._bury)
            if run.extras.abandoned:
                return
        self._settle(run, settlement)

    def _bury(self, _thread: asyncio.Future[Any]) -> None:
        self._stuck_threads -= 1
        self._wake.set()

    def _settle(self, run: Run, settlement: Settlement | None) -> None:
        del self._runs[run.fence]
        if settlement is None:
            self._announcer.lost(run)
        else:
            run.settlement = settlement
            settled = run.extras.settled
            if settled is not None:  # it was written in the run's own transaction
                self.self_report.tally.ended += _has_ended(run, settled)
                self._announcer.settled(run, settled)
            else:
                self._finished.append(run)
            if settlement.action is not _COMPLETE:
                self._outbox.telling = True
        if not self._awake:
            self._awake = True
            self._wake.set()

    def _abandon(self, run: Run) -> None:
        """Settle a run that was aborted and has not ended."""
        run.own_extras().abandoned = True
        self._settle(run, self._execution.cut_off(run))

    def _give_back(self, jobs: Sequence[Claimed]) -> None:
        """Give back jobs that were claimed and are not run."""
        for claimed in jobs:
            now = self._clock.monotonic()
            run = self._runs[claimed.fence] = Run(claimed, now, now)
            run.abort(AbortedReason.SHUTDOWN)
            self._abandon(run)

    async def _until_idle(self, timeout: float | None) -> None:
        """Wait until no job runs, ``timeout`` seconds have passed, or `hurry` is called."""
        over = self._over = asyncio.get_running_loop().create_future()
        timer = None
        if timeout is not None:
            timer = self._clock.call_later(timeout, self.hurry)
        try:
            while self._runs and not over.done():
                for fence in tuple(self._runs):
                    self._begin_again(fence)
                running = asyncio.gather(
                    *(run.task for run in self._runs.values() if run.task), return_exceptions=True
                )
                # Shielded: giving up waiting must not cancel what is waited for.
                await asyncio.wait({asyncio.shield(running), over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()

    def hurry(self) -> None:
        """Stop waiting for the runs to end."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _report(self, error: BaseException, doing: str) -> None:
        self._emitter.emit(ErrorOccurred(error, doing, self._queue))


def _overlaps(storage: Storage) -> bool:
    return isinstance(storage, OverlapsCalls) and storage.overlaps_calls


def _has_ended(run: Run, status: SettleStatus) -> bool:
    """Return whether a job has ended with its run."""
    if status is SettleStatus.ACCEPTED:
        return run.settlement.action not in _GOES_ON
    return status is SettleStatus.CANCELLED
