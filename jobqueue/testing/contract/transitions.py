"""Every transition of `jobqueue.model.states.TRANSITIONS` happens in the store, and no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import ENDED, TRANSITIONS, Action, JobState
from jobqueue.storage.values import Renewal, Reuse
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Jobs

__all__ = ["TransitionCases"]

S = JobState
STATES: tuple[JobState | None, ...] = (None, *JobState)


def settling(action: Action) -> Callable[[Jobs], Awaitable[object]]:
    """Settle the job by the fence of its record, in whatever state it is."""

    async def settle(jobs: Jobs) -> None:
        record = await jobs.find("a")
        fence = 1 if record is None else record.fence
        await jobs.exchange(Settlement("a", fence, action, b"x", TTL, 1_000))

    return settle


async def promote(jobs: Jobs) -> None:
    """Claim another job that comes first, so that a due one is only promoted."""
    await jobs.put("first", priority=1000)
    assert await jobs.claim_ids(1) == ["first"]


async def extend(jobs: Jobs) -> None:
    record = await jobs.find("a")
    await jobs.storage.extend("q", "w", [Renewal("a", 1 if record is None else record.fence)], LEASE)


async def look(jobs: Jobs) -> None:
    await jobs.storage.get("q", ["a"], reply_to="me", payload=True)
    for state in JobState:
        await jobs.storage.scan("q", state, 5)
    await jobs.storage.counts("q")
    await jobs.storage.workers("q")


CALLS: dict[str, Callable[[Jobs], Awaitable[object]]] = {
    "insert": lambda jobs: jobs.put("a"),
    "insert later": lambda jobs: jobs.put("a", delay=1_000),
    "rerun": lambda jobs: jobs.put("a", reuse=Reuse.RERUN),
    "rerun failed": lambda jobs: jobs.put("a", reuse=Reuse.RERUN_FAILED),
    "promote": promote,
    "claim": lambda jobs: jobs.claim(1),
    "complete": settling(Action.COMPLETE),
    "fail": settling(Action.FAIL),
    "retry": settling(Action.RETRY),
    "release": settling(Action.RELEASE),
    "settle as cancelled": settling(Action.CANCEL),
    "cancel": lambda jobs: jobs.cancel("a"),
    "cancel running": lambda jobs: jobs.cancel("a", running=True),
    "extend": extend,
    "sweep": lambda jobs: jobs.storage.sweep("q", 10),
    "set_ttl": lambda jobs: jobs.storage.set_ttl("q", [("a", TTL)]),
    "purge": lambda jobs: jobs.storage.purge("q", 10),
    "look": look,
}
AFTER: dict[tuple[JobState | None, str], JobState] = {
    (None, "insert"): S.QUEUED,
    (None, "insert later"): S.SCHEDULED,
    (None, "rerun"): S.QUEUED,
    (None, "rerun failed"): S.QUEUED,
    (S.SCHEDULED, "promote"): S.QUEUED,
    (S.SCHEDULED, "claim"): S.PROCESSING,
    (S.SCHEDULED, "cancel"): S.CANCELLED,
    (S.SCHEDULED, "cancel running"): S.CANCELLED,
    (S.QUEUED, "claim"): S.PROCESSING,
    (S.QUEUED, "cancel"): S.CANCELLED,
    (S.QUEUED, "cancel running"): S.CANCELLED,
    (S.PROCESSING, "complete"): S.COMPLETED,
    (S.PROCESSING, "fail"): S.FAILED,
    (S.PROCESSING, "retry"): S.FAILING,
    (S.PROCESSING, "release"): S.QUEUED,
    (S.PROCESSING, "settle as cancelled"): S.CANCELLED,
    (S.PROCESSING, "sweep"): S.QUEUED,
    (S.FAILING, "promote"): S.QUEUED,
    (S.FAILING, "claim"): S.PROCESSING,
    (S.FAILING, "cancel"): S.CANCELLED,
    (S.FAILING, "cancel running"): S.CANCELLED,
    (S.COMPLETED, "rerun"): S.QUEUED,
    (S.FAILED, "rerun"): S.QUEUED,
    (S.FAILED, "rerun failed"): S.QUEUED,
    (S.CANCELLED, "insert"): S.QUEUED,
    (S.CANCELLED, "insert later"): S.SCHEDULED,
    (S.CANCELLED, "rerun"): S.QUEUED,
    (S.CANCELLED, "rerun failed"): S.QUEUED,
}
"""What changes the state of a job that is due and whose lease has run out. Nothing else does."""


class TransitionCases(Cases):
    """The transition table."""

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("state", STATES)
    async def test_a_call_moves_a_job_as_the_table_says(
        self, jobs: Jobs, state: JobState | None, call: str
    ) -> None:
        if state is not None:
            await jobs.bring(state, ttl=10 * TTL)
            jobs.clock.move(LEASE / 1000)
        await CALLS[call](jobs)
        record = await jobs.find("a")
        assert (None if record is None else record.state) == AFTER.get((state, call), state)

    async def test_abandon_leads_from_processing_to_failed(self, jobs: Jobs) -> None:
        await jobs.bring(S.PROCESSING, max_stalls=0)
        await jobs.stall()
        assert await jobs.state("a") is TRANSITIONS[S.PROCESSING, Action.ABANDON] is S.FAILED

    @pytest.mark.parametrize("state", [S.QUEUED, S.SCHEDULED])
    async def test_expire_leads_from_waiting_to_failed(self, jobs: Jobs, state: JobState) -> None:
        await jobs.bring(state, expires=1_000)
        jobs.clock.move(6)
        await jobs.storage.sweep("q", 10)
        assert await jobs.state("a") is TRANSITIONS[state, Action.EXPIRE] is S.FAILED

    async def test_the_cases_reach_the_whole_table(self) -> None:
        # A claim of a due job that still waits is two transitions; reruns start over from no job.
        two = {(S.SCHEDULED, "claim"), (S.FAILING, "claim")}
        reached = {(S.PROCESSING, S.FAILED), (S.QUEUED, S.FAILED), (S.SCHEDULED, S.FAILED)} | {
            (state, after)
            for (state, call), after in AFTER.items()
            if state not in ENDED and (state, call) not in two
        }
        assert reached == {(state, after) for (state, _), after in TRANSITIONS.items()}
