"""Notices that the store was wiped, or set back to an older state, by a document that every process watches.

The document holds a random value, written when there is none: a wiped store has another one. Whoever
reconciles writes it anew every second, so its version rises: a store that was set back has a lower one than
was seen before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobqueue.errors import JobQueueError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import random_secret
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.capabilities import Documents
from jobqueue.storage.guard.gate import Gate, LedgerAwayError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.values import Change

__all__ = ["Epoch"]

SPACE, NAME = "jobqueue-guard", "epoch"
EVERY = 1.0
"""Seconds between two looks."""

log = get_logger("jobqueue.storage.guard")


class Epoch:
    """Watches the epoch of a store. Calls ``lost`` when it has lost data, ``noted`` when the ledger knows."""

    def __init__(
        self,
        store: Documents,
        ledger: PostgresLedger,
        gate: Gate,
        lost: Callable[[], None],
        noted: Callable[[], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._gate = gate
        self._lost = lost
        self._noted = noted
        self._seen: tuple[bytes, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self.looked_at = 0.0
        """When the last look began, by the monotonic clock."""
        self.renews = False
        """Whether this process writes it anew: it reconciles."""

    def start(self) -> None:
        """Watch in the background, until closed."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="jobqueue-guard-epoch")

    async def close(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Compare the store's epoch with that seen before. Raises `JobQueueError`."""
        self.looked_at = SYSTEM_CLOCK.monotonic()
        (document,) = await self._store.read_documents(SPACE, [NAME])
        if document is None:
            change = Change(NAME, 0, random_secret(16))
            await self._store.write_documents(SPACE, [change])  # somebody else may be first
            (document,) = await self._store.read_documents(SPACE, [NAME])
            if document is None:
                return
        now = (document.data, document.version)
        if self._seen is None:
            beat = await self._gate.ask(self._ledger.beat)
            if beat.epoch is not None:
                self._seen = (beat.epoch, beat.version)
        seen, self._seen = self._seen, now
        if seen is None:
            await self._gate.ask(self._ledger.note_epoch, *now, lost=False)
        elif seen[0] != now[0] or seen[1] > now[1]:
            log.warning(
                "the store was %s: its jobs are compared now", "wiped" if seen[0] != now[0] else "set back"
            )
            self._lost()
            await self._gate.ask(self._ledger.note_epoch, *now, lost=True)
            self._noted()
        elif self.renews:
            made = await self._store.write_documents(SPACE, [Change(NAME, now[1], now[0])])
            if made[0] is not None:
                self._seen = (now[0], made[0])
                await self._gate.ask(self._ledger.note_epoch, *self._current(), lost=False)

    def _current(self) -> tuple[bytes, int]:
        assert self._seen is not None
        return self._seen

    async def try_to_look(self, within: float = 0.0) -> None:
        """Look, unless that was done in the last seconds. A fault is that of the next call, or of none."""
        if SYSTEM_CLOCK.monotonic() < self.looked_at + within:
            return
        try:
            await self.look()
        except LedgerAwayError:
            pass  # the gate has told it
        except JobQueueError as error:
            log.debug("looking at the epoch failed: %s", error)

    async def _watch(self) -> None:
        while True:
            await self.try_to_look()
            await SYSTEM_CLOCK.sleep(EVERY)
