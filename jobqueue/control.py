"""The calls of a queue for those who operate it as a whole: pause, drain, clear, look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from jobqueue.client.registration import Registration
from jobqueue.errors import JobQueueError
from jobqueue.model.checks import check_bool, check_seconds
from jobqueue.model.generics import P, R
from jobqueue.model.states import ENDED, WAITING, JobState
from jobqueue.runtime.bounded import within
from jobqueue.stats import QueueStats, is_paused, queue_stats, reapers
from jobqueue.storage.capabilities import Admission, Diagnosable, Revival, Severity, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import CancelStatus

__all__ = ["Health", "Operations", "set_paused"]

FIRST_LOOK, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks of `Operations.drain`: from the first to the later ones."""
SHARE = 0.1
"""Part of the time that the store spends on these looks at most."""
BATCH = 200
"""Jobs that one step of `Operations.clear` ends or deletes. On Redis that takes a few milliseconds."""
PATIENCE = 5.0
"""Seconds that `Operations.health` waits for the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a queue can be used, and what an operator should know."""

    ok: bool
    """The store answers and is fit: this process can do its work."""
    latency: float | None
    """Seconds of a round trip to the store; ``None`` if it did not answer."""
    problems: tuple[str, ...]
    """What is wrong or risky, in words, with the remedy. Not all of it is a reason to be not ``ok``."""


class Operations(Registration[P, R]):
    """A part of `Queue`."""

    async def pause(self) -> None:
        """Start no more jobs of this queue, on any worker: after this has returned none is started.

        Running jobs go on, and jobs can be enqueued. Lasts until `resume`, also when all processes restart.
        Raises `UnsupportedError` if the store cannot, and `StorageError`.
        """
        self._started()
        await set_paused(self._storage, self.name, paused=True)

    async def resume(self) -> None:
        """Undo `pause`: workers that wait begin at once. Does nothing if the queue is not paused."""
        self._started()
        await set_paused(self._storage, self.name, paused=False)

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until no job is queued, running or due; return False if ``timeout`` seconds are over first.

        Jobs that wait for a later time, retries included, are not waited for. New ones are: nothing keeps
        others from enqueueing. Looks up to fifty times a second, later twice. Raises `UnsupportedError` if
        the store cannot tell, and `StorageError`.
        """
        self._started()
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True)
        store, clock = (
            require(self._storage, Admission, "waiting until a queue is drained"),
            self._storage.clock,
        )
        until = None if timeout is None else clock.monotonic() + timeout
        pause = FIRST_LOOK
        while True:
            asked = clock.monotonic()
            _, running, ready, next_due = await store.get_rules(self.name)
            now = clock.monotonic()
            if not running and not ready and (next_due is None or next_due > 0):
                return True
            if until is not None and now >= until:
                return False
            wait = max(pause, (now - asked) / SHARE)
            await clock.sleep(wait if until is None else min(wait, until - now))
            pause = min(LONGEST_PAUSE, pause * 1.5)

    async def clear(self, *, ended: bool = False) -> int:
        """Cancel all jobs that wait; with ``ended`` delete them, and the ended ones too. Return how many.

        Calls that wait for such a job raise `JobCancelledError`. Running jobs stay. Those that are there at
        the start are meant: what is enqueued meanwhile may stay. In small steps, between which others are
        served. Raises `UnsupportedError` if the store cannot, and `StorageError`.
        """
        check_bool("ended", ended)
        self._started()
        store = self._storage
        if ended:
            delete = require(store, Revival, "deleting jobs").forget
            return await _clear(store, self.name, WAITING | ENDED, lambda ids: delete(self.name, ids))

        async def cancel(ids: Sequence[str]) -> list[bool]:
            statuses = await store.cancel(self.name, ids)
            done = [status is CancelStatus.CANCELLED for status in statuses]
            for id, cancelled in zip(ids, done, strict=True):
                if cancelled:
                    self._was_cancelled(id)
            return done

        return await _clear(store, self.name, WAITING, cancel)

    async def stats(self) -> QueueStats:
        """Return figures of this queue: jobs by state, workers, rate and waits. Raises `StorageError`."""
        self._started()
        return await queue_stats(self._storage, self.name)

    async def health(self) -> Health:
        """Judge the store, and whether somebody works for this queue. Takes at most a few seconds.

        A store that does not answer, or that must not be used as it is, makes ``ok`` False; no error is
        raised for it. That no worker is seen while jobs wait is a problem, and ``ok`` stays: else all web
        processes would be taken out of service while workers are restarted.
        """
        self._started()
        store = self._storage
        started = store.clock.monotonic()
        try:
            await within(store.clock, store.lock_holder("health"), PATIENCE)
            latency = store.clock.monotonic() - started
            problems, fit = await within(store.clock, _problems(store, self.name), PATIENCE)
        except (JobQueueError, TimeoutError) as error:
            text = str(error) or f"the store did not answer within {PATIENCE:g} s"
            return Health(ok=False, latency=None, problems=(text,))
        return Health(ok=fit, latency=latency, problems=tuple(problems))


async def set_paused(store: Storage, queue: str, *, paused: bool) -> None:
    """Pause or resume a queue, as `Operations.pause` says."""
    keeper = require(store, Admission, "pausing a queue")
    while True:
        rules = (await keeper.get_rules(queue)).rules
        # Written also if nothing changes: only then is it sure that no claim is under way.
        if await keeper.set_rules(queue, rules._replace(paused=paused), expected=rules):
            return


async def _clear(
    store: Storage,
    queue: str,
    states: frozenset[JobState],
    act: Callable[[Sequence[str]], Awaitable[Sequence[bool]]],
) -> int:
    counts = await store.counts(queue)
    done = 0
    for state in JobState:
        left = getattr(counts, state.value) if state in states else 0
        cursor: str | None = None
        while left > 0:
            page = await store.scan(queue, state, min(BATCH, left), cursor)
            left -= len(page.records)
            changed = await act([record.id for record in page.records]) if page.records else ()
            done += sum(changed)
            cursor = page.cursor
            if cursor is None:
                break
            await store.clock.sleep(0)  # calls of a store in memory let nobody else run
    return done


async def _problems(store: Storage, queue: str) -> tuple[list[str], bool]:
    """Return what is wrong or risky, and whether the store is fit."""
    findings = await store.diagnose() if isinstance(store, Diagnosable) else ()
    problems = [found.text for found in findings if found.severity is not Severity.OK]
    counts = await store.counts(queue)
    paused = await is_paused(store, queue)
    if paused:
        problems.append(f"queue {queue!r} is paused: resume it if that is over")
    if counts.queued and not paused and not await store.workers(queue):
        problems.append(
            f"{counts.queued} jobs of queue {queue!r} wait, and no worker was seen for a minute: start one"
        )
    if store.shared and counts.processing and not await reapers(store):
        problems.append(
            "no reaper sweeps this store, so that nobody recovers the jobs of a worker that dies: run "
            "`jobqueue worker` or `jobqueue reaper`"
        )
    return problems, all(found.severity is not Severity.ERROR for found in findings)
