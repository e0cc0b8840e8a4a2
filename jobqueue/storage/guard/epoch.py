"""Notices that the store was wiped, or set back to an older state, by a document that every process watches.

The document holds a random value, written when there is none: a wiped store has another one. Whoever
reconciles writes it anew every second, so its version rises: a store that was set back has a lower one than
was seen before. Who notices that gives the store another value, so that everybody does.
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

__all__ = ["LEAST_DOUBT", "Epoch"]

SPACE, NAME = "jobqueue-guard", "epoch"
LEAST_DOUBT = 600_000
"""Milliseconds after a loss in which what the store does not have is looked for in the ledger, at least."""
EVERY = 1.0
"""Seconds between two looks, and between two versions."""

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
        self._to_note = False
        """Whether the ledger has yet to be told of a loss: a call that found one may be cut off."""
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._begun = self._ended = 0
        """Numbers of the last look that has begun, and of the last that has ended."""
        self._renewed_at = float("-inf")
        self.looked_at = float("-inf")
        """When the last look began that has ended, by the monotonic clock."""
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
        """Compare the store's epoch with that seen before. Raises `JobQueueError`.

        Callers share a look that begins after they have asked for one.
        """
        asked = self._begun
        async with self._turn:
            if self._ended > asked:
                return
            self._begun += 1
            number, began = self._begun, SYSTEM_CLOCK.monotonic()
            try:
                await self._look()
            except LedgerAwayError:
                self._ended, self.looked_at = number, began  # nobody else waits for the ledger, too
                raise
            self._ended, self.looked_at = number, began

    async def _look(self) -> None:
        # In this order: a version that another process writes and notes between the two would look like one
        # that the store has lost.
        known = self._seen or await self._known()
        now = await self._present()
        if now is None:
            return
        if known is None:
            await self._gate.ask(self._ledger.note_epoch, *now, lost=False)
        self._seen = seen = known or now
        if seen[0] != now[0] or seen[1] > now[1]:
            was_wiped = seen[0] != now[0]
            log.warning("the store was %s: its jobs are compared now", "wiped" if was_wiped else "set back")
            self._to_note = True
            self._lost()
            self._seen = now if was_wiped else (b"", now[1])
        if self._seen[0] != now[0]:
            now = await self._renew(now, random_secret(16)) or now
            self._seen = now
        elif self.renews and SYSTEM_CLOCK.monotonic() >= self._renewed_at + EVERY * 0.9:
            self._renewed_at = SYSTEM_CLOCK.monotonic()
            made = await self._renew(now, now[0])
            if made is not None:
                self._seen = now = made
                if not self._to_note:
                    await self._gate.ask(self._ledger.note_epoch, *now, lost=False)
        else:
            self._seen = now
        if self._to_note:
            await self._gate.ask(self._ledger.note_epoch, *now, lost=True, doubt=LEAST_DOUBT)
            self._to_note = False
            self._noted()

    async def _known(self) -> tuple[bytes, int] | None:
        """Return the value and version that the ledger has heard of."""
        beat = await self._gate.ask(self._ledger.beat)
        return None if beat.epoch is None else (beat.epoch, beat.version)

    async def _present(self) -> tuple[bytes, int] | None:
        """Return the value and version that the store has; it gets one if it has none."""
        (document,) = await self._store.read_documents(SPACE, [NAME])
        if document is None:
            await self._store.write_documents(SPACE, [Change(NAME, 0, random_secret(16))])  # or somebody did
            (document,) = await self._store.read_documents(SPACE, [NAME])
        return None if document is None else (document.data, document.version)

    async def _renew(self, now: tuple[bytes, int], value: bytes) -> tuple[bytes, int] | None:
        """Write a value in place of the present one; ``None``: somebody else has written meanwhile."""
        (made,) = await self._store.write_documents(SPACE, [Change(NAME, now[1], value)])
        return None if made is None else (value, made)

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
            try:
                await self.try_to_look()
            except Exception:  # the watch goes on
                log.exception("looking at the epoch failed")
            await SYSTEM_CLOCK.sleep(EVERY)
