"""Connects a command to the jobs of other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from jobqueue.cli.exits import Failure
from jobqueue.cli.opening import announced
from jobqueue.queue import Queue
from jobqueue.serde import JsonSerde, MsgpackSerde, Serde
from jobqueue.storage.base import Storage
from jobqueue.storage.urls import open_storage, redact

__all__ = ["SERDES", "client", "opened", "require_shared", "run_fast", "shared_storage"]

T = TypeVar("T")

SERDES: dict[str, type[Serde[Any]]] = {"json": JsonSerde, "msgpack": MsgpackSerde}


def shared_storage(url: str) -> Storage:
    """Return the unopened store of a URL, if other processes can see it too. It tells of long reading."""
    storage = announced(open_storage(url))
    require_shared(storage, redact(url))
    return storage


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
async def client(url: str, name: str, serde: str = "json") -> AsyncGenerator[Queue[Any, Any]]:
    """Start a queue without a handler: it enqueues, asks and waits."""
    kind = SERDES[serde]
    async with Queue[Any, Any](shared_storage(url), name, payload_serde=kind(), result_serde=kind()) as queue:
        yield queue


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop if it is installed, on asyncio if not."""
    # Chosen before it runs: an error raised while the missing import is handled would show that too.
    return _runner()(main)


def _runner() -> Callable[[Coroutine[Any, Any, T]], T]:
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run
    return uvloop.run
