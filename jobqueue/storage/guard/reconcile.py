"""Compares the ledger with the store: what the store has lost it gets again, and what has ended is noted.

Level-triggered: a comparison looks at what is, not at what happened, so one that was cut off, or that several
make at once, does no harm. A job is brought back under its id and its token; a store that has the id refuses
it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jobqueue.errors import JobQueueError
from jobqueue.model.states import ENDED, JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard.gate import Gate, LedgerAwayError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.policy import Pace
from jobqueue.storage.guard.tags import tagged_job, untag
from jobqueue.storage.guard.values import CODES, REPLACED, Change, History, Reconciled, Row
from jobqueue.storage.values import InsertStatus, Record

__all__ = ["Reconciler", "Reconciling"]

GRACE = 15_000
"""Milliseconds that a job may be in the ledger alone: its enqueue is still on the way to the store."""
UNTHROTTLED = 1000
"""Jobs of one page after a loss."""
CLEAN_EVERY = 3600.0
CLEANED = 1000
FIRST = "0" * 32

log = get_logger("jobqueue.storage.guard")


class Reconciling(NamedTuple):
    """Options of the comparison."""

    interval: float
    rate: float
    """Jobs brought back per second, unless the store has lost everything."""
    batch_size: int
    stuck_after: float
    history_days: float


class Reconciler:
    """Compares, once or for ever."""

    def __init__(
        self, store: Storage, ledger: PostgresLedger, gate: Gate, options: Reconciling, now: Callable[[], int]
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._gate = gate
        self._options = options
        self._now = now
        self._lost = asyncio.Event()

    def lost(self) -> None:
        """Compare at once, and without a limit to the rate: the store has lost data."""
        self._lost.set()

    async def run(self) -> None:
        """Compare at the pace of the work there is, until cancelled."""
        pace, clean_at = Pace(self._options.interval), SYSTEM_CLOCK.monotonic() + CLEAN_EVERY
        while True:
            loss = self._lost.is_set()
            self._lost.clear()
            try:
                found = await self.once(loss=loss)
                pace.note(found.requeued + found.updated)
                if found.requeued or found.stuck:
                    log.warning(
                        "compared %d jobs: %d brought back, %d stuck",
                        found.compared,
                        found.requeued,
                        found.stuck,
                    )
                if SYSTEM_CLOCK.monotonic() >= clean_at:
                    clean_at = SYSTEM_CLOCK.monotonic() + CLEAN_EVERY
                    await self.clean()
            except JobQueueError as error:
                if loss:
                    self._lost.set()
                if not isinstance(error, LedgerAwayError):
                    log.warning("comparing the store with the ledger failed: %s", error)
                await SYSTEM_CLOCK.sleep(min(1.0, pace.seconds))
                continue
            try:
                async with asyncio.timeout(pace.seconds):
                    await self._lost.wait()
            except TimeoutError:
                pass

    async def clean(self) -> int:
        """Delete what ended ``history_days`` ago, in batches; return how much."""
        age, total = int(self._options.history_days * 86_400_000), 0
        while True:
            gone = await self._gate.ask(self._ledger.clean, age, CLEANED)
            total += gone
            if gone < CLEANED:
                return total

    async def once(self, *, loss: bool = False, queue: str | None = None) -> Reconciled:
        """Compare the live jobs of the ledger, or of one queue, with the store. Raises `JobQueueError`."""
        after, age, limit = FIRST, 0 if loss else GRACE, UNTHROTTLED if loss else self._options.batch_size
        total = Reconciled(0, 0, 0, 0)
        while True:
            rows = await self._gate.ask(self._ledger.page, after, age, limit, queue)
            if not rows:
                break
            after = rows[-1].token
            by_queue: dict[str, list[Row]] = defaultdict(list)
            for row in rows:
                by_queue[row.queue].append(row)
            for name, some in by_queue.items():
                found = await self._compare(name, some, loss=loss)
                total = Reconciled(*(one + other for one, other in zip(total, found, strict=True)))
            if len(rows) < limit:
                break
        await self._gate.ask(self._ledger.note_stuck, total.stuck)
        return total

    async def _compare(self, queue: str, rows: Sequence[Row], *, loss: bool) -> Reconciled:
        records = await self._store.get(queue, [row.id for row in rows], letters=True)
        lost: list[str] = []
        changes: list[Change] = []
        stuck = 0
        for row, record in zip(rows, records, strict=True):
            if record is None:
                lost.append(row.token)
            elif untag(record.headers)[0] != row.token:
                changes.append(Change(row.token, REPLACED, history=[History(self._now(), "replaced")]))
            else:
                if self._differs(row, record):
                    changes.append(self._seen(row, record))
                stuck += self._is_stuck(record)
        if lost:
            outlived = await self._gate.ask(self._ledger.superseded, lost)
            changes += (
                Change(token, REPLACED, history=[History(self._now(), "replaced")]) for token in outlived
            )
            lost = [token for token in lost if token not in outlived]
        if changes:
            await self._gate.ask(self._ledger.record, changes)
        if stuck:
            await self._store.sweep(queue, UNTHROTTLED)
        return Reconciled(len(rows), await self.bring_back(queue, lost, loss=loss), len(changes), stuck)

    @staticmethod
    def _differs(row: Row, record: Record) -> bool:
        return record.state is not row.state or record.attempts != row.attempts

    def _seen(self, row: Row, record: Record) -> Change:
        """Return what the store says of a job, for a ledger that has not heard of it."""
        change = Change(row.token, CODES[record.state], record.attempts, record.worker, due=record.run_at)
        if record.state in ENDED:
            change.data = record.result if record.state is JobState.COMPLETED else record.error
            change.ttl = max(0, (record.expires_at or 0) - self._store_now())
            change.history = [History(record.updated_at, record.state.value, "", record.attempts)]
        return change

    def _store_now(self) -> int:
        return int(self._store.clock.time() * 1000)

    def _is_stuck(self, record: Record) -> bool:
        until = record.lease_until
        return until is not None and until + self._options.stuck_after * 1000 < self._store_now()

    async def bring_back(self, queue: str, tokens: Sequence[str], *, loss: bool) -> int:
        """Insert jobs that the store does not have; return how many it has from this call."""
        brought, size = 0, UNTHROTTLED if loss else max(1, int(self._options.rate))
        for start in range(0, len(tokens), size):
            some = tokens[start : start + size]
            live = await self._gate.ask(self._ledger.requeue, some)
            jobs = await self._gate.ask(self._ledger.jobs, sorted(live))
            back = [tagged_job(token, job) for token, job in sorted(jobs.items())]
            answers = await self._store.insert(queue, back)
            brought += sum(answer.status is InsertStatus.CREATED for answer in answers)
            if not loss:
                await SYSTEM_CLOCK.sleep(len(some) / self._options.rate)
        return brought
