"""The parts of random programs: names that meet, arguments, and the numbers that a store gives out."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from jobqueue.model.limits import NO_LIMIT
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.values import Conflict, Limit, NewJob, Rate, Reuse, Rules

__all__ = [
    "ACTIONS",
    "ADDRESSES",
    "GROUPS",
    "IDS",
    "LOCKS",
    "NAMES",
    "NO_VERSION",
    "OWNERS",
    "QUEUES",
    "SPACES",
    "WORKERS",
    "Numbers",
    "Run",
    "addresses",
    "checkpoints",
    "data",
    "ids",
    "limiting_rules",
    "limits",
    "new_jobs",
    "outcomes",
    "picks",
    "progress",
    "queues",
    "rules",
    "spans",
    "workers",
]

NO_VERSION = 2**50
"""A version that no document has: not even one that is written by the same call."""

QUEUES = ("q1", "q2")
IDS = ("a", "b", "c", "d:{1}")
WORKERS = ("w1", "w2")
ADDRESSES = ("p1", "p2")
LOCKS = ("l1", "l2")
OWNERS = ("o1", "o2")
SPACES = ("s1", "s2")
NAMES = ("a", "b")
ACTIONS = (Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL)

GROUPS = ("", "g", "h")
RATE = Rate(2, per=3.0, burst=2)

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
    headers=st.sampled_from((b"", b"", b"head")),
    task=st.sampled_from(("", "", "t")),
    group=st.sampled_from(("", "", "g", "g", "h")),
    dead_letter_ttl=st.sampled_from((None, None, 0, 3_000, 9_000)),
    conflict=st.sampled_from((*3 * (Conflict.JOIN,), *Conflict)),
    weight=st.sampled_from((1, 1, 2)),
    expires=st.sampled_from((None, None, None, 1, 1_000, 3_000)),
)
rules = st.sampled_from((None, Rules(), Rules(paused=True)))
_limits = st.sampled_from(
    (NO_LIMIT, NO_LIMIT, Limit(running=1), Limit(running=2), Limit(rate=RATE), Limit(1, RATE))
)
limiting_rules = st.one_of(rules, st.builds(Rules, queue=_limits, group=_limits))
"""Of one rate only: what remains of another one is the store's own affair."""
joining = new_jobs.map(lambda new: new._replace(conflict=Conflict.JOIN))
progress = st.sampled_from((None, b"", b"half"))
checkpoints = st.sampled_from((None, None, b"", b"cursor"))
outcomes = st.builds(
    Settlement,
    id=st.just(""),
    fence=st.just(0),
    action=st.sampled_from(ACTIONS),
    data=data,
    ttl=spans,
    delay=st.sampled_from((0, 1_000, 3_000)),
    summary=st.sampled_from((b"", b"short")),
    then=st.one_of(st.just(()), st.just(()), st.tuples(joining), st.tuples(joining, joining)),
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
