"""Guards a queue of another library: its jobs are recorded first, followed, and enqueued again when lost.

All that is asked of that queue are the three calls of `ForeignQueue`. It tells nothing by itself, so the
guard looks: every ``interval`` seconds at all jobs that it knows as live. A job that is gone without a loss
has ended between two looks; what became of it nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from jobqueue.errors import InvalidArgumentError, JobQueueError, StorageError
from jobqueue.model.checks import check_seconds
from jobqueue.model.new_job import NewJob
from jobqueue.model.states import ENDED, JobState
from jobqueue.runtime.batching import Batcher
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.text import printable
from jobqueue.storage.guard import GuardEvent, PostgresLedger, Reconciled
from jobqueue.storage.guard.gate import Gate, LedgerAwayError, LedgerRefusedError
from jobqueue.storage.guard.outbox import Outbox
from jobqueue.storage.guard.statements import GRACE
from jobqueue.storage.guard.tags import new_token
from jobqueue.storage.guard.values import CODES, Change, History, Row, Written
from jobqueue.storage.pieces import chunks

__all__ = ["ForeignGuard", "ForeignQueue", "Kept", "check_options"]

LOOK_EVERY = 1.0
"""Seconds between two looks whether the server was wiped or set back."""
PAGE = 500
HISTORY_DAYS = 7
CLEAN_EVERY = 3600.0
CLEANED = 1000
KEPT_FOR = 86_400_000 * HISTORY_DAYS
MOST_TOLD = 1000
"""Rows of which is said that they are of no use."""

log = get_logger("jobqueue.guard")


class Kept(NamedTuple):
    """A job as its queue can have it again."""

    id: str
    data: bytes
    """What the adapter has made of it; nobody else reads it, and nothing in it is ever executed here."""
    due: int
    """Milliseconds since 1970; 0: at once."""


class ForeignQueue(Protocol):
    """What the guard asks of a queue of another library."""

    name: str
    """Name of the queue in the ledger."""

    async def mark(self) -> tuple[bytes, int]:
        """Return a random value that the server keeps, and how often this was asked of it.

        A server that was wiped has another value; one that was set back was asked less often.
        """
        ...

    async def look(self, ids: Sequence[str]) -> list[JobState | None]:
        """Return the states of jobs; ``None`` where the queue has none."""
        ...

    async def put(self, jobs: Sequence[Kept]) -> None:
        """Enqueue jobs again, under their ids; one that is there stays as it is."""
        ...

    def check(self, job: Kept) -> None:
        """Raise `ValueError` unless `put` can read the bytes of a job: somebody may have edited them."""
        ...


def check_options(ledger: object, interval: object) -> float:
    """Check what a guard is given; return the interval."""
    if not isinstance(ledger, PostgresLedger):
        raise InvalidArgumentError("ledger", f"must be a PostgresLedger, not {type(ledger).__name__}")
    return check_seconds("interval", interval)


class ForeignGuard:
    """The guard of one queue, in one event loop.

    While PostgreSQL is away the queue goes on; what the ledger lacks is kept in memory, within bounds.
    """

    def __init__(self, queue: ForeignQueue, ledger: PostgresLedger, *, interval: float = 5.0) -> None:
        self._interval = check_options(ledger, interval)
        self._queue = queue
        self._ledger = ledger.clone()
        self._gate = Gate(5, 60.0)
        self._outbox = Outbox(self._ledger, self._gate)
        self._writes: Batcher[Written, LedgerAwayError | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._turn = asyncio.Lock()
        """Held while the server is looked at: of two answers that cross, one would look like a loss."""
        self._seen: tuple[bytes, int] | None = None
        self._lost = False
        """Whether the ledger has yet to be told of a loss."""
        self._told: set[str] = set()
        """Rows of which was said that they are of no use."""
        self._closed = False

    async def start(self) -> None:
        """Look after the queue until closed; once is enough. Raises `StorageError` without the tables."""
        async with self._starting:
            if self._writes is not None:
                return
            self._ledger.open()
            try:
                await self._gate.ask(self._ledger.check)
            except LedgerRefusedError as error:
                await self._ledger.close()
                raise StorageError(str(error)) from error
            except LedgerAwayError:
                pass  # the queue goes on
            self._outbox.start()
            self._task = asyncio.create_task(self._run(), name="jobqueue-foreign-guard")
            self._writes = Batcher(self._write, sizes=lambda jobs: [one.size for one in jobs])

    async def close(self) -> None:
        """Write what the ledger does not have yet, and let go of it."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._writes is not None:
            await self._writes.drain()  # what PostgreSQL does not take in time goes to the outbox
        await self._outbox.close()
        await self._ledger.close()

    # -- jobs -----------------------------------------------------------------------------------------

    async def record(self, id: str, data: bytes, due: int = 0) -> str:
        """Write a job into the ledger before its queue has it; return what `confirm` and `drop` take.

        Raises `StorageError` once it is closed: the job would not be guarded.
        """
        if self._closed:
            raise StorageError(f"the guard of {printable(self._queue.name)} was closed: make a new one")
        await self.start()
        assert self._writes is not None
        job = NewJob(id, data, run_at=due or None, ttl=KEPT_FOR)
        token = new_token(SYSTEM_CLOCK.time())
        written = Written(token, self._queue.name, job, SYSTEM_CLOCK.monotonic())
        if await self._writes.call(written) is not None:
            self._outbox.add_jobs([written])
        return token

    async def _write(self, jobs: Sequence[Written]) -> Sequence[LedgerAwayError | None]:
        try:
            await self._gate.ask(self._ledger.write, jobs, SYSTEM_CLOCK.monotonic())
        except LedgerAwayError as error:
            return [error] * len(jobs)
        return [None] * len(jobs)

    def confirm(self, token: str) -> None:
        """Say that the queue has the job."""
        self._outbox.add(Change(token, attempts=1))

    def drop(self, token: str) -> None:
        """Say that the job was not made: its id was taken."""
        self._outbox.add(Change(token, drops=True))

    async def history(self, id: str, *, limit: int = 10) -> list[GuardEvent]:
        """Return what happened to the last ``limit`` jobs of an id, oldest first."""
        return await self._ledger.history(self._queue.name, id, limit)

    # -- looking --------------------------------------------------------------------------------------

    async def _run(self) -> None:
        compare_at, clean_at = 0.0, 0.0
        while True:
            try:
                async with self._turn:
                    await self._look_for_loss()
                now = SYSTEM_CLOCK.monotonic()
                if self._lost or now >= compare_at:
                    await self.reconcile()
                    compare_at = SYSTEM_CLOCK.monotonic() + self._interval
                if now >= clean_at:
                    cleaned = await self._gate.ask(self._ledger.clean, KEPT_FOR, CLEANED)
                    if cleaned < CLEANED:  # else the rest goes with the next looks
                        clean_at = now + CLEAN_EVERY
            except LedgerAwayError:
                pass  # the gate has told it
            except JobQueueError as error:
                log.warning("looking after %s failed: %s", printable(self._queue.name), error)
            except Exception:
                log.exception("looking after %s failed", printable(self._queue.name))
            await SYSTEM_CLOCK.sleep(min(LOOK_EVERY, self._interval))

    async def _look_for_loss(self) -> None:
        """Compare what the server says with what it said last: to this process, or else to another one."""
        # In this order: a mark that another process gets and notes between the two would look like a loss.
        seen = self._seen or await self._gate.ask(self._ledger.server, self._queue.name)
        now = await self._queue.mark()
        if seen is not None and (now[0] != seen[0] or now[1] <= seen[1]):
            name = printable(self._queue.name)
            log.warning("the server of %s has lost data: its jobs are enqueued again", name)
            self._lost = True
        self._seen = now

    async def reconcile(self) -> Reconciled:
        """Compare the ledger with the queue now; return what was done. Raises `StorageUnavailableError`."""
        async with self._turn:
            return await self._reconcile()

    async def _reconcile(self) -> Reconciled:
        await self._look_for_loss()
        assert self._seen is not None
        name = self._queue.name
        losses, mended = await self._gate.ask(self._ledger.note_server, name, *self._seen, lost=self._lost)
        self._lost, loss = False, losses > mended  # also one that another process has found
        after, total, told = "0" * 32, Reconciled(0, 0, 0, 0), len(self._told)
        while True:
            now = (await self._gate.ask(self._ledger.beat)).now  # the clock of this machine may be wrong
            rows = await self._gate.ask(self._ledger.page, after, 0, PAGE, name)
            if rows:
                found = await self._compare(rows, now, loss=loss)
                total = Reconciled(*(one + other for one, other in zip(total, found, strict=True)))
            if len(rows) < PAGE:
                break
            after = rows[-1].token
        if loss:
            await self._gate.ask(self._ledger.note_mended, name, losses)
        return total._replace(set_aside=len(self._told) - told)

    async def _compare(self, rows: Sequence[Row], now: int, *, loss: bool) -> Reconciled:
        states = await self._queue.look([row.id for row in rows])
        if not loss and any(state is None and row.attempts for row, state in zip(rows, states, strict=True)):
            await self._look_for_loss()  # they may have ended, or have been lost since the last look
        grown = now - GRACE
        lost: list[str] = []
        changes: list[Change] = []
        for row, state in zip(rows, states, strict=True):
            if state is None:
                confirmed = row.attempts > 0
                if loss or (not confirmed and row.created < grown):
                    lost.append(row.token)
                elif confirmed and not self._lost:  # else the next comparison brings it back, at once
                    changes.append(self._change(row, JobState.COMPLETED, "gone", now))
            elif state is not row.state:
                changes.append(self._change(row, state, state.value, now))
            elif not row.attempts:
                changes.append(Change(row.token, attempts=1))
        if changes:
            await self._gate.ask(self._ledger.record, changes)
        return Reconciled(len(rows), await self._put(lost, now), len(changes), 0)

    @staticmethod
    def _change(row: Row, state: JobState, event: str, now: int) -> Change:
        history = [History(now, event)]
        return Change(row.token, CODES[state], 1, ttl=0 if state in ENDED else None, history=history)

    async def _put(self, tokens: Sequence[str], now: int) -> int:
        if not tokens:
            return 0
        sizes, brought = await self._gate.ask(self._ledger.requeue, tokens), 0
        live = sorted(sizes)
        for piece in chunks(live, [sizes[token] for token in live]):
            jobs = await self._gate.ask(self._ledger.jobs, piece)
            back = {token: _kept(job, now) for token, job in sorted(jobs.items())}
            back = {token: job for token, job in back.items() if self._is_readable(token, job)}
            await self._queue.put(list(back.values()))
            for token in back:
                self.confirm(token)
            brought += len(back)
        return brought

    def _is_readable(self, token: str, job: Kept) -> bool:
        """Say once of a row that somebody has edited that it is of no use; it stands in nobody's way."""
        try:
            self._queue.check(job)
        except ValueError as error:
            if token not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(token)
                text = "row %s of the ledger cannot be used, and stays as it is: %s"
                log.error(text, token, printable(str(error)))  # noqa: TRY400 - it says what is wrong
            return False
        return True


def _kept(job: NewJob, now: int) -> Kept:
    due = job.run_at or 0
    return Kept(job.id, job.payload, due if due > now else 0)
