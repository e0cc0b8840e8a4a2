"""Looks at stores, asked for from any thread, without ever holding up an event loop or waiting for long.

A store is asked in the event loop in which it was opened, for `PATIENCE` seconds at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress

from jobqueue.maintenance.reaper import Reaper
from jobqueue.observe.gauges import StoreGauges, read_gauges
from jobqueue.observe.metrics import MAX_QUEUES
from jobqueue.observe.sources import Part
from jobqueue.queue import Queue
from jobqueue.runtime.bounded import within
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.lifecycle import loop_of
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Storage

__all__ = ["Look", "looks_at", "wait_for", "wait_in_loop"]

PATIENCE = 2.0
"""Seconds that the store gets to answer."""
WAIT = PATIENCE + 0.5
"""Seconds that one waits for this, also if the event loop stands still."""
FRESH = 1.0
"""Seconds for which a look is good, however many ask."""
STALE = 300.0
"""Seconds after which the figures of a look are no longer shown."""

log = get_logger("jobqueue")


class Look:
    """The figures of one store, as it was last found. `ask`, `latest` and `lag` are for any thread."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.parts: list[Part] = []
        self.lag: float | None = None
        self._found: StoreGauges | None = None
        self._at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def ask(self) -> Future[None] | None:
        """Have the store asked in its event loop; ``None`` if it was lately, or cannot be."""
        loop = loop_of(self.parts[0])
        if loop is None or self._age() < FRESH:
            return None
        call = self._refresh()
        try:
            return asyncio.run_coroutine_threadsafe(call, loop)
        except RuntimeError:  # the loop has ended since
            call.close()
            return None

    def latest(self) -> StoreGauges | None:
        """Return what was found last, unless that is long ago."""
        return self._found if self._age() < STALE else None

    def _age(self) -> float:
        return STALE if self._found is None else SYSTEM_CLOCK.monotonic() - self._at

    async def _refresh(self) -> None:
        """Ask, or wait for the answer that others have asked for."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="jobqueue-metrics")
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        names = {part.name: None for part in self.parts if isinstance(part, Queue)}
        reapers = [part for part in self.parts if isinstance(part, Reaper)]
        names |= {name: None for reaper in reapers for name in reaper.queues or ()}
        more = MAX_QUEUES if any(reaper.queues is None for reaper in reapers) else 0
        lags = [lag for reaper in reapers if (lag := reaper.schedule_lag) is not None]
        try:
            found = await within(SYSTEM_CLOCK, read_gauges(self.storage, names, more), PATIENCE)
        except TimeoutError:
            found = StoreGauges(up=False)
        except Exception:  # the store may be anybody's
            log.exception("the store could not be asked for metrics")
            found = StoreGauges(up=False)
        self.lag = max(lags, default=None)
        self._found, self._at = found, SYSTEM_CLOCK.monotonic()


def wait_for(asked: Iterable[Future[None]]) -> None:
    """Wait for looks, unless this thread runs an event loop, which must not stand still."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        until = SYSTEM_CLOCK.monotonic() + WAIT
        for look in asked:
            with suppress(FutureTimeoutError, asyncio.CancelledError):
                look.result(max(0.0, until - SYSTEM_CLOCK.monotonic()))


async def wait_in_loop(asked: Iterable[Future[None]]) -> None:
    """Wait for looks, within an event loop."""
    waits = [asyncio.wrap_future(look) for look in asked]
    if waits:
        await asyncio.wait(waits, timeout=WAIT)


def looks_at(parts: Iterable[Part], known: dict[int, Look]) -> dict[int, Look]:
    """Return a look at each store of what is started, those that are known already; by identity."""
    stores: dict[int, tuple[Storage, list[Part]]] = {}
    for part in parts:
        if loop_of(part) is not None:
            stores.setdefault(id(part.storage), (part.storage, []))[1].append(part)
    looks: dict[int, Look] = {}
    for key, (storage, mine) in stores.items():
        look = known.get(key)
        looks[key] = look if look is not None and look.storage is storage else Look(storage)
        looks[key].parts = mine
    return looks
