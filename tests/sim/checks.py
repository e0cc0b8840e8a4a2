"""What must hold after every step of the store, and of every answer that a caller gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobqueue.job import ENDED, WAITING, Action, JobState, Settlement
from jobqueue.storage.base import Exchanged, Inserted, InsertStatus, NewJob
from jobqueue.storage.engine import Engine
from tests.sim.world import ProcessLoop, ViolationError, World

Outcome = tuple[JobState, bytes | None]


class Checks:
    """The memory of one run, and the promises that it is compared with."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.payloads: dict[int, bytes] = {}
        """Of every incarnation, by seq."""
        self.outcomes: dict[int, Outcome] = {}
        """Of every incarnation that has ended, as the store has it now."""
        self.ever: dict[int, set[Outcome]] = {}
        """The same, with those that a rollback undid."""
        self.claims: dict[int, tuple[ProcessLoop, str, float]] = {}
        """By fence."""
        self.rolled_back_at: float | None = None
        self._fence = 0
        self._returned: set[int] = set()

    # -- after every step ---------------------------------------------------------------------------

    def after_step(self, engine: Engine) -> None:
        """Check that every job is in exactly one index, and has one outcome at most."""
        for q in engine._queues.values():
            states = dict.fromkeys(JobState, 0)
            for job in q.jobs.values():
                state = job.state
                states[state] += 1
                if state in ENDED:
                    self._ended(job.seq, (state, job.data))
                elif state is JobState.QUEUED:
                    if q.ready.get(job.priority, {}).get(job.id) is not job:
                        raise ViolationError(f"queued job {job.id!r} is not in the ready line")
                elif state is JobState.PROCESSING and q.leased.get(job.id) is not job:
                    raise ViolationError(f"running job {job.id!r} has no lease")
            waiting = sum(states[state] for state in WAITING - {JobState.QUEUED})
            if q.ready_count() != states[JobState.QUEUED] or len(q.leased) != states[JobState.PROCESSING]:
                raise ViolationError(f"an index of {q.name!r} holds a job that is in another state")
            if q.scheduled_count() != waiting:
                raise ViolationError(
                    f"the schedule of {q.name!r} counts {q.scheduled_count()}, not {waiting}"
                )

    def _ended(self, seq: int, outcome: Outcome) -> None:
        known = self.outcomes.setdefault(seq, outcome)
        if known != outcome:
            raise ViolationError(f"incarnation {seq} ended as {known} and then as {outcome}")
        self.ever.setdefault(seq, set()).add(outcome)

    def inserted(self, jobs: Sequence[NewJob], answers: Sequence[Inserted]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            if answer.status is InsertStatus.CREATED:
                if answer.seq in self.payloads:
                    raise ViolationError(f"seq {answer.seq} was given twice")
                self.payloads[answer.seq] = job.payload
                self._world.tell(f"{job.id} is created as incarnation {answer.seq}: {job.payload.decode()}")

    def exchanged(self, process: ProcessLoop, settlements: Sequence[Settlement], answer: Exchanged) -> None:
        for settlement, status in zip(settlements, answer.settled, strict=True):
            self._world.tell(f"{process.name} settles {settlement.id}: {settlement.action} is {status}")
            if settlement.action is Action.RELEASE and not (
                process.stopping or settlement.fence in self._returned
            ):
                raise ViolationError(f"{process.name} released {settlement.id!r}, and nobody stops it")
        for job in answer.jobs:
            if job.fence <= self._fence:
                raise ViolationError(f"fence {job.fence} is not larger than {self._fence}")
            self._fence = job.fence
            self.claims[job.fence] = process, job.id, self._world.now
            self._world.tell(f"{process.name} claims {job.id}, fence {job.fence}, attempt {job.attempts}")

    def returned(self, settlements: Sequence[Settlement]) -> None:
        """Note claims that the store itself gives back."""
        self._returned.update(settlement.fence for settlement in settlements)

    def rolled_back(self, engine: Engine) -> None:
        """Forget the outcomes that the store has forgotten."""
        self.rolled_back_at = self._world.now
        held = {job.seq: job for q in engine._queues.values() for job in q.jobs.values()}
        for seq in tuple(self.outcomes):
            job = held.get(seq)
            if job is None or job.state not in ENDED:
                del self.outcomes[seq]

    # -- answers ------------------------------------------------------------------------------------

    def answered(self, call: str, seq: int, state: JobState, value: Any = None) -> None:
        """Check the outcome that a caller was given for the incarnation it waited for."""
        outcomes = self.ever.get(seq, set())
        if state not in {known for known, _ in outcomes}:
            raise ViolationError(
                f"{call} was told {state} of incarnation {seq}, which is {outcomes or 'not ended'}"
            )
        if state is JobState.COMPLETED and value != self.payloads[seq].decode():
            raise ViolationError(
                f"{call} got {value!r}, and incarnation {seq} is {self.payloads[seq].decode()!r}"
            )
