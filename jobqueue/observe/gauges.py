"""Reads from a store what there is now: jobs by state, workers, reapers, the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jobqueue.errors import JobQueueError
from jobqueue.model.limits import Limits
from jobqueue.model.states import JobState
from jobqueue.stats import age, counts_by_state, limits_of, read_rules, reapers
from jobqueue.storage.contract import Storage

__all__ = ["GuardGauges", "QueueGauges", "StoreGauges", "guard_gauges", "read_gauges"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueGauges:
    """What there is of a queue."""

    name: str
    counts: Mapping[JobState, int]
    oldest_age: float | None
    workers: int
    paused: bool
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardGauges:
    """How the guard of this process does."""

    breaker: str
    buffered: int
    lost: int
    waited: float = 0.0
    """Seconds that callers have waited for the ledger."""
    brought_back: int = 0
    losses: int = 0
    """How often the store was found wiped or set back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreGauges:
    """What there is in a store."""

    up: bool
    """Whether every call was answered: else some figures are missing."""
    queues: tuple[QueueGauges, ...] = ()
    reapers: int | None = None
    guard: GuardGauges | None = None


class _GuardView(Protocol):
    @property
    def breaker(self) -> str: ...
    @property
    def buffered(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def waited(self) -> float: ...
    @property
    def brought_back(self) -> int: ...
    @property
    def losses(self) -> int: ...


@runtime_checkable
class _Guarded(Protocol):
    @property
    def guard(self) -> _GuardView: ...


async def read_gauges(store: Storage, names: Collection[str], more: int = 0) -> StoreGauges:
    """Read the figures of some queues, and of up to ``more`` others that the store has, first by name.

    Needs an open store. What it does not answer is missing, and takes nothing else along.
    """
    chosen, up, sweeping = list(names), True, None
    try:
        if more:
            chosen += sorted(set(await store.queues()) - set(names))[:more]
        sweeping = len(await reapers(store))
    except JobQueueError:
        up = False
    found = await asyncio.gather(*(_queue_gauges(store, name) for name in chosen))
    queues = tuple(gauges for gauges in found if gauges is not None)
    return StoreGauges(
        up=up and len(queues) == len(chosen), queues=queues, reapers=sweeping, guard=guard_gauges(store)
    )


def guard_gauges(store: Storage) -> GuardGauges | None:
    """Return how the guard of an open store does; ``None`` if it has none."""
    if not isinstance(store, _Guarded):
        return None
    guard = store.guard
    return GuardGauges(
        breaker=guard.breaker, buffered=guard.buffered, lost=guard.lost, waited=guard.waited,
        brought_back=guard.brought_back, losses=guard.losses,
    )  # fmt: skip


async def _queue_gauges(store: Storage, name: str) -> QueueGauges | None:
    """Return the figures of a queue; ``None`` if the store does not answer."""
    try:
        counts, workers, rules = await asyncio.gather(
            store.counts(name), store.workers(name), read_rules(store, name)
        )
    except JobQueueError:
        return None
    return QueueGauges(
        name=name,
        counts=counts_by_state(counts),
        oldest_age=None if counts.oldest is None else age(store, counts.oldest),
        workers=len(workers),
        paused=rules.paused,
        limits=limits_of(rules),
    )
