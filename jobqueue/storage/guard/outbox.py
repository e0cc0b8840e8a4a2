"""What the ledger does not have yet: outcomes, and jobs that were asked for while it was away.

It is written in the background, in batches; the changes of one job are merged, so that a job which is claimed
and completed between two writes costs one row. Bounded in bytes. When it is half full while the ledger
answers, whoever adds to it waits; while the ledger is away what is not kept is counted, and told once: the
reconciler finds outcomes in the store, but a job that neither the ledger nor this buffer has is unprotected.
A write that the ledger refuses for what is in it is set aside, so that it holds up no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import TypeVar

from jobqueue.runtime.bounded import within
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.text import printable
from jobqueue.storage.guard.gate import Gate, LedgerAwayError, LedgerRefusedError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.notices import Notices
from jobqueue.storage.guard.policy import BreakerState
from jobqueue.storage.guard.values import Change, Written

__all__ = ["Outbox"]

W = TypeVar("W", Written, Change)

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

    def __init__(self, ledger: PostgresLedger, gate: Gate, notices: Notices | None = None) -> None:
        self._ledger = ledger
        self._gate = gate
        self._notices = notices or Notices()
        self._jobs: dict[str, Written] = {}
        self._changes: dict[str, Change] = {}
        self._sending = 0
        """How many are on their way."""
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._told = False
        """Whether it was said that there is no room, since there was some."""
        self.lost = 0
        """Writes that had no room, or that the ledger has refused."""
        self.waited = 0.0
        """Seconds that callers have waited for room, all together."""

    def __len__(self) -> int:
        return len(self._jobs) + len(self._changes) + self._sending

    def start(self) -> None:
        """Write in the background, until closed."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jobqueue-guard-outbox")

    # -- adding ---------------------------------------------------------------------------------------

    def add_jobs(self, jobs: Sequence[Written]) -> None:
        """Keep jobs that the ledger could not take."""
        for one in jobs:
            if self._fits(one.size):
                self._jobs[one.token] = one
                self._bytes += one.size
        self._filled.set()

    def add(self, change: Change) -> None:
        """Keep what has become of a job."""
        if self._fits(change.size):
            self._merge(change)
        self._filled.set()

    def _merge(self, change: Change) -> None:
        known = self._changes.get(change.token)
        if known is None:
            self._changes[change.token] = change
            self._bytes += change.size
        else:
            before = known.size
            known.merge(change)
            self._bytes += known.size - before

    def _fits(self, size: int) -> bool:
        if self._bytes + size <= MOST_BYTES:
            return True
        if not self._told:
            self._told = True
            text = f"the ledger has been away for too long: {len(self)} writes are kept, more are not"
            log.error(text)
            self._notices.tell("dropped", text)
        self.lost += 1
        return False

    async def wait_for_room(self) -> None:
        """Wait while half of the room is taken and the ledger answers: it is slower than the store."""
        if self._bytes * 2 > MOST_BYTES and self._gate.state is BreakerState.CLOSED and not self._closing:
            if self._room.is_set():
                text = f"the ledger is slower than the store: callers wait, as {len(self)} writes do"
                log.warning(text)
                self._notices.tell("ledger_slow", text)
            self._room.clear()
            self._filled.set()
            began = SYSTEM_CLOCK.monotonic()
            try:
                await self._room.wait()
            finally:
                self.waited += SYSTEM_CLOCK.monotonic() - began

    async def write_now(self, changes: Sequence[Change]) -> None:
        """Write changes, and what was told of their jobs before, and wait for it.

        Raises `LedgerAwayError`; then they are kept, and written later.
        """
        all: list[Change] = []
        for change in changes:
            before = self._changes.pop(change.token, None)
            if before is not None:
                self._bytes -= before.size
                before.merge(change)
            all.append(before or change)
        try:
            await self._gate.ask(self._ledger.record, all)
        except BaseException:
            self._put_back({change.token: change for change in all})
            self.start()
            raise

    # -- writing --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write the rest, for `LAST` seconds at the most, also to a ledger that has not answered lately."""
        self._closing = True
        self._gate.try_now()
        self._filled.set()
        self._room.set()
        task = self._task
        if task is None:
            return
        try:
            await within(SYSTEM_CLOCK, asyncio.wait([task]), LAST)
        except TimeoutError:
            pass
        finally:
            task.cancel()
        await asyncio.wait([task])
        if len(self):
            log.error("%d writes did not reach the ledger", len(self))

    async def _run(self) -> None:
        while not (self._closing and not len(self)):
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
                except Exception:
                    log.exception("writing to the ledger failed")
                    self._room.set()  # nobody may wait for a task that is no more, nor this one end
                    await SYSTEM_CLOCK.sleep(AGAIN)
            self._room.set()

    async def _write_some(self) -> None:
        """Write jobs first: a change of one that the ledger does not have yet would be of no row."""
        if self._jobs:
            jobs, size = self._take(self._jobs)
            try:
                await self._send(list(jobs.values()))
            except BaseException:
                self._jobs = {**jobs, **self._jobs}
                raise
            finally:
                self._sending = 0
        else:
            changes, size = self._take(self._changes)
            try:
                await self._send(list(changes.values()))
            except BaseException:
                self._bytes -= size
                self._put_back(changes)
                raise
            finally:
                self._sending = 0
        self._bytes -= size
        if self._bytes * 2 <= MOST_BYTES:
            self._told = False
            self._room.set()

    def _take(self, kept: dict[str, W]) -> tuple[dict[str, W], int]:
        """Take the first of what is kept out, and say how many bytes these are; they count until written."""
        taken = {token: kept.pop(token) for token in list(islice(kept, BATCH))}
        self._sending = len(taken)
        return taken, sum(one.size for one in taken.values())

    def _put_back(self, changes: dict[str, Change]) -> None:
        """Keep changes again, in front of what was told of their jobs meanwhile."""
        later, self._changes = self._changes, changes
        self._bytes += sum(change.size for change in changes.values())
        for change in later.values():
            self._bytes -= change.size
            self._merge(change)
        self._filled.set()

    async def _send(self, writes: Sequence[Written] | Sequence[Change]) -> None:
        try:
            await self._gate.ask(self._write, writes)
        except LedgerRefusedError:
            await self._gate.ask(self._ledger.check)  # else it refuses all, whatever is in it
            for one in writes:
                await self._send_alone(one)

    async def _send_alone(self, one: Written | Change) -> None:
        try:
            await self._gate.ask(self._write, [one])
        except LedgerRefusedError as error:
            self.lost += 1
            text = "the ledger refuses what is in a write of job %s: %s"
            log.error(text, one.token, printable(str(error)))  # noqa: TRY400 - it says what is wrong
            self._notices.tell("dropped", f"the ledger refuses what is in a write of job {one.token}")

    async def _write(self, writes: Sequence[Written | Change]) -> None:
        jobs = [one for one in writes if isinstance(one, Written)]
        if jobs:
            await self._ledger.write(jobs, SYSTEM_CLOCK.monotonic(), again=True)
        changes = [one for one in writes if isinstance(one, Change)]
        if changes:
            await self._ledger.record(changes)
