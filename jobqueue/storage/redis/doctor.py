"""Finds faults of a server and of the data on it, for ``jobqueue doctor`` and ``jobqueue fsck``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.model.numbers import percentile
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.redis.keys import lock_key, queues_key
from jobqueue.storage.redis.net.faults import RIGHTS, RefusedError
from jobqueue.storage.redis.net.server_checks import judge_all, judge_rights
from jobqueue.storage.redis.open_store import OpenStore, Settings
from jobqueue.storage.values import NewJob

__all__ = ["Breach", "check_queue", "diagnose"]

_PINGS = 50
_SLOW, _SKEW, _PUSHED_WITHIN = 0.010, 1.0, 2.0
_MOST_BREACHES = 1000
_SOURCES = (
    "jobs",
    "running",
    "ready",
    "prio",
    "scheduled",
    "failing",
    "completed",
    "failed",
    "cancelled",
    "lines",
    "groups",
    "expiring",
)


@dataclass(frozen=True, slots=True)
class Breach(Finding):
    """A contradiction within the data of a queue: always an error, since a sound store has none."""

    queue: str
    id: str | None
    """The job concerned; ``None`` if it is about the queue."""

    @classmethod
    def of(cls, queue: str, id: str | None, problem: str) -> Self:
        """Make the finding about a job, or about the queue."""
        name = queue if id is None else f"{queue}: {id}"
        return cls(name, Severity.ERROR, problem, queue, id)

    @property
    def problem(self) -> str:
        """The fault: the ``text`` of the finding."""
        return self.text


async def diagnose(session: OpenStore, settings: Settings) -> list[Finding]:
    """Check the server, the latency to it, and the rights of this user."""
    return [
        *judge_all(await session.infos(), allow_eviction=settings.allow_eviction),
        await _unless_refused("latency", _round_trip(session)),
        await _unless_refused("clock", _clock(session)),
        await _rights(session, settings.prefix),
    ]


async def _unless_refused(name: str, look: Awaitable[Finding]) -> Finding:
    try:
        return await look
    except RefusedError as error:
        return Finding(name, Severity.WARNING, f"cannot be looked at: {error}")


async def _round_trip(session: OpenStore) -> Finding:
    times: list[float] = []
    for _ in range(_PINGS):
        start = SYSTEM_CLOCK.monotonic()
        await session.transport.command(b"PING")
        times.append(SYSTEM_CLOCK.monotonic() - start)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    text = f"round trip p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms"
    if p50 > _SLOW:
        return Finding("latency", Severity.WARNING, f"{text}: run workers closer to the server")
    return Finding("latency", Severity.OK, text)


async def _clock(session: OpenStore) -> Finding:
    seconds, micros = await session.transport.command(b"TIME")
    skew = int(seconds) + int(micros) / 1e6 - SYSTEM_CLOCK.time()
    text = f"the server's clock is {abs(skew):.3f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) > _SKEW:
        return Finding("clock", Severity.WARNING, f"{text}: run_at times will be off by that, set it by NTP")
    return Finding("clock", Severity.OK, text)


async def _rights(session: OpenStore, prefix: str) -> Finding:
    try:
        found = judge_rights(await session.refused())
        if found.severity is not Severity.OK:
            return found
        late = await _live_through(session, prefix, f"doctor-{unique_id()}")
    except JobQueueError as error:
        return Finding("rights", Severity.ERROR, str(error))
    if late:
        text = f"a job was stored, claimed and completed, but {'; '.join(late)}. {RIGHTS}"
        return Finding("rights", Severity.WARNING, text)
    return Finding("rights", Severity.OK, "a job was stored, claimed, completed, pushed and deleted")


async def _live_through(session: OpenStore, prefix: str, queue: str) -> list[str]:
    """Run a job of a new queue and take a lock; return the parts that only come late, by polling."""
    pushed, steps, late = _Pushed(), session.steps, list[str]()
    channels = (steps.channel(queue, "doctor"), steps.lock_channel(queue))
    try:
        for channel in channels:
            await session.pubsub.subscribe(channel, pushed)
        await steps.insert(queue, [NewJob("probe", b"", ttl=0, wait=True)], "doctor", None)
        session.names.used(queue, b"")
        await session.names.added(queue)
        try:
            keys = steps.keys(queue)
            wake_up = (b"BLMOVE", keys.ready, keys.staged, b"LEFT", b"RIGHT", b"0.01")
            await session.transport.command(*wake_up, key=keys.ready)
        except RefusedError as error:
            late.append(f"idle workers look for jobs every second: {error.__cause__}")
        answer = await steps.exchange(queue, "doctor", (), 1, 1000)
        settlements = [Settlement(job.id, job.fence, Action.COMPLETE) for job in answer.jobs]
        await steps.exchange(queue, "doctor", settlements, 0, 1000)
        await steps.lock_acquire(queue, "doctor", 1000)
        await steps.lock_release(queue, "doctor")
        if not settlements:
            raise StorageError("a job that was stored could not be claimed")
        if not await pushed.within(_PUSHED_WITHIN, times=len(channels)):
            reason = session.pubsub.refusal or f"nothing came within {_PUSHED_WITHIN:g} s"
            late.append(f"results are not pushed, waiters poll: {reason}")
    finally:
        for channel in channels:
            session.pubsub.unsubscribe(channel, pushed)
        with suppress(JobQueueError):
            lock = lock_key(prefix, queue)
            await session.transport.command(b"DEL", *steps.keys(queue), key=steps.keys(queue).jobs)
            await session.transport.command(b"DEL", lock, key=lock)
            await session.names.remove(queue)
    return late


class _Pushed:
    """Counts messages."""

    def __init__(self) -> None:
        self._came = asyncio.Semaphore(0)

    def message(self, data: bytes) -> None:  # noqa: ARG002
        self._came.release()

    def resync(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def within(self, seconds: float, *, times: int) -> bool:
        """Wait until so many have come; return False if they do not in time."""
        try:
            async with asyncio.timeout(seconds):
                for _ in range(times):
                    await self._came.acquire()
        except TimeoutError:
            return False
        return True


async def check_queue(session: OpenStore, prefix: str, queue: str) -> list[Breach]:
    """Check every record and every index of a queue, while it is used."""
    found: dict[Breach, None] = {}
    for source in (*_SOURCES, "totals"):
        cursor = b"0"
        while len(found) < _MOST_BREACHES:
            cursor, pairs = await session.steps.fsck(queue, source, cursor)
            found.update(dict.fromkeys(Breach.of(queue, id, problem) for id, problem in pairs))
            if cursor == b"0":
                break
    keys = session.steps.keys(queue)
    exists = await session.transport.command(b"EXISTS", keys.jobs, key=keys.jobs)
    names = queues_key(prefix)
    named = await session.transport.command(b"SISMEMBER", names, queue.encode(), key=names)
    if exists and not named:
        found[Breach.of(queue, None, "the queue is not in the set of queues: no reaper sees it")] = None
    return list(found)
