"""Random programs, run on a store and on the `Reference`: every answer must be the same.

After every step everything visible of the store is compared, which is stronger than checking the
rules one by one: a job is listed in exactly the state of its record, counted once, holds the lease that
its worker is credited with, and its waiters have been told exactly once.

Stores may count in their own steps. So fences, sequence and term numbers are compared by order: a number
that is new to the `Reference` must be new to the store, and larger than all before.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.capabilities import Admission, Documents, Revival
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Change, InsertStatus, NewJob, Renewal, Rules
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.compared_store import ComparedStore
from jobqueue.testing.programs import (
    ACTIONS,
    NAMES,
    NO_VERSION,
    OWNERS,
    SPACES,
    Run,
    addresses,
    checkpoints,
    data,
    ids,
    limiting_rules,
    limits,
    new_jobs,
    outcomes,
    picks,
    progress,
    queues,
    spans,
    workers,
)

__all__ = ["model_test"]


class StoreMachine(ComparedStore):
    """All calls of a store, in any order, with arguments that meet. `model_test` makes the store."""

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

    @rule(queue=queues, chosen=st.lists(ids, max_size=3), reply_to=addresses, letters=st.booleans())
    def get(self, queue: str, chosen: list[str], reply_to: str | None, letters: bool) -> None:
        records = self.wait(self.store.get(queue, chosen, reply_to=reply_to, payload=True, letters=letters))
        expected = self.reference.get(queue, chosen, self.now, reply_to, letters=letters)
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
        assert answer._replace(jobs=[], more=False) == expected._replace(jobs=[])
        self.meet(queue, [new.id for outcome in mine for new in outcome.then])
        for claimed, wanted in zip(answer.jobs, expected.jobs, strict=True):
            assert claimed._replace(fence=wanted.fence, seq=self.seqs(claimed.seq)) == wanted
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
        renewals=st.lists(st.tuples(picks, progress, checkpoints), min_size=1, max_size=3),
        lease=spans,
    )
    def extend(
        self, queue: str, worker: str, renewals: list[tuple[int, bytes | None, bytes | None]], lease: int
    ) -> None:
        chosen = [(run, told) for choice, *told in renewals if (run := self.pick(queue, choice))]
        mine = [Renewal(run.id, run.reference_fence, *told) for run, told in chosen]
        theirs = [Renewal(run.id, run.fence, *told) for run, told in chosen]
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
        swept = [one.id for one in answer if not one.expired]
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
    def set_ttl(self, queue: str, ttls: list[tuple[str, int]]) -> None:
        answer = self.wait(self.store.set_ttl(queue, ttls))
        assert answer == self.reference.set_ttl(queue, ttls, self.now)

    @rule(
        queue=queues,
        chosen=st.lists(ids, min_size=1, max_size=3),
        delay=st.sampled_from((0, 0, 2_000)),
        payload=st.one_of(st.none(), st.none(), data),
    )
    def revive(self, queue: str, chosen: list[str], delay: int, payload: bytes | None) -> None:
        store = self.store
        if isinstance(store, Revival):
            answer = self.wait(store.revive(queue, chosen, delay, payload))
            assert answer == self.reference.revive(queue, chosen, delay, payload, self.now)
            self.meet(queue, chosen)

    @rule(queue=queues, chosen=st.lists(ids, min_size=1, max_size=2))
    def forget(self, queue: str, chosen: list[str]) -> None:
        store = self.store
        if isinstance(store, Revival):
            answer = self.wait(store.forget(queue, chosen))
            assert answer == self.reference.forget(queue, chosen, self.now)

    @rule(queue=queues, wanted=limiting_rules, expected=st.one_of(st.none(), limiting_rules))
    def set_rules(self, queue: str, wanted: Rules | None, expected: Rules | None) -> None:
        store = self.store
        if isinstance(store, Admission):
            if not self.reference.limiting:
                wanted = wanted and Rules(paused=wanted.paused)
                expected = expected and Rules(paused=expected.paused)
            answer = self.wait(store.set_rules(queue, wanted, expected=expected))
            assert answer is self.reference.set_rules(queue, wanted, expected)

    @rule(
        space=st.sampled_from(SPACES),
        changes=st.lists(
            st.tuples(st.sampled_from(NAMES), st.sampled_from((-1, 0, 0, 1)), st.one_of(data, st.none())),
            min_size=1,
            max_size=3,
        ),
    )
    def write_documents(self, space: str, changes: list[tuple[str, int, bytes | None]]) -> None:
        """Expect any version (-1), none (0), or the present one (1)."""
        store = self.store
        if not isinstance(store, Documents):
            return
        present = self.wait(store.read_documents(space, NAMES))
        versions = {document.name: document.version for document in present if document is not None}
        theirs = [
            Change(name, (None, 0, versions.get(name, NO_VERSION))[expected + 1], value)
            for name, expected, value in changes
        ]
        pairs = self.versions.pairs
        mine = [
            change._replace(expected=change.expected and pairs.get(change.expected, -1)) for change in theirs
        ]
        answer = self.wait(store.write_documents(space, theirs))
        wanted = self.reference.write_documents(space, mine)
        assert [one is None for one in answer] == [one is None for one in wanted]
        for one, other in zip(answer, wanted, strict=True):
            if one is not None and other is not None:
                self.versions.pair(one, other)

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
            self.lock_acquire(lock, owner, ttl)
        elif call == "renew":
            renewed = self.wait(self.store.lock_renew(lock, owner, ttl))
            assert renewed is self.reference.lock_renew(lock, owner, ttl, self.now)
        else:
            released = self.wait(self.store.lock_release(lock, owner))
            assert released is self.reference.lock_release(lock, owner, self.now)

    def lock_acquire(self, lock: str, owner: str, ttl: int) -> None:
        term = self.wait(self.store.lock_acquire(lock, owner, ttl))
        expected = self.reference.lock_acquire(lock, owner, ttl, self.now)
        if term is not None and expected is not None and expected not in self.terms[lock].pairs.values():
            self.terms[lock].pair(term, expected)
        assert (term and self.terms[lock](term)) == expected


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
    # Not explained: that traces every line of every program, for the one that fails.
    phases = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    chosen = settings(
        stateful_step_count=steps, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=phases
    )
    if max_examples is not None:
        chosen = settings(chosen, max_examples=max_examples)
    case: type[unittest.TestCase] = Machine.TestCase
    case.settings = chosen  # type: ignore[attr-defined]  # read by Hypothesis
    return case
