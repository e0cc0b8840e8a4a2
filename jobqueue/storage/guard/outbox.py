"""What the ledger does not have yet: outcomes, and jobs that were asked for while it was away.

It is written in the background, in batches; the changes of one job are merged, so that a job which is claimed
and completed between two writes costs one row. Bounded in bytes. When it is half full while the ledger
answers, whoever adds to it waits; while the ledger is away what is not kept is counted, and told once: the
reconciler finds outcomes in the store, but a job that neither the ledger nor this buffer has is unprotected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from jobqueue.runtime.bounded import within
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.guard.gate import Gate, LedgerAwayError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.policy import BreakerState
from jobqueue.storage.guard.values import Change, Written

__all__ = ["Outbox"]

T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024
"""Bytes that wait for the ledger at most, in one process."""
EVERY = 0.02
"""Seconds in which changes gather."""
AGAIN = 1.0
"""Seconds until the next try at a ledger that is away."""
BATCH = 1000
LAST = 5.0
"""Seconds that a closing store waits for the ledger to take the rest."""

log = get_logger("jobqueue.storage.guard")


class Outbox:
    """Writes to the ledger, behind the store."""

    def __init__(self, ledger: PostgresLedger, gate: Gate) -> None:
        self._ledger = ledger
        self._gate = gate
        self._jobs: dict[str, Written] = {}
        self._changes: dict[str, Change] = {}
        self._sending: dict[str, Written] | dict[str, Change] = {}
        """What is on its way."""
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.lost = 0
        """Writes that had no room."""

    def __len__(self) -> int:
        return len(self._jobs) + len(self._changes) + len(self._sending)

    def start(self) -> None:
        """Write in the background, until closed."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jobqueue-guard-outbox")

    def add_jobs(self, jobs: Sequence[Written]) -> None:
        """Keep jobs that the ledger could not take."""
        for one in jobs:
            size = len(one.job.payload) + len(one.job.headers) + 300
            if self._fits(size):
                self._jobs[one.token] = one
                self._bytes += size
        self._filled.set()

    def add(self, change: Change) -> None:
        """Keep what has become of a job."""
        known = self._changes.get(change.token)
        if known is None:
            if self._fits(change.size):
                self._changes[change.token] = change
                self._bytes += change.size
        elif self._fits(change.size):
            known.merge(change)
            self._bytes += change.size
        self._filled.set()

    async def drop_now(self, tokens: Sequence[str]) -> None:
        """Delete the rows of jobs that were not made, if the ledger answers."""
        with suppress(LedgerAwayError):
            await self._gate.ask(self._ledger.record, [Change(token, drops=True) for token in tokens])

    def _fits(self, size: int) -> bool:
        if self._bytes + size <= MOST_BYTES:
            return True
        if not self.lost:
            log.error("the ledger has been away for too long: %d writes are kept, more are not", len(self))
        self.lost += 1
        return False

    async def wait_for_room(self) -> None:
        """Wait while half of the room is taken and the ledger answers: it is slower than the store."""
        if self._bytes * 2 > MOST_BYTES and self._gate.state is BreakerState.CLOSED:
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Write the rest, for `LAST` seconds at the most."""
        self._closing = True
        self._filled.set()
        task = self._task
        if task is None:
            return
        try:
            await within(SYSTEM_CLOCK, asyncio.shield(task), LAST)
        except TimeoutError:
            task.cancel()
            await asyncio.wait([task])
        if len(self):
            log.error("%d writes did not reach the ledger", len(self))

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            if not self._closing:
                await SYSTEM_CLOCK.sleep(EVERY)
            self._filled.clear()
            while len(self):
                try:
                    await self._write_some()
                except LedgerAwayError:
                    self._room.set()
                    await SYSTEM_CLOCK.sleep(AGAIN)
            self._room.set()
            if self._closing:
                return

    async def _write_some(self) -> None:
        """Write jobs first: a change of one that the ledger does not have yet would be of no row."""
        jobs: dict[str, Written] = _first(self._jobs)
        changes: dict[str, Change] = {} if jobs else _first(self._changes)
        self._sending = jobs or changes
        try:
            if jobs:
                await self._gate.ask(self._ledger.write, list(jobs.values()), SYSTEM_CLOCK.monotonic())
            if changes:
                await self._gate.ask(self._ledger.record, list(changes.values()))
        except BaseException:
            self._jobs = {**jobs, **self._jobs}
            for token, change in self._changes.items():
                if token in changes:
                    changes[token].merge(change)
                else:
                    changes[token] = change
            self._changes = changes
            raise
        finally:
            self._sending = {}
        if not self._jobs and not self._changes:
            self._bytes = 0
        else:
            self._bytes = max(0, self._bytes - _size(jobs, changes))
        if self._bytes * 2 <= MOST_BYTES:
            self._room.set()


def _size(jobs: dict[str, Written], changes: dict[str, Change]) -> int:
    of_jobs = sum(len(one.job.payload) + len(one.job.headers) + 300 for one in jobs.values())
    return of_jobs + sum(change.size for change in changes.values())


def _first(kept: dict[str, T]) -> dict[str, T]:
    """Take the first of what is kept out."""
    return {token: kept.pop(token) for token in list(islice(kept, BATCH))}
