"""Keeps the set of queue names, through which reapers and listings find the queues.

On a cluster the set may be on another node than a queue, so that no script can change both at once: a
failover of that node, or the death of a process between two commands, can lose a name. A queue in use is
therefore added again and again: when the queue does not know the caller, which is new or has been forgotten
with an emptied queue, and once a minute. A new queue is added before its first insertion returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from jobqueue.errors import JobQueueError
from jobqueue.model.checks import check_queue_name
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.redis.keys import queues_key
from jobqueue.storage.redis.net.notices import warn_once
from jobqueue.storage.redis.net.transport import Transport
from jobqueue.storage.redis.scripted_calls import ScriptedCalls

__all__ = ["QueueNames", "readable_names"]

log = get_logger("jobqueue.storage.redis")

_TRUSTED_FOR = 60.0
_WAIT = 1.0
"""Seconds that the first insertion waits for the name of its queue: the jobs are stored already."""
_MOST = 10_000


def readable_names(names: Iterable[bytes]) -> list[str]:
    """Return the names of queues, sorted. Leaves out other entries of the set, and logs them once."""
    found: list[str] = []
    for name in names:
        try:
            found.append(check_queue_name(name.decode()))
        except ValueError:  # of the decoding, and of the check
            warn_once(f"the set of queue names holds {name!r:.200}, which is no queue: remove it")
    return sorted(found)


class QueueNames:
    """Adds queues to the set of names, and removes those without records."""

    def __init__(self, transport: Transport, steps: ScriptedCalls, prefix: str) -> None:
        self._transport = transport
        self._steps = steps
        self._key = queues_key(prefix)
        self._trusted: dict[str, float] = {}
        self._adding: dict[str, asyncio.Task[None]] = {}

    def used(self, queue: str, mark: bytes) -> None:
        """Add a queue that is in use, in the background, unless this was done lately.

        Its ``mark`` is empty if it was never added, and ``new`` if it does not know the caller.
        """
        if mark == b"1" and self._trusted.get(queue, 0.0) > SYSTEM_CLOCK.monotonic():
            return
        if queue not in self._adding:
            task = asyncio.create_task(self._add(queue, marked=bool(mark)), name="jobqueue-redis-naming")
            self._adding[queue] = task
            task.add_done_callback(lambda _: self._adding.pop(queue, None))

    async def added(self, queue: str) -> None:
        """Wait for an addition under way, for a bounded time."""
        adding = self._adding.get(queue)
        if adding is not None:
            await asyncio.wait([adding], timeout=_WAIT)

    async def remove(self, queue: str) -> None:
        """Remove a queue without records."""
        self._trusted.pop(queue, None)
        jobs = self._steps.keys(queue).jobs
        await self._transport.command(b"SREM", self._key, queue.encode(), key=self._key)
        if await self._transport.command(b"EXISTS", jobs, key=jobs):  # a producer was faster
            await self._transport.command(b"SADD", self._key, queue.encode(), key=self._key)

    async def close(self) -> None:
        """Cancel what is under way: a later use of the queues will add them."""
        for task in tuple(self._adding.values()):
            task.cancel()
            await asyncio.wait([task])

    async def _add(self, queue: str, *, marked: bool) -> None:
        try:
            await self._transport.command(b"SADD", self._key, queue.encode(), key=self._key)
            if not marked:
                meta = self._steps.keys(queue).meta
                await self._transport.command(b"HSET", meta, b"named", b"1", key=meta)
        except JobQueueError as error:
            log.warning(
                "queue %r is not in the list of queues yet, so that no reaper finds it; its next use tries "
                "again: %s", queue, error,
            )  # fmt: skip
            return
        if len(self._trusted) >= _MOST:  # a cache, not a registry
            self._trusted.clear()
        self._trusted[queue] = SYSTEM_CLOCK.monotonic() + _TRUSTED_FOR
