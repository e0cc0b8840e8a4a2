"""Pages of the jobs of a queue in one state, by ``seq``.

The records of a queue are in the order of their ``seq``: new ones go to the end, and so does one that is
revived. A page ends as soon as it is full, or has all there are. A dictionary has no middle to begin at: so
the records of a large queue are kept as a list too, while somebody lists them. It is brought up to date by
each page, and may hold some that are gone.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import takewhile
from operator import attrgetter

from jobqueue.model.states import JobState
from jobqueue.storage.engine.job_entry import JobEntry
from jobqueue.storage.engine.queue_state import QueueState, Roll

__all__ = ["jobs_after"]

LARGE = 10_000
"""Records from which on their list is kept."""
_STEP = 1_024
_seq = attrgetter("seq")


def jobs_after(
    q: QueueState, state: JobState, limit: int, now: int, after: int
) -> tuple[list[JobEntry], bool]:
    """Return up to ``limit`` jobs of a state that are not absent, from behind ``after``; and if more are."""
    total = q.count(state)
    if limit <= 0 or not total:
        return [], False
    everything, by_id = _in_order(q, now), q.jobs
    start = bisect_right(everything, after, key=_seq) if after else 0
    page: list[JobEntry] = []
    seen = 0
    for begin in range(start, len(everything), _STEP):
        for job in everything[begin : begin + _STEP]:
            if job.state is not state or by_id.get(job.id) is not job:
                continue
            if not 0 < job.kept_until <= now:
                if len(page) == limit:
                    return page, True
                page.append(job)
            seen += 1
        if seen == total:
            break
    return page, False


def _in_order(q: QueueState, now: int) -> list[JobEntry]:
    """Return the records by their ``seq``; there may be others among them, which are gone."""
    roll, by_id = q.roll, q.jobs
    if not q.ordered:
        q.jobs = by_id = {job.id: job for job in sorted(by_id.values(), key=_seq)}
        q.ordered, roll = True, None
    if roll is None or len(roll.jobs) > 2 * len(by_id) + LARGE:
        jobs = list(by_id.values())
    else:
        jobs, last = roll.jobs, roll.jobs[-1].seq
        jobs += reversed(list(takewhile(lambda job: job.seq > last, reversed(by_id.values()))))
    q.roll = Roll(now, jobs) if len(jobs) > LARGE else None
    return jobs
