"""What the engine promises beyond the contract: it is a function of its calls, and it stays small."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.engine.job_entry import JobEntry
from jobqueue.storage.engine.queue_state import QueueState
from jobqueue.storage.values import MAX_WAITER_BYTES, MAX_WAITERS, Claimed, NewJob, Renewal, Reuse

IDS = [f"{n}" for n in range(12)]
ACTIONS = [Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL]
Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Program:
    """A random program: it learns fences from the answers of the engine that it is first run on."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000_000
        self.runs = [Claimed("0", b"", 1, 1, 1, 1, 1)]

    def calls(self, count: int) -> Iterator[Call]:
        kinds = ["insert", "insert", "exchange", "exchange", "extend", "sweep", "cancel", "set_ttl", "purge"]
        for _ in range(count):
            self.now += self.random.choice([0, 0, 1, 500, 1_000, 4_000])
            kind = self.random.choice([*kinds, "lock_acquire", "lock_renew", "lock_release"])
            args, kwargs = getattr(self, kind)()
            yield kind, (*args, self.now), kwargs

    def ids(self) -> list[str]:
        return self.random.sample(IDS, self.random.randint(1, 3))

    def insert(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        pick = self.random.choice
        jobs = [
            NewJob(
                id, b"p", pick([0, 0, 2]), pick([0, 0, 900]), ttl=pick([500, 5_000]), reuse=pick(list(Reuse))
            )
            for id in self.ids()
        ]
        return ("q", jobs), {"max_length": pick([None, None, 6])}

    def exchange(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        runs = self.random.choices(self.runs[-8:], k=self.random.randint(0, 2))
        done = [Settlement(run.id, run.fence, self.random.choice(ACTIONS), b"d", 2_000, 700) for run in runs]
        return ("q", self.random.choice("vw"), done, self.random.randint(0, 3), 2_000), {}

    def extend(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        run = self.random.choice(self.runs[-4:])
        return ("q", "w", [Renewal(run.id, run.fence, b"half")], 3_000), {}

    def sweep(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ("q", 2), {}

    def cancel(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ("q", self.ids()), {"running": self.random.random() < 0.5}

    def set_ttl(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ("q", [(id, self.random.choice([100, 9_000])) for id in self.ids()]), {}

    def purge(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ("q", self.random.randint(0, 3)), {}

    def lock_acquire(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ("lock", self.random.choice("ab"), 1_500), {}

    lock_renew = lock_acquire

    def lock_release(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ("lock", self.random.choice("ab")), {}


def run(engine: Engine, call: Call, program: Program | None = None) -> object:
    name, args, kwargs = call
    answer = getattr(engine, name)(*args, **kwargs)
    if program is not None and name == "exchange":
        program.runs += answer.jobs
    return answer


def state(engine: Engine) -> object:
    return list(engine.dump(0)), engine.locks, engine.counters


@pytest.mark.parametrize("seed", range(6))
def test_the_same_calls_lead_to_the_same_state(seed: int) -> None:
    program, one, two = Program(seed), Engine(), Engine()
    log = []
    for call in program.calls(400):
        log.append((call, run(one, call, program)))
    for call, answer in log:
        assert run(two, call) == answer
    assert state(one) == state(two)
    assert one.counters.fence > 50


@pytest.mark.parametrize("seed", range(3))
def test_reads_leave_no_trace(seed: int) -> None:
    program, read, unread = Program(seed), Engine(), Engine()
    for call in program.calls(300):
        assert run(read, call, program) == run(unread, call)
        now = program.now
        for queue in ("q", "other"):
            read.get(queue, IDS, now, payload=True)
            read.counts(queue, now)
            read.workers(queue, now)
            read.has_work(queue, now)
            read.scan(queue, program.random.choice(list(JobState)), 3, now)
        read.queues()
        read.lock_holder("lock", now)
        read.size()
        assert state(read) == state(unread)


@pytest.mark.parametrize("seed", range(3))
def test_a_loaded_state_goes_on_as_the_dumped_one(seed: int) -> None:
    program, first = Program(seed), Engine()
    for number, call in enumerate(program.calls(300)):
        run(first, call, program)
        if number % 75 == 74:
            second = Engine()
            second.load(first.dump(program.now), first.locks, first.counters)
            for id in IDS:  # absent records may be gone, and nothing else
                assert first.get("q", [id], program.now) == second.get("q", [id], program.now)
            for follow in Program(seed + number).calls(60):
                name, args, kwargs = follow
                late = (name, (*args[:-1], args[-1] + program.now), kwargs)
                if name != "purge":
                    assert run(first, late) == run(second, late)
            program.now += Program(seed).now + 400_000


def test_cancelled_schedules_are_forgotten() -> None:
    engine = Engine()
    engine.insert("q", [NewJob("stays", b"", delay=1)], 0)
    for n in range(5_000):
        engine.insert("q", [NewJob("a", b"", delay=1_000 + n, ttl=10**9)], 0)
        engine.cancel("q", ["a"], 0)
    assert len(engine._queues["q"].schedule) < 200
    assert engine.exchange("q", "w", [], 1, 1, 1).jobs[0].id == "stays"


def test_dead_expiries_are_forgotten() -> None:
    engine = Engine()
    stay = [f"stay-{n}" for n in range(10)]
    engine.insert("q", [NewJob(id, b"", ttl=10**8) for id in stay], 0)
    engine.cancel("q", stay, 0)
    for n in range(5_000):
        engine.insert("q", [NewJob("a", b"", ttl=10**9)], n)
        engine.cancel("q", ["a"], n)
        engine.set_ttl("q", [("a", 10**8)], n)
    index = engine._queues["q"]
    assert sum(map(len, index.expiry.values())) < 200
    assert len(index.expiry_times) < 200
    assert engine.counts("q", 0).cancelled == 11
    assert engine.purge("q", 100, 10**8 - 1) == 0
    assert engine.purge("q", 100, 10**8) == 10
    assert engine.purge("q", 100, 10**8 + 4_998) == 0
    assert engine.purge("q", 100, 10**8 + 4_999) == 1


def test_dead_expiries_are_forgotten_without_a_look_at_all_records() -> None:
    class Records(dict[str, JobEntry]):
        looks = 0

        def values(self) -> Any:
            Records.looks += 1
            return super().values()

    engine = Engine()
    ids = [f"{n}" for n in range(1_000)]
    engine.insert("q", [NewJob(id, b"p", 0, 0) for id in ids], 1_000)
    q = engine._queues["q"]
    q.jobs = Records(q.jobs)
    assert all(engine.forget("q", ids[:900], 1_000))
    assert Records.looks == 0
    assert sum(map(len, q.expiry.values())) <= 2 * 100


def test_no_deletion_looks_at_more_than_what_expires_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at all of a million ended jobs would keep everybody else waiting for a second."""
    looked: list[int] = []
    live = QueueState._live

    def counting(self: QueueState, time: int) -> list[JobEntry]:
        looked.append(len(self.expiry[time]))
        return live(self, time)

    monkeypatch.setattr(QueueState, "_live", counting)
    monkeypatch.setattr(QueueState, "shift_expiry", None)
    engine = Engine()
    ids = [f"{n}" for n in range(10_000)]
    for at in range(100):
        some = ids[100 * at : 100 * at + 100]
        engine.insert("q", [NewJob(id, b"p", ttl=10**6) for id in some], at)
        engine.cancel("q", some, at)
    assert all(engine.forget("q", ids, 100))
    assert max(looked) <= 100
    assert sum(looked) < 3 * len(ids)
    q = engine._queues["q"]
    assert (q.expiry, q.dead_expiries, len(q.expiry_times) <= 64) == ({}, {}, True)
    assert engine.purge("q", 100, 10**7) == 0
    assert not q.expiry_times


def test_a_changed_expiry_leaves_one_entry_however_often_it_is_set() -> None:
    engine = Engine()
    engine.insert("q", [NewJob("a", b"", ttl=10**6)], 0)
    engine.cancel("q", ["a"], 0)
    for _ in range(1_000):
        engine.set_ttl("q", [("a", 10**6)], 0)
    assert len(engine._queues["q"].expiry[10**6]) <= 2
    assert engine.counts("q", 10**6).cancelled == 0
    assert engine.purge("q", 10, 10**6) == 1


def test_a_queue_without_records_and_workers_is_forgotten() -> None:
    engine = Engine()
    engine.insert("q", [NewJob("a", b"", ttl=10)], 0)
    engine.exchange("q", "w", [], 0, 1, 0)
    engine.cancel("q", ["a"], 0)
    assert engine.purge("q", 10, 10) == 1
    assert "q" in engine._queues
    assert engine.purge("q", 10, 60_000) == 0
    assert engine._queues == {}


def test_reading_an_unknown_queue_does_not_make_it() -> None:
    engine = Engine()
    engine.get("q", ["a"], 0, reply_to="me")
    engine.sweep("q", 1, 0)
    engine.cancel("q", ["a"], 0)
    engine.set_ttl("q", [("a", 1)], 0)
    engine.purge("q", 1, 0)
    engine.scan("q", JobState.QUEUED, 1, 0)
    engine.counts("q", 0)
    engine.workers("q", 0)
    assert engine._queues == {}


def test_inserts_keep_a_store_bounded_that_nobody_purges() -> None:
    engine = Engine()
    for n in range(5_000):
        engine.insert("q", [NewJob(f"{n}", b"", ttl=100)], n)
        engine.cancel("q", [f"{n}"], n)
    assert engine.size() < 200


def test_effects_are_handed_over_once() -> None:
    engine = Engine()
    assert engine.take_effects() is None
    engine.insert("q", [NewJob("a", b"", wait=True)], 0, reply_to="me")
    (run,) = engine.exchange("q", "w", [], 1, 1, 0).jobs
    engine.cancel("q", ["a"], 0, running=True)
    engine.exchange("q", "w", [Settlement("a", run.fence, Action.COMPLETE)], 0, 1, 0)
    engine.lock_acquire("lock", "me", 1, 0)
    engine.lock_release("lock", "me", 0)
    effects = engine.take_effects()
    assert effects is not None
    assert effects.woken == {"q"}
    assert effects.unlocked == {"lock"}
    assert effects.cancels == [("w", "q", "a", run.fence)]
    assert [reply.state for reply in effects.replies["me"]] == [JobState.CANCELLED]
    assert engine.take_effects() is None


@pytest.mark.parametrize(("width", "kept"), [(10, MAX_WAITERS), (200, MAX_WAITER_BYTES // 200)])
def test_the_waiters_of_a_job_are_bounded_and_the_latest_stay(width: int, kept: int) -> None:
    engine = Engine()
    addresses = [f"{n:0{width}d}" for n in range(kept + 50)]
    engine.insert("q", [NewJob("a", b"")], 0)
    for address in addresses:
        engine.get("q", ["a"], 0, reply_to=address)
    assert [one for one in addresses if engine.needs_no_waiter("q", "a", one, 0)] == addresses[-kept:]
    engine.get("q", ["a"], 0, reply_to=addresses[-1])
    engine.get("q", ["a"], 0, reply_to=addresses[0])
    assert [one for one in addresses if engine.needs_no_waiter("q", "a", one, 0)] == [
        addresses[0],
        *addresses[-kept + 1 :],
    ]


@pytest.mark.parametrize("delta", [-3_600_000, 3_600_000])
def test_a_clock_that_is_set_leaves_pauses_as_long_as_they_were(delta: int) -> None:
    engine = Engine()
    engine.insert("q", [NewJob("retried", b"")], 1_000)
    (run,) = engine.exchange("q", "w", [], 1, 500, 1_000).jobs
    engine.exchange("q", "w", [Settlement("retried", run.fence, Action.RETRY, b"", 0, 2_000)], 0, 500, 1_000)
    engine.insert("q", [NewJob("timed", b"", run_at=5_000_000)], 1_000)
    engine.shift(delta)
    now = 1_000 + delta
    assert not engine.exchange("q", "w", [], 9, 500, now + 1_999).jobs
    assert [job.id for job in engine.exchange("q", "w", [], 9, 500, now + 2_000).jobs] == ["retried"]
    assert [job.id for job in engine.exchange("q", "w", [], 9, 500, 5_000_000).jobs] == ["timed"]
