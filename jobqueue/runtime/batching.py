"""Group commit: calls made while one is in flight join the next batch.

One round trip (or disk sync) then serves a hundred callers. An idle batcher sends at once, together
with whatever the callers of the same turn of the event loop ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

from jobqueue.errors import InvalidArgumentError, StorageUnavailableError

__all__ = ["MOST_BYTES", "MOST_ITEMS", "Batcher", "fitting"]

T = TypeVar("T")
R = TypeVar("R")


MOST_ITEMS = 500
"""Largest number of items in a batch, a page or a piece, wherever calls are merged or cut."""
MOST_BYTES = 1 << 20
"""Largest number of bytes in a batch, as no call may keep a store busy for long; a larger item goes alone."""


def fitting(sizes: Iterable[int]) -> int:
    """Return how many of the first items fit into a batch by their bytes: at least one of any."""
    sizes = list(sizes)
    if sum(sizes) <= MOST_BYTES:  # nearly always
        return len(sizes)
    count = total = 0
    for size in sizes:
        total += size
        if total > MOST_BYTES and count:
            break
        count += 1
    return count


_item: Callable[[tuple[Any, Any]], Any] = itemgetter(0)


class Batcher(Generic[T, R]):
    """Merges single calls into calls of ``send`` with up to ``limit`` items, in one event loop.

    With ``sizes``, which returns the bytes of items, a batch has no more than `MOST_BYTES`. With ``later``,
    an answer of ``None`` is none: the item and its future are given to that function. A caller that is
    cancelled leaves its batch; the item is sent all the same, if it was on its way.
    """

    def __init__(
        self,
        send: Callable[[Sequence[T]], Awaitable[Sequence[R | None]]],
        limit: int = MOST_ITEMS,
        sizes: Callable[[Iterable[T]], Iterable[int]] | None = None,
        later: Callable[[T, asyncio.Future[R]], None] | None = None,
    ) -> None:
        self._send = send
        self._later = later
        self._limit = limit
        self._sizes = sizes
        self._queued: list[tuple[T, asyncio.Future[R]]] = []
        self._sender: asyncio.Task[None] | None = None
        # Looked up once: on CPython 3.11 each time is a system call.
        self._future: Callable[[], asyncio.Future[R]] = asyncio.get_running_loop().create_future

    def call(self, item: T) -> asyncio.Future[R]:
        """Send one item with the next batch; the future gets its answer, or that batch's error."""
        future = self._future()
        self._queued.append((item, future))
        if self._sender is None:
            sender = asyncio.create_task(self._run(), name="jobqueue-batch")
            if not sender.done():  # an eager task may have ended before it is returned
                self._sender = sender
                sender.add_done_callback(self._gone)
        return future

    async def drain(self) -> None:
        """Wait until all calls so far are answered."""
        while self._sender is not None:
            await asyncio.wait([self._sender])

    async def close(self) -> None:
        """Answer the open calls with an error."""
        sender = self._sender
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender])
            self._gone(sender)

    async def _run(self) -> None:
        try:
            while self._queued:
                batch = self._queued[: self._limit]
                if self._sizes is not None and len(batch) > 1:
                    batch = batch[: fitting(self._sizes(map(_item, batch)))]
                self._queued = self._queued[len(batch) :]
                batch = [entry for entry in batch if not entry[1].cancelled()]
                if batch:
                    await self._send_batch(batch)
        finally:
            self._end()

    def _gone(self, sender: asyncio.Task[None]) -> None:
        if self._sender is sender:  # it was cancelled before its first step, and never came to its end
            self._end()

    def _end(self) -> None:
        self._sender = None
        left, self._queued = self._queued, []  # only if the sender was cancelled
        _fail(left, _GONE)

    async def _send_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers: Sequence[Any] = await self._send(list(map(_item, batch)))
            for (item, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if answer is None and self._later is not None:
                    self._later(item, future)
                else:
                    future.set_result(answer)  # pyright: ignore[reportArgumentType] - else R has None
        except InvalidArgumentError as error:
            if len(batch) > 1:
                await self._send_each(batch)
            else:
                _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - it is the callers'
            # Each caller gets the same error object: a traceback is all that they share.
            _fail(batch, error)
        except BaseException:
            _fail(batch, _GONE)
            raise

    async def _send_each(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        """Send items one by one: one of them was refused, and that must not fail the others."""
        try:
            for entry in batch:
                await self._send_batch([entry])
        finally:
            _fail(batch, _GONE)  # those that were not sent, because this was cancelled


_GONE = (
    "the call was cut off, as by a stop of its queue, before the store answered: it may have been done or not"
)


def _fail(batch: Sequence[tuple[T, asyncio.Future[R]]], error: Exception | str) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(StorageUnavailableError(error) if isinstance(error, str) else error)
