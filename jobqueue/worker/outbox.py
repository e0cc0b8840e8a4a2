"""The outcomes that a worker has to hand in, from the end of a run until the store has answered for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jobqueue.model.states import Action
from jobqueue.worker.run import Run

__all__ = ["Batch", "Outbox"]

_COMPLETE = Action.COMPLETE


class Batch(NamedTuple):
    """What one call hands in and asks for."""

    runs: list[Run]
    limit: int
    """Jobs that it may bring."""
    telling: bool
    """Whether a run may need an event other than `completed`."""


class Outbox:
    """The runs that have ended: those that wait to be handed in, and those that are on their way."""

    def __init__(self) -> None:
        self.waiting: list[Run] = []
        """Whoever ends a run adds it. Always this list."""
        self.telling = False
        """Whether one that waits may need an event other than `completed`. Set by whoever adds such a one."""
        self.asked = 0
        """Jobs that the calls under way may bring."""
        self._sent: list[Batch] = []

    def __len__(self) -> int:
        return len(self.waiting) + sum(len(batch.runs) for batch in self._sent)

    def __iter__(self) -> Iterator[Run]:
        """Yield all runs. Any thread may ask: one that moves meanwhile is not left out."""
        waiting = tuple(self.waiting)
        sent = [run for batch in tuple(self._sent) for run in batch.runs]
        return iter({run.fence: run for run in (*waiting, *sent, *self.waiting)}.values())

    @property
    def under_way(self) -> bool:
        """Whether a call has been made and not been answered."""
        return bool(self._sent)

    def send(self, most: int, limit: int) -> Batch:
        """Take the first runs for a call that asks for ``limit`` jobs; `answered` or `put_back` follows."""
        waiting = self.waiting
        batch = Batch(waiting[:most], limit, self.telling)
        self._sent.append(batch)  # first, for those who read in other threads
        del waiting[:most]
        self.asked += limit
        if self.telling:
            self.telling = any(run.settlement.action is not _COMPLETE for run in waiting)
        return batch

    def answered(self, batch: Batch) -> None:
        """Forget a batch that the store has answered."""
        self.asked -= batch.limit
        self._sent = [sent for sent in self._sent if sent is not batch]

    def put_back(self, batch: Batch) -> None:
        """Have the runs of a call that failed handed in again, before all others."""
        self.waiting[:0] = batch.runs
        self.telling = self.telling or batch.telling
        self.answered(batch)

    def drop_waiting(self) -> list[Run]:
        """Forget the runs that wait; return them. Those that are on their way may still arrive."""
        runs = self.waiting[:]
        self.waiting.clear()
        return runs

    def clear(self) -> list[Run]:
        """Forget all runs; return them."""
        runs = list(self)
        self.waiting.clear()
        self._sent.clear()
        return runs
