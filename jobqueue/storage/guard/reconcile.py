"""Compares the ledger with the store: what the store has lost it gets again, and what has ended is noted.

Level-triggered: a comparison looks at what is, not at what happened, so one that was cut off, or that several
make at once, does no harm. A job is brought back under its id and its token; a store that has the id refuses
it. A loss counts as mended when a comparison that began after it has come to its end, by whoever made it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.model.new_job import NewJob, Reuse
from jobqueue.model.states import ENDED, JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.text import printable
from jobqueue.storage import arguments
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard.gate import Gate, LedgerAwayError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.notices import Notices
from jobqueue.storage.guard.policy import Pace
from jobqueue.storage.guard.statements import GRACE
from jobqueue.storage.guard.tags import number_of, tagged_job, untag
from jobqueue.storage.guard.values import CODES, REPLACED, Change, History, Reconciled, Row
from jobqueue.storage.pieces import chunks
from jobqueue.storage.values import InsertStatus, Record

__all__ = ["Reconciler", "Reconciling"]

UNTHROTTLED = 1000
"""Jobs of one page after a loss."""
LOOKED_UP = 250
"""Jobs that the store is asked for at once: those that have ended come with their results."""
SECOND_LOOK = 1.0
"""Seconds after which a job that is missing is looked for once more, unless the store has lost data: one
that has just ended may be gone before the ledger has heard of it."""
CLEAN_EVERY = 3600.0
CLEANED = 1000
TOLD_EVERY = 10.0
"""Seconds from one log line on a comparison under way to the next."""
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


@dataclass(slots=True)
class _Seen:
    """What was seen of some rows in the store."""

    lost: list[str] = field(default_factory=list[str])
    others: list[tuple[Row, Record, str]] = field(default_factory=list[tuple[Row, Record, str]])
    """Rows whose id another job has: with that, and its token."""
    again: list[str] = field(default_factory=list[str])
    """Of these, those that come when the other has ended, as it has."""
    changes: list[Change] = field(default_factory=list[Change])
    stuck: int = 0


class Reconciler:
    """Compares, once or for ever."""

    def __init__(
        self,
        store: Storage,
        ledger: PostgresLedger,
        gate: Gate,
        options: Reconciling,
        now: Callable[[], int],
        notices: Notices,
    ) -> None:
        self._notices = notices
        self._store = store
        self._ledger = ledger
        self._gate = gate
        self._options = options
        self._now = now
        self._lost = asyncio.Event()
        self._told: set[str] = set()
        """Rows of which was said that they are of no use."""
        self._left = 0
        """How often one was left alone."""
        self.brought_back = 0
        """Jobs that the store has again from here."""

    def lost(self) -> None:
        """Compare at once, and without a limit to the rate: the store has lost data."""
        self._lost.set()

    async def run(self) -> None:
        """Compare at the pace of the work there is, until cancelled."""
        pace, clean_at = Pace(self._options.interval), SYSTEM_CLOCK.monotonic()
        while True:
            self._lost.clear()
            try:
                beat = await self._gate.ask(self._ledger.beat)
                found = await self.once(loss=beat.lost_at > beat.restored)
                pace.note(found.requeued + found.updated)
                if found.requeued or found.stuck:
                    log.warning(
                        "compared %d jobs: %d brought back, %d stuck",
                        found.compared,
                        found.requeued,
                        found.stuck,
                    )
                if SYSTEM_CLOCK.monotonic() >= clean_at:
                    await self.clean()
                    clean_at = SYSTEM_CLOCK.monotonic() + CLEAN_EVERY
            except JobQueueError as error:
                if not isinstance(error, LedgerAwayError):
                    log.warning("comparing the store with the ledger failed: %s", error)
                await SYSTEM_CLOCK.sleep(min(1.0, pace.seconds))
                continue
            await self._pause(pace.seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait, or until the store has lost data."""
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            pass

    async def clean(self) -> int:
        """Delete what ended ``history_days`` ago, in batches; return how much. A loss has it end early."""
        age, total = int(self._options.history_days * 86_400_000), 0
        while True:
            gone = await self._gate.ask(self._ledger.clean, age, CLEANED)
            total += gone
            if gone < CLEANED or self._lost.is_set():
                return total

    # -- comparing ------------------------------------------------------------------------------------

    async def once(self, *, loss: bool = False, queue: str | None = None) -> Reconciled:
        """Compare the live jobs of the ledger, or of one queue, with the store. Raises `JobQueueError`."""
        after, age, limit = FIRST, 0 if loss else GRACE, UNTHROTTLED if loss else self._options.batch_size
        beat = await self._gate.ask(self._ledger.beat)
        left = self._left
        total, tell_at = Reconciled(0, 0, 0, 0), SYSTEM_CLOCK.monotonic() + TOLD_EVERY
        while not (self._lost.is_set() and not loss):  # then all begins anew, without a limit
            rows = await self._gate.ask(self._ledger.page, after, age, limit, queue)
            by_queue: dict[str, list[Row]] = defaultdict(list)
            for row in rows:
                by_queue[row.queue].append(row)
            for name, several in by_queue.items():
                some = [row for row in several if self._is_sound(row)]
                if some:
                    found = await self._compare(name, some, beat.lost_at, loss=loss)
                    total = Reconciled(*(one + other for one, other in zip(total, found, strict=True)))
            if len(rows) < limit:
                await self._note(total, beat.lost_at, loss=loss, whole=queue is None)
                break
            after = rows[-1].token
            if SYSTEM_CLOCK.monotonic() >= tell_at:
                tell_at = SYSTEM_CLOCK.monotonic() + TOLD_EVERY
                log.info("compared %d jobs so far: %d brought back", total.compared, total.requeued)
        if total.requeued:
            self._notices.tell("brought_back", f"{total.requeued} jobs that the store had lost")
        return total._replace(set_aside=self._left - left)

    async def _note(self, total: Reconciled, lost_at: int, *, loss: bool, whole: bool) -> None:
        """Note what a comparison has come to; only one of all queues mends a loss."""
        if whole:
            await self._gate.ask(self._ledger.note_stuck, total.stuck)
            if loss:
                await self._gate.ask(self._ledger.note_doubt)
                await self._gate.ask(self._ledger.note_restored, lost_at)

    async def _compare(self, queue: str, rows: Sequence[Row], lost_at: int, *, loss: bool) -> Reconciled:
        seen = _Seen()
        for start in range(0, len(rows), LOOKED_UP):
            await self._look_up(queue, rows[start : start + LOOKED_UP], seen)
        if seen.others:
            await self._judge(seen, lost_at)
        if seen.lost:
            if not loss:
                await self._pause(SECOND_LOOK)
            outlived = await self._gate.ask(self._ledger.superseded, seen.lost)
            seen.changes += map(self._replaced, sorted(outlived))
            seen.lost = [token for token in seen.lost if token not in outlived]
        if seen.changes:
            await self._gate.ask(self._ledger.record, seen.changes)
        if seen.stuck:
            await self._store.sweep(queue, UNTHROTTLED)
        back = await self.bring_back(queue, seen.lost, loss=loss)
        back += await self.bring_back(queue, seen.again, loss=loss, reuse=Reuse.RERUN)
        return Reconciled(len(rows), back, len(seen.changes), seen.stuck)

    async def _look_up(self, queue: str, rows: Sequence[Row], seen: _Seen) -> None:
        """Read the jobs of rows, and sort what is found."""
        records = await self._store.get(queue, [row.id for row in rows], letters=True)
        for row, record in zip(rows, records, strict=True):
            token = None if record is None else untag(record.headers)[0]
            if record is None:
                seen.lost.append(row.token)
            elif token == row.token:
                if record.state is not row.state or record.attempts != row.attempts:
                    seen.changes.append(self._seen(row, record))
                seen.stuck += self._is_stuck(record)
            elif token is None:
                seen.changes.append(self._replaced(row.token))
            else:
                seen.others.append((row, record, token))

    async def _judge(self, seen: _Seen, lost_at: int) -> None:
        """Judge rows whose id another job has in the store: some are over, and some come again.

        A row that is older than the job was replaced by it. One that is later was no new job, and is dropped
        soon; or else the store was set back since, and the row comes when what it has again has ended.
        """
        known = await self._gate.ask(self._ledger.origins, [token for _, _, token in seen.others])
        for row, record, token in seen.others:
            if token in known:
                is_older = (row.created, row.token) < (known[token], token)
            else:
                is_older = number_of(row.token) < number_of(token)
            if is_older:
                seen.changes.append(self._replaced(row.token))
            elif row.created < lost_at:
                if record.state in ENDED:
                    seen.again.append(row.token)
            elif row.created < self._now() - GRACE:
                seen.changes.append(self._replaced(row.token))

    def _replaced(self, token: str) -> Change:
        return Change(token, REPLACED, history=[History(self._now(), "replaced")])

    def _seen(self, row: Row, record: Record) -> Change:
        """Return what the store says of a job, for a ledger that has not heard of it."""
        change = Change(
            row.token,
            CODES[record.state],
            record.attempts,
            record.worker,
            due=record.run_at,
            seq=record.seq,
            fence=record.fence,
        )
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

    # -- bringing back --------------------------------------------------------------------------------

    async def bring_back(
        self, queue: str, tokens: Sequence[str], *, loss: bool, reuse: Reuse = Reuse.RETURN
    ) -> int:
        """Insert jobs that the store does not have; return how many it has from this call.

        Of the lost jobs with one id, all have to be among them: the ledger says which comes back.
        """
        brought, start = 0, 0
        while start < len(tokens):
            loss = loss or self._lost.is_set()
            size = UNTHROTTLED if loss else max(1, int(self._options.rate))
            some = tokens[start : start + size]
            start += size
            sizes = await self._gate.ask(self._ledger.requeue, some)
            live = sorted(sizes)
            for piece in chunks(live, [sizes[token] for token in live]):
                brought += await self._insert(queue, piece, reuse)
            if not loss:
                await self._pause(len(some) / self._options.rate)
        return brought

    async def _insert(self, queue: str, tokens: Sequence[str], reuse: Reuse) -> int:
        jobs = await self._gate.ask(self._ledger.jobs, tokens)
        back = [
            tagged_job(token, job._replace(reuse=reuse))
            for token, job in sorted(jobs.items())
            if self._is_valid(token, queue, job)
        ]
        answers = await self._store.insert(queue, back) if back else []
        made = sum(answer.status is InsertStatus.CREATED for answer in answers)
        self.brought_back += made
        return made

    # -- rows that somebody has edited --------------------------------------------------------------------

    def _is_sound(self, row: Row) -> bool:
        try:
            arguments.check_get(row.queue, [row.id], None)
        except InvalidArgumentError as error:
            return self._leave(row.token, error)
        return True

    def _is_valid(self, token: str, queue: str, job: NewJob) -> bool:
        try:
            arguments.check_insert(queue, [job], None, None)
        except InvalidArgumentError as error:
            return self._leave(token, error)
        return True

    def _leave(self, token: str, error: InvalidArgumentError) -> bool:
        """Say once that a row is of no use; it stands in nobody's way."""
        self._left += 1
        if token not in self._told and len(self._told) < CLEANED:
            self._told.add(token)
            text = "row %s of the ledger cannot be used, and stays as it is: %s"
            log.error(text, token, printable(str(error)))
        return False
