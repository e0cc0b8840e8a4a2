"""What must hold after every step of the store, and of every answer that a caller gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobqueue.model.outcomes import EXPIRED_ERROR, STALLED_ERROR, Settlement
from jobqueue.model.states import ENDED, WAITING, Action, JobState
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.engine.queue_state import QueueState
from jobqueue.storage.values import Document, Exchanged, Inserted, InsertStatus, NewJob, SettleStatus, Swept
from tests.sim.ticks import Ticks
from tests.sim.world import EPOCH, Life, ViolationError, World

MAX_ATTEMPTS = 3
MAX_WAITERS = 1
"""Addresses that wait for one job at most, here: so few that the bound is met."""
ON_THE_WAY = 5.0
"""Seconds that an answer travels at most."""
TAKEN_OVER = 1.0
"""Seconds in which somebody takes a lock that was released: well below the time between two tries."""
FOLLOWED = "then"
"""The word of a payload whose completion inserts another job in the same step."""

_QUEUED, _PROCESSING, _COMPLETED, _FAILED = (
    JobState.QUEUED, JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED,
)  # fmt: skip

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
        self.claims: dict[int, tuple[Life, str, float]] = {}
        """By fence."""
        self.works: dict[int, bytes] = {}
        """Payloads of the claimed jobs, by fence."""
        self.rolled_back_at: float | None = None
        self.lossy = False
        """Whether calls may be lost or late."""
        self.ended_at: dict[int, float] = {}
        """When every incarnation ended."""
        self.documents: dict[tuple[str, str], int] = {}
        """The version of every document that was written."""
        self.silent = False
        """Whether wake-ups may have been lost."""
        self._vacant: dict[str, float] = {}
        """When a lock was released, until somebody takes it."""
        self._leaders: list[Life] = []
        self._handed_in: set[int] = set()
        """Fences of the settlements that have come."""
        self._fence = 0
        self._holders: dict[tuple[str, str], int] = {}
        """Fence of the last claim of every job."""
        self._terms: dict[tuple[str, int], Life] = {}
        self._returned: set[int] = set()
        self._followed: dict[int, int] = {}
        """Seq of the job that came after, by the fence whose settlement inserted it."""
        self.ticks = Ticks(world)
        self._untaken: dict[int, tuple[str, Life]] = {}
        """Claims of which nobody has learnt, by fence: with the id, and the process that asked."""
        self._started: set[int] = set()
        """Seqs of the incarnations that were claimed."""

    # -- after every step ---------------------------------------------------------------------------

    def after_step(self, engine: Engine) -> None:
        """Check that every job is in exactly one index, and has one outcome at most."""
        for q in engine._queues.values():
            queued = processing = waiting = 0
            ready = {job.seq for job in q.ready_jobs()} if q.groups is not None else None
            for job in q.jobs.values():
                state = job.state
                if len(job.waiters) > MAX_WAITERS:
                    raise ViolationError(f"{len(job.waiters)} addresses wait for job {job.id!r}")
                if state is _QUEUED:
                    queued += 1
                    if not (
                        job.seq in ready
                        if ready is not None
                        else q.ready.get(job.priority, {}).get(job.id) is job
                    ):
                        raise ViolationError(f"queued job {job.id!r} is not in the ready line")
                elif state is _PROCESSING:
                    processing += 1
                    if q.leased.get(job.id) is not job:
                        raise ViolationError(f"running job {job.id!r} has no lease")
                elif state in ENDED:
                    self._ended(job.seq, (state, job.data))
                    if state is _FAILED and job.data == STALLED_ERROR:
                        raise ViolationError(f"job {job.id!r} stalled to death, after {job.stalls} stalls")
                    if state is _FAILED and job.data == EXPIRED_ERROR:
                        self._expired(job.id, job.seq, job.fence)
                else:
                    waiting += 1
            if q.groups is not None:
                groups = [job.extras.group for job in q.leased.values()]
                for group in set(groups):
                    if group and q.groups.usage(group)[0] != groups.count(group):
                        raise ViolationError(f"the group {group} does not count the jobs of it that run")
            if q.ready_count() != queued or len(q.leased) != processing:
                raise ViolationError(f"an index of {q.name!r} holds a job that is in another state")
            if q.scheduled_count() != waiting:
                raise ViolationError(
                    f"the schedule of {q.name!r} counts {q.scheduled_count()}, not {waiting}"
                )

            self._check_deadlines(q)

    def _check_deadlines(self, q: QueueState) -> None:
        """Check that exactly the jobs that have to start in time are watched."""
        watched = {job.seq for job in q.deadlines or ()}
        timed = {job.seq for job in q.jobs.values() if job.state in WAITING and job.start_before is not None}
        if watched != timed:
            raise ViolationError(f"incarnations {watched} of {q.name!r} have to start in time, not {timed}")

    def _expired(self, id: str, seq: int, fence: int) -> None:
        if fence or (seq in self._started and self.rolled_back_at is None):
            raise ViolationError(f"job {id!r} had started, and expired all the same")

    def _ended(self, seq: int, outcome: Outcome) -> None:
        known = self.outcomes.get(seq)
        if known is None:
            self.ended_at[seq] = self._world.now
            self.outcomes[seq] = outcome
            self.ever.setdefault(seq, set()).add(outcome)
        elif known != outcome:
            raise ViolationError(f"incarnation {seq} ended as {known} and then as {outcome}")

    # -- calls of the store -------------------------------------------------------------------------

    def inserted(self, queue: str, jobs: Sequence[NewJob], answers: Sequence[Inserted]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            if answer.status is InsertStatus.CREATED:
                self._created(job.id, answer.seq, job.payload)
                if job.id.endswith("Z"):
                    self.ticks.created(queue, job.id)

    def _created(self, id: str, seq: int, payload: bytes) -> None:
        if seq in self.payloads:
            raise ViolationError(f"seq {seq} was given twice")
        self.payloads[seq] = payload
        self._world.tell(f"{id} is created as incarnation {seq}: {payload.decode()}")

    def asks_for_jobs(self, process: Life, arguments: dict[str, Any]) -> dict[str, Any]:
        """Check who asks for jobs; add the jobs that come after those that are handed in."""
        if arguments["limit"] > 0 and process.draining(arguments["queue"]):
            self._world.break_promise(f"{process.name} asks for jobs although it stops")
        settlements = [self._with_follower(settlement) for settlement in arguments["settlements"]]
        return {**arguments, "settlements": settlements}

    def _with_follower(self, settlement: Settlement) -> Settlement:
        payload = self.works.get(settlement.fence, b"")
        if settlement.action is not Action.COMPLETE or FOLLOWED not in payload.decode().split():
            return settlement
        head = payload.split()[0]
        return settlement._replace(then=(NewJob(f"{settlement.id}>", head + b"> after"),))

    def exchanged(self, process: Life, engine: Engine, arguments: dict[str, Any], answer: Exchanged) -> None:
        settlements = arguments["settlements"]
        for settlement, status in zip(settlements, answer.settled, strict=True):
            self._world.tell(f"{process.name} settles {settlement.id}: {settlement.action} is {status}")
            if settlement.action is Action.RELEASE and not (
                process.stopping or settlement.fence in self._returned
            ):
                raise ViolationError(f"{process.name} released {settlement.id!r}, and nobody stops it")
        for id in answer.expired:
            self._world.tell(f"{id} has not started in time")
        for job in answer.jobs:
            self._starts(engine, arguments["queue"], job.id, job.seq)
            if job.fence <= self._fence:
                raise ViolationError(f"fence {job.fence} is not larger than {self._fence}")
            self._fence = job.fence
            self.claims[job.fence] = process, job.id, self._world.now
            self.works[job.fence] = job.payload
            self._holders[arguments["queue"], job.id] = job.fence
            self._untaken[job.fence] = job.id, process
            self._world.tell(f"{process.name} claims {job.id}, fence {job.fence}, attempt {job.attempts}")
        if answer.jobs:
            self._within_limits(engine, arguments["queue"], answer)
        if settlements:
            self._settled(engine, arguments["queue"], settlements, answer)

    def _within_limits(self, engine: Engine, queue: str, answer: Exchanged) -> None:
        """Check that no more run than may, now that some were claimed."""
        rules, running, *_ = engine.get_rules(queue, 0)
        if rules.queue.running is not None and running > rules.queue.running:
            raise ViolationError(f"{running} jobs of {queue} run, and {rules.queue.running} may")
        most = rules.group.running
        page = engine.scan(queue, JobState.PROCESSING, 10_000, 0)
        for group in sorted({job.group for job in answer.jobs if job.group}):
            count = sum(record.group == group for record in page.records)
            if most is not None and count > most:
                raise ViolationError(f"{count} jobs of the group {group} run, and {most} may")

    def _starts(self, engine: Engine, queue: str, id: str, seq: int) -> None:
        """Check that a job that starts for the first time does so in time."""
        if seq in self._started:
            return
        self._started.add(seq)
        now = int((EPOCH + self._world.now + self._world.wall) * 1000)
        job = engine._queues[queue].jobs[id]
        if job.extras.expires is not None and now >= job.due + job.extras.expires:
            raise ViolationError(f"job {id!r} starts {now - job.due} ms after it was due")

    def _settled(
        self, engine: Engine, queue: str, settlements: Sequence[Settlement], answer: Exchanged
    ) -> None:
        """Check that what was accepted is stored, and that it came from the run that held the job."""
        claimed = {job.id for job in answer.jobs}  # by the same step, perhaps what it has just settled
        jobs = engine._queues[queue].jobs
        for settlement, status in zip(settlements, answer.settled, strict=True):
            self._handed_in.add(settlement.fence)
            if status is not SettleStatus.ACCEPTED or settlement.action is Action.RELEASE:
                continue
            if settlement.then:
                self._check_follower(settlement, jobs)
            if settlement.id in claimed:
                continue
            job = jobs.get(settlement.id)
            if job is None or job.fence != settlement.fence:
                held = "nobody" if job is None else f"fence {job.fence}"
                raise ViolationError(f"fence {settlement.fence} settled {settlement.id!r}, held by {held}")
            if settlement.action is Action.COMPLETE and job.state is not _COMPLETED:
                raise ViolationError(f"the result of {settlement.id!r} was accepted, and is not stored")

    def _check_follower(self, settlement: Settlement, jobs: dict[str, Any]) -> None:
        """Check that the job that comes after one is there, once, as soon as that one is completed."""
        (new,) = settlement.then
        job = jobs.get(new.id)
        if job is None:
            raise ViolationError(f"{settlement.id!r} was completed, and {new.id!r} did not come after it")
        seq = self._followed.setdefault(settlement.fence, job.seq)
        if job.seq not in self.payloads:
            self._created(new.id, job.seq, new.payload)
        if job.seq != seq and self.rolled_back_at is None:
            raise ViolationError(f"{new.id!r} came twice after fence {settlement.fence}")

    def swept(self, engine: Engine, arguments: dict[str, Any], swept: Sequence[Swept]) -> None:
        """Check that nobody lost a lease who lives, runs, and reaches the store."""
        for job in swept:
            if job.expired:
                self._world.tell(f"{job.id} has not started in time")
                continue
            self._world.tell(f"{job.worker} lost {job.id}")
            fence = self._holders.get((arguments["queue"], job.id))
            if fence is None or fence in self._returned or self.lossy or self.rolled_back_at is not None:
                continue
            life, _, claimed_at = self.claims[fence]
            if not life.may_lose_lease(claimed_at):
                raise ViolationError(
                    f"{life.name} lives, and lost its lease of {job.id!r}, claimed at {claimed_at:.3f}"
                )

    def elected(self, process: Life, lock: str, term: int | None) -> None:
        """Check that a term of a lock is given to one process only, and to one that waited without delay."""
        if term is None:
            return
        if self._terms.setdefault((lock, term), process) is not process:
            raise ViolationError(f"{process.name} got term {term} of {lock}, which another process has")
        free_since = self._vacant.pop(lock, None)
        if free_since is None or process.since > free_since or process.disturbed or self.silent:
            return
        if self._world.now - free_since > TAKEN_OVER and not self.lossy:
            took = self._world.now - free_since
            raise ViolationError(f"{process.name} took {lock} {took:.2f} s after it was released")

    def resigned(self, process: Life, lock: str, released: bool) -> None:
        """Note that a lock is free for others."""
        if released:
            self._world.tell(f"{process.name} releases {lock}")
            self._vacant[lock] = self._world.now

    def leads(self, process: Life) -> None:
        """Check that no other process leads that lives and was never held up."""
        for other in self._leaders:
            if not (other.dead or other.disturbed or process.disturbed or self.rolled_back_at is not None):
                self._world.break_promise(f"{process.name} and {other.name} lead at the same time")
        self._leaders.append(process)

    def leads_no_more(self, process: Life) -> None:
        if process in self._leaders:
            self._leaders.remove(process)

    def documents_written(self, arguments: dict[str, Any], versions: Sequence[int | None]) -> None:
        """Check that a change was made on the version that it named, and made a newer one."""
        for change, version in zip(arguments["changes"], versions, strict=True):
            if version is None:
                continue
            key = arguments["space"], change.name
            known = self.documents.get(key, 0)
            if version <= known:
                raise ViolationError(f"version {version} of document {change.name!r} came after {known}")
            if change.expected not in {None, known} and self.rolled_back_at is None:
                raise ViolationError(f"document {change.name!r} was changed over version {known}")
            self.documents[key] = version
            if change.data is not None:
                self.ticks.written(Document(change.name, version, change.data), arguments["space"])

    # -- processes ----------------------------------------------------------------------------------

    def all_handed_in(self, process: str, done: Sequence[tuple[str, int, float]]) -> None:
        """Check that a process that lives has handed in the runs that ended in it some time ago."""
        for id, fence, ended in done:
            if self._world.now - ended > 2 * ON_THE_WAY and fence not in self._handed_in:
                raise ViolationError(f"{process} has not handed in {id!r}, fence {fence}")

    def left(self, engine: Engine, worker: str) -> None:
        """Check that a worker that has stopped in peace left no job leased to itself."""
        for q in engine._queues.values():
            for job in q.leased.values():
                if job.worker == worker:
                    raise ViolationError(f"{worker} has stopped, and still holds {job.id!r}")

    def returned(self, settlements: Sequence[Settlement]) -> None:
        """Note claims that the store itself gives back."""
        for settlement in settlements:
            self._returned.add(settlement.fence)
            self._untaken.pop(settlement.fence, None)

    def taken(self, answer: Exchanged) -> None:
        """Note that the caller has an answer, or is told that there is none."""
        for job in answer.jobs:
            self._untaken.pop(job.fence, None)

    def all_taken(self, of: Life | None = None) -> None:
        """Check that no living process left jobs leased to nobody; with ``of``, that this one did not.

        One that is paused for longer than the run lasts has not learnt of them yet.
        """
        left = [
            id
            for fence, (id, process) in self._untaken.items()
            if not process.dead
            and not process.held
            and of in {None, process}
            and self._world.now - self.claims[fence][2] > (ON_THE_WAY if of is None else 0.5)
        ]
        if left:
            raise ViolationError(f"jobs were leased, and nobody learnt of it: {left}")

    def rolled_back(self, engine: Engine) -> None:
        """Forget the outcomes that the store has forgotten."""
        self.rolled_back_at = self._world.now
        held = {job.seq: job for q in engine._queues.values() for job in q.jobs.values()}
        for seq in tuple(self.outcomes):
            job = held.get(seq)
            if job is None or job.state not in ENDED:
                del self.outcomes[seq]
        self.documents.clear()
        self.ticks.rolled_back()
        self._vacant.clear()

    # -- answers ------------------------------------------------------------------------------------

    def answered(self, call: str, seq: int, state: JobState, value: Any = None) -> None:
        """Check the outcome that a caller was given for the incarnation it waited for."""
        outcomes = self.ever.get(seq, set())
        if state not in {known for known, _ in outcomes}:
            raise ViolationError(
                f"{call} was told {state} of incarnation {seq}, which is {outcomes or 'not ended'}"
            )
        if state is _COMPLETED and value != self.payloads[seq].decode():
            raise ViolationError(
                f"{call} got {value!r}, and incarnation {seq} is {self.payloads[seq].decode()!r}"
            )
