"""Random programs, run on a store and on the `Reference`: every answer must be the same.

After every step everything visible of the store is compared, which is stronger than checking the
rules one by one: a job is listed in exactly the state of its record, counted once, holds the lease that
its worker is credited with, and its waiters have been told exactly once.

Stores may count in their own steps. So fences, sequence and term numbers are compared by order: a number
that is new to the `Reference` must be new to the store, and larger than all before.
"""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobqueue.job import Action, JobState, Settlement
from jobqueue.storage.base import InsertStatus, LockInfo, NewJob, Record, Renewal, Reuse, Storage
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.contract.support import Box
from jobqueue.testing.reference import Reference

__all__ = ["model_test"]

_T = TypeVar("_T")

QUEUES = ("q1", "q2")
IDS = ("a", "b", "c", "d:{1}")
WORKERS = ("w1", "w2")
ADDRESSES = ("p1", "p2")
LOCKS = ("l1", "l2")
OWNERS = ("o1", "o2")
ACTIONS = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)

queues = st.sampled_from(("q1",) * 5 + ("q2",))  # most in one queue, where things meet
ids = st.sampled_from(IDS)
workers = st.sampled_from(WORKERS)
addresses = st.sampled_from((None, *ADDRESSES))
limits = st.sampled_from((1, 2, 3, 100, 0))
spans = st.sampled_from((1_000, 2_000, 5_000))
data = st.sampled_from((b"", b"null", b"\x00\xff", b"data"))
picks = st.integers(0, 7)
new_jobs = st.builds(
    NewJob,
    id=ids,
    payload=data,
    priority=st.sampled_from((0, 0, 0, -3, 7)),
    delay=st.sampled_from((0, 0, 0, 1_000, 2_000)),
    run_at=st.none(),
    max_attempts=st.just(3),
    max_stalls=st.sampled_from((0, 1, 2)),
    ttl=spans,
    reuse=st.sampled_from(Reuse),
    wait=st.booleans(),
)
progress = st.sampled_from((None, b"", b"half"))
outcomes = st.builds(
    Settlement,
    id=st.just(""),
    fence=st.just(0),
    action=st.sampled_from(ACTIONS),
    data=data,
    ttl=spans,
    delay=st.sampled_from((0, 1_000, 3_000)),
)


class Run(NamedTuple):
    """A claim that was given out at some time, live or long lost, in the numbers of both sides."""

    queue: str
    id: str
    fence: int
    reference_fence: int


class Numbers:
    """Pairs the numbers that the store gives with those of the reference, in rising order."""

    def __init__(self) -> None:
        self.pairs: dict[int, int] = {0: 0}

    def pair(self, given: int, expected: int) -> None:
        assert given > max(self.pairs), f"{given} does not rise above {max(self.pairs)}"
        self.pairs[given] = expected

    def __call__(self, given: int) -> int:
        assert given in self.pairs, f"the number {given} comes from nowhere"
        return self.pairs[given]


class StoreMachine(RuleBasedStateMachine):
    """One store beside the reference. `model_test` gives it ``make_storage``."""

    make_storage: Callable[[FakeClock], AbstractAsyncContextManager[Storage]]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.reference = Reference()
        self.seqs, self.fences = Numbers(), Numbers()
        self.terms = {lock: Numbers() for lock in LOCKS}
        self.runs: list[Run] = []
        self.boxes = {address: Box() for address in (*ADDRESSES, *WORKERS)}
        self.step = 0
        self.loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.context = type(self).make_storage(self.clock)
        self.handles: list[Storage] = []
        self.loop.run(self.open())

    async def open(self) -> None:
        storage = await self.context.__aenter__()
        self.handles = [storage, storage.clone()]
        for handle in self.handles:
            await handle.open()
        for address, box in self.boxes.items():
            for queue in QUEUES:
                await storage.subscribe(queue, address, box)

    def teardown(self) -> None:
        async def close() -> None:
            for handle in self.handles:
                await handle.close()
            await self.context.__aexit__(None, None, None)

        self.loop.run(close())
        self.loop.close()

    # -- plumbing ---------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    @property
    def store(self) -> Storage:
        """Take the two handles in turns: they must agree."""
        self.step += 1
        return self.handles[self.step % 2]

    def wait(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run(call)

    def normal(self, record: Record | None) -> Record | None:
        """Write a record in the numbers of the reference."""
        if record is None:
            return None
        assert record.created_at <= record.updated_at <= self.now
        return record._replace(seq=self.seqs(record.seq), fence=self.fences(record.fence), updated_at=0)

    def pick(self, queue: str, choice: int) -> Run | None:
        """Choose among the latest claims of a queue, of which most are lost."""
        runs = [run for run in self.runs if run.queue == queue][-8:]
        return runs[-1 - choice % len(runs)] if runs else None

    # -- rules ------------------------------------------------------------------------------------

    @initialize(batch=st.lists(new_jobs, min_size=2, max_size=4), limit=limits)
    def start(self, batch: list[NewJob], limit: int) -> None:
        """Begin with something to do: most calls on an empty store say the same."""
        self.insert("q1", batch, None, None)
        self.exchange("q1", "w1", [], limit, 5_000)

    @rule(
        queue=queues,
        batch=st.lists(new_jobs, min_size=1, max_size=3),
        reply_to=addresses,
        max_length=st.sampled_from((None, None, None, 1, 3)),
    )
    def insert(self, queue: str, batch: list[NewJob], reply_to: str | None, max_length: int | None) -> None:
        answers = self.wait(self.store.insert(queue, batch, reply_to=reply_to, max_length=max_length))
        expected = self.reference.insert(queue, batch, self.now, reply_to, max_length)
        for answer, wanted in zip(answers, expected, strict=True):
            assert answer.status is wanted.status
            if answer.status is InsertStatus.CREATED:
                self.seqs.pair(answer.seq, wanted.seq)
            if answer.status is not InsertStatus.FULL:
                assert answer._replace(seq=self.seqs(answer.seq)) == wanted

    @rule(queue=queues, id=ids, offset=st.sampled_from((-1, 0, 1, 1_000)), priority=st.integers(-1, 1))
    def insert_at(self, queue: str, id: str, offset: int, priority: int) -> None:
        self.insert(queue, [NewJob(id, b"at", priority, 500, self.now + offset, ttl=1_000)], None, None)

    @rule(queue=queues, chosen=st.lists(ids, max_size=3), reply_to=addresses)
    def get(self, queue: str, chosen: list[str], reply_to: str | None) -> None:
        records = self.wait(self.store.get(queue, chosen, reply_to=reply_to, payload=True))
        expected = self.reference.get(queue, chosen, self.now, reply_to)
        assert [self.normal(record) for record in records] == expected

    @rule(
        queue=queues,
        worker=workers,
        outcomes=st.lists(st.tuples(picks, outcomes), max_size=3),
        limit=limits,
        lease=spans,
    )
    def exchange(
        self, queue: str, worker: str, outcomes: list[tuple[int, Settlement]], limit: int, lease: int
    ) -> None:
        chosen = [(run, outcome) for choice, outcome in outcomes if (run := self.pick(queue, choice))]
        mine = [outcome._replace(id=run.id, fence=run.reference_fence) for run, outcome in chosen]
        theirs = [outcome._replace(id=run.id, fence=run.fence) for run, outcome in chosen]
        answer = self.wait(self.store.exchange(queue, worker, theirs, limit, lease))
        expected = self.reference.exchange(queue, worker, mine, limit, lease, self.now)
        assert (answer.settled, answer.next_due) == (expected.settled, expected.next_due)
        assert [claimed._replace(fence=0) for claimed in answer.jobs] == [
            claimed._replace(fence=0) for claimed in expected.jobs
        ]
        for claimed, wanted in zip(answer.jobs, expected.jobs, strict=True):
            self.fences.pair(claimed.fence, wanted.fence)
            self.runs.append(Run(queue, claimed.id, claimed.fence, wanted.fence))

    @rule(queue=queues)
    def drain(self, queue: str) -> None:
        """Take everything: that shows the order."""
        self.exchange(queue, "w1", [], 1_000, 2_000)

    @rule(queue=queues, worker=workers, again=st.booleans())
    def lose_the_leases(self, queue: str, worker: str, again: bool) -> None:
        """Make zombies: the leases of a queue run out, and others may have the jobs."""
        self.move(5)
        self.sweep(queue, 100)
        if again:
            self.exchange(queue, worker, [], 1_000, 5_000)

    @rule(queue=queues, worker=workers, one=picks, other=picks, action=st.sampled_from(ACTIONS))
    def settle_with_a_foreign_fence(
        self, queue: str, worker: str, one: int, other: int, action: Action
    ) -> None:
        run, thief = self.pick(queue, one), self.pick(queue, other)
        if run is None or thief is None:
            return
        theirs = Settlement(run.id, thief.fence, action, b"stolen", 1_000)
        mine = theirs._replace(fence=thief.reference_fence)
        answer = self.wait(self.store.exchange(queue, worker, [theirs], 0, 1_000))
        assert answer == self.reference.exchange(queue, worker, [mine], 0, 1_000, self.now)

    @rule(
        queue=queues,
        worker=workers,
        renewals=st.lists(st.tuples(picks, progress), min_size=1, max_size=3),
        lease=spans,
    )
    def extend(self, queue: str, worker: str, renewals: list[tuple[int, bytes | None]], lease: int) -> None:
        chosen = [(run, progress) for choice, progress in renewals if (run := self.pick(queue, choice))]
        mine = [Renewal(run.id, run.reference_fence, progress) for run, progress in chosen]
        theirs = [Renewal(run.id, run.fence, progress) for run, progress in chosen]
        answer = self.wait(self.store.extend(queue, worker, theirs, lease))
        assert answer == self.reference.extend(queue, worker, mine, lease, self.now)

    @rule(queue=queues, worker=workers)
    def leave(self, queue: str, worker: str) -> None:
        assert self.wait(self.store.extend(queue, worker, [], 0)) == []
        self.reference.extend(queue, worker, [], 0, self.now)

    @rule(queue=queues, limit=limits)
    def sweep(self, queue: str, limit: int) -> None:
        answer = self.wait(self.store.sweep(queue, limit))
        assert answer == self.reference.sweep(queue, limit, self.now)
        swept = [one.id for one in answer]
        records = self.wait(self.store.get(queue, swept))
        expected = self.reference.get(queue, swept, self.now)
        for record, wanted in zip(records, expected, strict=True):
            assert record is not None
            assert wanted is not None
            self.fences.pair(record.fence, wanted.fence)

    @rule(queue=queues, chosen=st.lists(ids, min_size=1, max_size=4), running=st.booleans())
    def cancel(self, queue: str, chosen: list[str], running: bool) -> None:
        answer = self.wait(self.store.cancel(queue, chosen, running=running))
        assert answer == self.reference.cancel(queue, chosen, running, self.now)

    @rule(queue=queues, ttls=st.lists(st.tuples(ids, spans), min_size=1, max_size=4))
    def keep(self, queue: str, ttls: list[tuple[str, int]]) -> None:
        answer = self.wait(self.store.keep(queue, ttls))
        assert answer == self.reference.keep(queue, ttls, self.now)

    @rule(queue=queues, limit=limits)
    def purge(self, queue: str, limit: int) -> None:
        # How many is left to the store, which may have dropped some by itself; nothing else changes.
        assert 0 <= self.wait(self.store.purge(queue, limit)) <= limit

    @rule(seconds=st.sampled_from((0.001, 0.999, 1, 1, 2, 3, 5, 59)))
    def move(self, seconds: float) -> None:
        self.clock.move(seconds)

    @rule(
        call=st.sampled_from(("acquire", "acquire", "renew", "release")),
        lock=st.sampled_from(("l1", "l1", "l1", "l2")),
        owner=st.sampled_from(OWNERS),
        ttl=spans,
    )
    def lock(self, call: str, lock: str, owner: str, ttl: int) -> None:
        if call == "acquire":
            self.acquire(lock, owner, ttl)
        elif call == "renew":
            renewed = self.wait(self.store.renew(lock, owner, ttl))
            assert renewed is self.reference.renew(lock, owner, ttl, self.now)
        else:
            released = self.wait(self.store.release(lock, owner))
            assert released is self.reference.release(lock, owner, self.now)

    def acquire(self, lock: str, owner: str, ttl: int) -> None:
        term = self.wait(self.store.acquire(lock, owner, ttl))
        expected = self.reference.acquire(lock, owner, ttl, self.now)
        if term is not None and expected is not None and expected not in self.terms[lock].pairs.values():
            self.terms[lock].pair(term, expected)
        assert (term and self.terms[lock](term)) == expected

    # -- what must hold after every step ----------------------------------------------------------

    @invariant()
    def all_that_can_be_seen_is_right(self) -> None:
        self.wait(self.look(self.store))

    async def look(self, store: Storage) -> None:
        for queue in QUEUES:
            await self.look_at_jobs(store, queue)
            assert await store.counts(queue) == self.reference.counts(queue, self.now)
            assert await store.workers(queue) == self.reference.workers(queue, self.now)
        named = await store.queues()
        assert named == sorted(set(named))
        assert set(named) <= set(QUEUES)
        assert set(named) >= {queue for queue in QUEUES if self.reference.present(queue, self.now)}
        for lock in LOCKS:
            held = await store.holder(lock)
            normal = held and LockInfo(held.owner, self.terms[lock](held.term), held.expires_at)
            assert normal == self.reference.holder(lock, self.now)
        await self.look_at_pushes()

    async def look_at_jobs(self, store: Storage, queue: str) -> None:
        records = await store.get(queue, IDS, payload=True)
        assert [self.normal(one) for one in records] == self.reference.get(queue, IDS, self.now)
        for state in JobState:
            listed = await scan(store, queue, state)
            assert len({record.id for record in listed}) == len(listed)
            assert {one.id: self.normal(one) for one in listed} == self.reference.scan(queue, state, self.now)

    async def look_at_pushes(self) -> None:
        for address, box in self.boxes.items():
            replies = [reply for to, reply in self.reference.replies if to == address]
            wanted = {request[1:] for request in self.reference.requests if request[0] == address}
            await box.take(replies=len(replies), cancels=len(wanted))
            sent = [reply._replace(seq=self.seqs(reply.seq)) for reply in box.replies]
            assert sorted(sent, key=str) == sorted(replies, key=str)
            asked = {(queue, id, self.fences(fence)) for queue, id, fence in box.cancels}
            assert asked == wanted


async def scan(store: Storage, queue: str, state: JobState, limit: int = 2) -> list[Record]:
    """List a state by small pages."""
    listed: list[Record] = []
    cursor = None
    while True:
        page = await store.scan(queue, state, limit, cursor)
        listed += page.records
        cursor = page.cursor
        if cursor is None:
            return listed
        assert len(listed) <= len(IDS), "the pages do not end"


def model_test(
    make_storage: Callable[[FakeClock], AbstractAsyncContextManager[Storage]],
    *,
    max_examples: int | None = None,
    steps: int = 50,
) -> type[unittest.TestCase]:
    """Make a test case that runs random programs on fresh stores and on the `Reference`.

    ``make_storage`` is that of `StorageContract`: an async context manager over an empty, unopened store
    that runs by the clock given. ``max_examples`` programs (default: the loaded Hypothesis profile's)
    of up to ``steps`` calls each.
    """

    class Machine(StoreMachine):
        pass

    Machine.make_storage = staticmethod(make_storage)
    # A store that writes to a disk or asks a server is slower than Hypothesis expects of a test.
    chosen = settings(stateful_step_count=steps, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    if max_examples is not None:
        chosen = settings(chosen, max_examples=max_examples)
    case: type[unittest.TestCase] = Machine.TestCase
    case.settings = chosen  # type: ignore[attr-defined]  # read by Hypothesis
    return case
