"""The resources of an open store: connections, subscriptions, background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from jobqueue.errors import JobQueueError, StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.forks import tell_in_child
from jobqueue.runtime.ids import random_secret
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Sink
from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.opening import StoreSession
from jobqueue.storage.pieces import chunks
from jobqueue.storage.redis.data_format import check_format
from jobqueue.storage.redis.keys import SECRET_BYTES, queues_key
from jobqueue.storage.redis.names import QueueNames
from jobqueue.storage.redis.net.cluster import ClusterNodes, ClusterTransport, ShardRoute
from jobqueue.storage.redis.net.confirm import Confirm, check_server
from jobqueue.storage.redis.net.connection import Argument
from jobqueue.storage.redis.net.faults import REFUSALS, RefusedError, code_of
from jobqueue.storage.redis.net.login import Timeouts
from jobqueue.storage.redis.net.notices import warn_once
from jobqueue.storage.redis.net.pubsub import PubSub
from jobqueue.storage.redis.net.routes import SingleRoute
from jobqueue.storage.redis.net.server_checks import (
    is_modern,
    judge_all,
    judge_rights,
    parse_info,
)
from jobqueue.storage.redis.net.single import SingleConnector
from jobqueue.storage.redis.net.target import Target
from jobqueue.storage.redis.net.transport import Connector, Retries, SingleTransport, Transport
from jobqueue.storage.redis.pushes import SinkListener
from jobqueue.storage.redis.scripted_calls import ScriptedCalls, ScriptExchanged
from jobqueue.storage.redis.unlocks import Unlocks
from jobqueue.storage.redis.wakeups import WorkSignal
from jobqueue.storage.values import Claimed

__all__ = ["OpenStore", "Settings"]

_START_FOR = 3.0

log = get_logger("jobqueue.storage.redis")


class Settings:
    """The arguments of a store's constructor."""

    __slots__ = (
        "__weakref__",
        "allow_eviction",
        "clock",
        "confirm",
        "prefix",
        "retry_for",
        "secret",
        "target",
        "timeouts",
    )

    def __init__(
        self,
        target: Target,
        prefix: str,
        clock: Clock,
        timeouts: Timeouts,
        *,
        retry_for: float,
        allow_eviction: bool,
        confirm: Confirm | None,
    ) -> None:
        self.target = target
        self.prefix = prefix
        self.clock = clock
        self.timeouts = timeouts
        self.retry_for = retry_for
        self.allow_eviction = allow_eviction
        self.confirm = confirm
        tell_in_child(self)
        self.forked()

    def forked(self) -> None:
        """Draw the secret of this process."""
        self.secret = random_secret(SECRET_BYTES)
        """The mark of messages to believe: see `pushes`."""


def _connect_by(settings: Settings, retries: Retries) -> tuple[Transport, Connector]:
    """Make the transport: to one server, to the master that Sentinel names, or to a cluster."""
    target, timeouts = settings.target, settings.timeouts
    where = f"Redis at {target}"
    if target.kind == "cluster":
        nodes = ClusterNodes(target, timeouts)
        return ClusterTransport(nodes, retries, where), nodes
    connector: Connector = SingleConnector(target, timeouts)
    if target.kind == "sentinel":
        from jobqueue.storage.redis.net.sentinel import SentinelConnector  # noqa: PLC0415 - it loads redis-py

        connector = SentinelConnector(target, timeouts)
    return SingleTransport(connector, retries, where), connector


class OpenStore(StoreSession):
    """The connections of an open store, in one event loop."""

    def __init__(self, settings: Settings, now: Callable[[], bytes]) -> None:
        super().__init__()
        self._settings = settings
        self._retries = Retries(settings.retry_for)
        self.transport, self._connector = _connect_by(settings, self._retries)
        self.steps = ScriptedCalls(self.transport, settings.prefix, now, settings.secret)
        self.names = QueueNames(self.transport, self.steps, settings.prefix)
        self.pubsub = PubSub(
            SingleRoute(self._connector), settings.timeouts.connect + settings.timeouts.reply
        )
        self.locks = Unlocks(self.pubsub, self.steps, settings.clock)
        self._signals: dict[str, WorkSignal] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._findings: list[Finding] = []
        """What was found at the start and is not told yet: workers and reapers do, not every producer."""

    async def start(self) -> None:
        """Connect, and refuse a server that must not hold jobs, or that refuses a command of the scripts."""
        # Whoever starts wants to hear soon that the address is wrong.
        self._retries.total = min(_START_FOR, self._settings.retry_for)
        infos = await self.infos()
        self._choose_dialect(modern=is_modern(infos))
        for info in infos.values():
            if self._settings.confirm is not None and info is not None:
                check_server(self._settings.confirm, parse_info(info))
        await check_format(self.transport, self._settings.prefix, str(self._settings.target))
        self._retries.total = 0.0  # a server that is busy now is asked by the calls to come
        refused = await self._refused()
        self._retries.total = self._settings.retry_for
        findings = judge_all(infos, allow_eviction=self._settings.allow_eviction)
        self._findings = [*findings, judge_rights(refused)]
        for finding in self._findings:
            if finding.severity is Severity.ERROR:
                raise StorageError(f"{self._settings.target}: {finding.text}")

    async def infos(self) -> dict[str, bytes | None]:
        """Return the INFO of every master by its address: empty where it is refused."""
        try:
            return await self.transport.everywhere(b"INFO")
        except RefusedError:
            return {str(self._settings.target): b""}

    @property
    def clustered(self) -> bool:
        """Whether keys of different queues may be on different nodes."""
        return isinstance(self._connector, ClusterNodes)

    def _choose_dialect(self, *, modern: bool) -> None:
        self.transport.flags = modern
        if isinstance(self._connector, ClusterNodes):
            self.steps.sharded = modern
            self.pubsub.route = ShardRoute(self._connector) if modern else SingleRoute(self._connector)

    async def _refused(self) -> dict[str, str]:
        try:
            return await self.refused()
        except RefusedError:
            raise
        except JobQueueError as error:
            if self.transport.flags and "compiling" in str(error):  # one before 7.0 that did not say so
                self._choose_dialect(modern=False)
                return await self._refused()
            log.debug("rights are not checked now: %s", error)
            return {}

    async def refused(self) -> dict[str, str]:
        """Return the commands of the scripts that the server refuses, with its errors."""
        queues = queues_key(self._settings.prefix)
        await self.transport.command(b"SISMEMBER", queues, b"", key=queues)
        if self._settings.confirm is not None:
            await self.transport.command(*self._settings.confirm.trial)
        return {command: text for command, text in await self.steps.rights() if code_of(text) in REFUSALS}

    def tell_findings(self) -> None:
        """Log the findings about the server, once in a process."""
        findings, self._findings = self._findings, []
        for finding in findings:
            if finding.severity is Severity.WARNING:
                self.warn_once(finding.text)

    async def close(self) -> None:
        """End all connections."""
        self.locks.close()
        await asyncio.gather(*(signal.close() for signal in self._signals.values()))
        if self._background:
            await asyncio.wait(self._background, timeout=1.0)
        for task in self._background:
            task.cancel()
        await self.names.close()
        await self.pubsub.close()
        await self.transport.close()

    def signal(self, queue: str) -> WorkSignal:
        """Return the object that wakes the waiters for work in a queue."""
        signal = self._signals.get(queue)
        if signal is None:
            signal = self._signals[queue] = WorkSignal(
                self._connector,
                self.steps.keys(queue),
                self._settings.clock,
                give_back=lambda: self.steps.unstage(queue),
                unblock=lambda client: self.transport.command(
                    b"CLIENT", b"UNBLOCK", b"%d" % client, key=self.steps.keys(queue).ready
                ),
                until_resumed=lambda timeout: self.locks.wait_for_resume(queue, timeout),
            )
        return signal

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], *, limit: int, lease: int
    ) -> ScriptExchanged:
        """Run the exchange script; if the caller is cancelled, give back the jobs it would have got."""
        if self._findings:
            self.tell_findings()
        step = self.steps.exchange(queue, worker, settlements, limit, lease)
        if limit <= 0:
            answer = await step
        else:
            signal = self.signal(queue)
            signal.begin_exchange()
            claimed: Sequence[Claimed] = ()
            claiming = asyncio.ensure_future(step)
            try:
                answer = await asyncio.shield(claiming)
                claimed = answer.jobs
                signal.closed = answer.held
            except asyncio.CancelledError:
                # The claim may happen all the same; its jobs would wait until their lease ends.
                self.run(self._give_back(claiming, queue, worker, lease), "giving jobs back")
                raise
            finally:
                signal.end_exchange(claimed)
        if answer.mark or answer.jobs or answer.settled:
            self.names.used(queue, answer.mark)
        return answer

    async def claim_on_arrival(
        self, queue: str, worker: str, limit: int, lease: int, timeout: float
    ) -> ScriptExchanged | None:
        """Wait for jobs and claim them in one; ``None``: use `exchange`. As to being cancelled, the same."""
        signal = self.signal(queue)

        def send(script: Sequence[Argument]) -> Awaitable[Any]:
            return signal.claim(script, timeout)

        claiming = asyncio.ensure_future(self.steps.claim_later(queue, worker, limit, lease, send))
        try:
            answer = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            signal.end_claim()
            self.run(self._give_back(claiming, queue, worker, lease), "giving jobs back")
            raise
        if answer is not None:
            signal.closed = answer.held
        if answer is not None and (answer.mark or answer.jobs):
            self.names.used(queue, answer.mark)
        return answer

    async def _give_back(
        self, claiming: Awaitable[ScriptExchanged | None], queue: str, worker: str, lease: int
    ) -> None:
        answer = await claiming
        jobs = () if answer is None else answer.jobs
        releases = [Settlement(job.id, job.fence, Action.RELEASE) for job in jobs]
        for piece in chunks(releases, [0] * len(releases)):
            await self.steps.exchange(queue, worker, piece, 0, lease)

    async def expired(self, queue: str, limit: int) -> list[bytes]:
        """Return up to ``limit`` ids of jobs whose lease has ended, oldest claim first."""
        if self._findings:
            self.tell_findings()
        fences: dict[bytes, bytes] = {}
        cursor = b""
        while cursor != b"0":
            cursor, page = await self.steps.expired(queue, cursor or b"0")
            fences.update((id, fence) for fence, id in page)
        return sorted(fences, key=fences.__getitem__)[: max(0, limit)]

    def listener(self, queue: str, sink: Sink) -> SinkListener:
        """Return the listener that hands messages about a queue to a sink."""
        return SinkListener(queue, sink, self._settings.secret, self.steps.asked, self.run)

    def warn_once(self, text: str) -> None:
        """Log a warning about the server, once in a process."""
        warn_once(f"{self._settings.target}: {text}")

    def run(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Run a coroutine in the background; a failure is logged."""

        async def guarded() -> None:
            try:
                await work
            except JobQueueError as error:
                log.warning("%s failed: %s", what, error)

        task = asyncio.create_task(guarded(), name=f"jobqueue-redis-{what}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
