"""Waits until a full queue, or a full store, has room for jobs: ``on_full="wait"``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobqueue.errors import QueueFullError, StoppedError, WaitTimeoutError
from jobqueue.model.checks import check_member
from jobqueue.model.states import JobState
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.runtime.clock import Clock
from jobqueue.storage.values import Inserted, InsertStatus, NewJob

__all__ = ["OnFull", "PatientInsert", "check_on_full"]

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before the next try: doubled each time that nothing found room."""
SPREAD = (0.5, 1.0)
"""Of a pause, so that many who wait do not ask all at once."""

_FULL = InsertStatus.FULL
_NO_ROOM = Inserted(_FULL, 0, JobState.QUEUED)


class OnFull(StrEnum):
    """How `Queue.enqueue` treats a queue, or a store, that has no room."""

    RAISE = "raise"
    """Raise `QueueFullError`."""
    WAIT = "wait"
    """Wait for room, as long as the caller does."""


def check_on_full(on_full: OnFull | str) -> OnFull:
    """Return the member that is meant. Raises `InvalidArgumentError`."""
    return check_member("on_full", OnFull, on_full)


@dataclass(frozen=True, slots=True)
class PatientInsert:
    """Inserts jobs, and waits for room for those of them that are ``patient``, by their places.

    A job that is not makes it answer, or raise, as ``insert`` does. It raises `WaitTimeoutError` at the
    instant ``until``, and `StoppedError` once ``stopping``.
    """

    insert: Callable[[Sequence[NewJob]], Awaitable[list[Inserted]]]
    patient: Sequence[bool]
    clock: Clock
    stopping: Callable[[], bool]
    until: float | None = None

    async def __call__(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Insert jobs; return the answers in their order."""
        answers = [_NO_ROOM] * len(jobs)
        left: Sequence[int] = range(len(jobs))
        pause = FIRST_PAUSE
        while left:
            places = left[:MOST_ITEMS]
            for place, answer in zip(places, await self._some(jobs, places), strict=True):
                answers[place] = answer
            full = [place for place in places if answers[place].status is _FULL]
            if not self._are_patient(full):
                break
            left = [*full, *left[len(places) :]]
            if full:
                pause = FIRST_PAUSE if len(full) < len(places) else pause
                await self._wait(jobs[full[0]].id, pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
        return answers

    async def _some(self, jobs: Sequence[NewJob], places: Sequence[int]) -> Sequence[Inserted]:
        try:
            return await self.insert([jobs[place] for place in places])
        except QueueFullError:  # of the store: a disk, a server's memory
            if not self._are_patient(places):
                raise
            return [_NO_ROOM] * len(places)

    def _are_patient(self, places: Sequence[int]) -> bool:
        return all(self.patient[place] for place in places)

    async def _wait(self, id: str, pause: float) -> None:
        pause *= self.clock.uniform(*SPREAD)
        if self.until is not None:
            pause = min(pause, self.until - self.clock.monotonic())
            if pause <= 0:
                raise WaitTimeoutError(f"there was no room for job {id!r} in time: it is not stored")
        await self.clock.sleep(pause)
        if self.stopping():
            raise StoppedError(f"the queue was stopped before there was room for job {id!r}")
