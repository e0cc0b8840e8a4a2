"""Connects a command to the jobs of other processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import click

from jobqueue.cli.exits import Exit, Failure
from jobqueue.cli.loading_bar import announced
from jobqueue.cli.options import SERDES, ledger_url
from jobqueue.queue import Queue
from jobqueue.runtime.text import printable
from jobqueue.storage.capabilities import MadeOnOpening
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import open_storage, redact

__all__ = ["client", "is_missing", "is_used", "opened", "require_queues", "require_shared", "shared_storage"]


def shared_storage(url: str, *, make: bool = False) -> Storage:
    """Return the unopened store of a URL, made to report long loading. Refuses a store of one process.

    Unless it may ``make`` the store, a store that does not exist is refused too.
    """
    storage = announced(open_storage(url, ledger_url()))
    require_shared(storage, redact(url))
    if not make and is_missing(storage):
        raise Failure(
            f"no store at {redact(url)}: check --storage (a worker, or the first job, makes a store)",
            Exit.UNREACHABLE,
        )
    return storage


def is_missing(storage: Storage) -> bool:
    """Return whether the store does not exist yet and `open` would make it."""
    return isinstance(storage, MadeOnOpening) and not storage.exists


async def is_used(store: Storage, name: str) -> bool:
    """Return whether jobs or workers have used the name of a queue."""
    return name in await store.queues() or bool(await store.workers(name))


async def require_queues(store: Storage, names: Iterable[str], url: str) -> None:
    """Refuse a name that neither jobs nor workers have used."""
    for name in names:
        if not await is_used(store, name):
            known = await store.queues()
            held = f"its queues are {', '.join(known)}" if known else "it holds no queue yet"
            raise Failure(f"no queue {name!r} in {redact(url)}: {held}", Exit.NOT_FOUND)


def require_shared(storage: Storage, name: str) -> None:
    """Refuse a store that other processes cannot see."""
    if not storage.shared:
        raise Failure.usage(
            f"{name} lives in one process, so no other one sees its jobs: use a shared store, "
            "for example --storage file:///tmp/jobs or redis://localhost (`jobqueue demo` runs on it)"
        )


@asynccontextmanager
async def opened(storage: Storage) -> AsyncGenerator[Storage]:
    """Open a store, and close it."""
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def client(
    url: str, name: str, serde: str = "json", *, make: bool = False
) -> AsyncGenerator[Queue[Any, Any]]:
    """Start a queue without a handler: it enqueues, asks and waits. Says so if it makes the store."""
    storage, kind = shared_storage(url, make=make), SERDES[serde]
    if is_missing(storage):
        click.echo(printable(f"there is no store at {redact(url)} yet: making it"), err=True)
    async with Queue[Any, Any](storage, name, payload_serde=kind(), result_serde=kind()) as queue:
        yield queue
