"""What a reaper does for a queue, one step at a time: for those who call it from a timer of their own."""

from __future__ import annotations

from collections.abc import Callable

from jobqueue.events import Event, JobDeadLettered, JobFailed, JobStalled
from jobqueue.model.outcomes import EXPIRED_ERROR, decode_error
from jobqueue.model.states import ENDED, JobState
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import UpdateTtlStatus

__all__ = ["cleanup", "reclaim"]

_AT_ONCE = 1
"""The shortest TTL, in milliseconds."""
_CLOCK = "clock"
"""Name of the lock by which the store's clock is read."""
_READING = 10_000
"""Milliseconds that such a lock is held for, if it is not released."""


async def reclaim(storage: Storage, queue: str, emit: Callable[[Event], None]) -> int:
    """Recover the jobs whose leases have expired; return how many. Fail those that did not start in time."""
    stalled = 0
    while swept := await storage.sweep(queue, MOST_ITEMS):
        stalled += sum(not job.expired for job in swept)
        for job in swept:
            if job.expired:
                error, reason = decode_error(EXPIRED_ERROR)
                emit(JobFailed(job.id, queue, error, 0, reason))
                emit(JobDeadLettered(job.id, queue, error, 0, reason))
                continue
            failed = job.state is JobState.FAILED
            emit(JobStalled(job.id, queue, job.worker, job.stalls, failed))
    return stalled


async def cleanup(storage: Storage, queue: str, older_than: int | None) -> int:
    """Delete expired records, and forget jobs that ended ``older_than`` milliseconds ago; return how many."""
    forgotten = 0
    if older_than is not None:
        now = await _store_time(storage)
        counts = await storage.counts(queue)
        for state in JobState:
            if state in ENDED:
                # Not for ever: jobs end all the time.
                most = getattr(counts, state.value) + MOST_ITEMS
                forgotten += await _forget(storage, queue, state, now, older_than, most)
    if forgotten and not storage.clock.virtual:
        await storage.clock.sleep(2 * _AT_ONCE / 1000)  # until they have expired, to be deleted with the rest
    while (purged := await storage.purge(queue, MOST_ITEMS)) == MOST_ITEMS:
        forgotten += purged if older_than is None else 0
        await storage.clock.sleep(0)  # calls of a store in memory let nobody else run
    return forgotten + (purged if older_than is None else 0)


async def _forget(storage: Storage, queue: str, state: JobState, now: int, older_than: int, most: int) -> int:
    forgotten, cursor = 0, None
    while most > 0:
        page = await storage.scan(queue, state, MOST_ITEMS, cursor)
        most -= len(page.records)
        # To expire at once, and not to be deleted: a job that runs again since is left alone.
        old = [
            (record.id, _AT_ONCE)
            for record in page.records
            if record.updated_at <= now - older_than
            and (record.expires_at is None or record.expires_at > now + _AT_ONCE)
        ]
        if old:
            statuses = await storage.set_ttl(queue, old)
            forgotten += sum(status is UpdateTtlStatus.UPDATED for status in statuses)
        cursor = page.cursor
        if cursor is None:
            break
        await storage.clock.sleep(0)  # as in `cleanup`
    return forgotten


async def _store_time(storage: Storage) -> int:
    """Return the time by the store's clock, which alone decides."""
    owner = unique_id()
    while True:
        await storage.lock_acquire(_CLOCK, owner, _READING)
        holder = await storage.lock_holder(_CLOCK)  # this call, or another one that began a moment ago
        await storage.lock_release(_CLOCK, owner)
        if holder is not None:
            return holder.expires_at - _READING
