"""The store, the reapers and their leader, and the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jobqueue.errors import JobQueueError
from jobqueue.model.names import REAPER_LOCK
from jobqueue.runtime.bounded import within
from jobqueue.stats import reapers
from jobqueue.storage.capabilities import Diagnosable, Finding
from jobqueue.storage.contract import Storage
from jobqueue.web.pages import Page, Visit
from jobqueue.web.source import Source

__all__ = ["facts", "system"]

PATIENCE = 3.0
"""Seconds that a part of the page may take; without its answer the others are shown."""


@runtime_checkable
class _Guarded(Protocol):
    """A store with a guard: `jobqueue.GuardedStorage`, whose packages are not loaded for a look."""

    @property
    def guard(self) -> Any: ...


async def system(visit: Visit) -> Page:
    """Show what the queues stand on."""
    store = await visit.source.store()
    started = store.clock.monotonic()
    await store.lock_holder(REAPER_LOCK)
    latency = store.clock.monotonic() - started
    (findings, trouble), (guard, guard_trouble), sweeping = await asyncio.gather(
        _findings(store), _guard(store), reapers(store)
    )
    return Page(
        "system.html",
        "System",
        {
            "latency": latency,
            "findings": findings,
            "trouble": trouble,
            "reapers": sweeping,
            "shared": store.shared,
            "guarded": isinstance(store, _Guarded),
            "guard": guard,
            "guard_trouble": guard_trouble,
            "streams": visit.board.pulse.streams,
            "max_streams": visit.board.options.max_streams,
        },
        section="system",
        live="system",
    )


async def _findings(store: Storage) -> tuple[Sequence[Finding], str]:
    """Return what the store says of its server, and why that is not known."""
    if not isinstance(store, Diagnosable):
        return (), ""
    try:
        return await within(store.clock, store.diagnose(), PATIENCE), ""
    except JobQueueError as error:
        return (), str(error)
    except TimeoutError:
        return (), f"the check has not ended within {PATIENCE:g} s"


async def _guard(store: Storage) -> tuple[Mapping[str, Any], str]:
    """Return the figures of the guard, if there is one, and why they are not known."""
    if not isinstance(store, _Guarded):
        return {}, ""
    guard = store.guard
    known: dict[str, Any] = {"breaker": guard.breaker, "buffered": guard.buffered}
    try:
        stats = await within(store.clock, guard.stats(), PATIENCE)
    except JobQueueError as error:
        return known, str(error)
    except TimeoutError:
        return known, f"the ledger has not answered within {PATIENCE:g} s"
    return stats._asdict(), ""


async def facts(source: Source, query: Mapping[str, str]) -> dict[str, Hashable]:
    """Return what tells a change."""
    del query
    store = await source.store()
    found: dict[str, Hashable] = {"reapers": tuple((each.id, each.term) for each in await reapers(store))}
    if isinstance(store, _Guarded):
        found["guard"] = tuple((await _guard(store))[0].items())
    return found
