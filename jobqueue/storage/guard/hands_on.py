"""The calls that a guarded store hands on: listing, messages, locks, rules, documents, operators' checks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from jobqueue.errors import JobQueueError
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage import arguments
from jobqueue.storage.capabilities import (
    Admission,
    Checkable,
    Diagnosable,
    Documents,
    Finding,
    Hampered,
    HasSchema,
    Limiting,
    Severity,
    Totals,
    require,
)
from jobqueue.storage.contract import Sink, Storage
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.replies import GuardedSink
from jobqueue.storage.guard.session import GuardSession
from jobqueue.storage.opening import LoopBoundStorage
from jobqueue.storage.values import (
    AdmissionInfo,
    Change,
    Counts,
    Document,
    DocumentPage,
    LockInfo,
    Page,
    Rules,
    Usage,
    WorkerInfo,
)

__all__ = ["HandsOn"]


class HandsOn(LoopBoundStorage[GuardSession]):
    """A store around another one, which does what the ledger need not hear of."""

    _inner: Storage
    _ledger: PostgresLedger

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        """List jobs; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.scan(queue, state, limit, cursor)

    async def counts(self, queue: str) -> Counts:
        """Count jobs by state; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.counts(queue)

    async def ended(self, queue: str) -> int:
        """Count ended jobs if the store does, else 0; see `jobqueue.storage.capabilities`."""
        inner = self._open_session().inner
        return await inner.ended(queue) if isinstance(inner, Totals) else 0

    async def queues(self) -> list[str]:
        """Return the names of queues; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.queues()

    async def workers(self, queue: str) -> list[WorkerInfo]:
        """List workers; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.workers(queue)

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Push messages; see `jobqueue.storage.contract`."""
        arguments.check_sink(queue, address, sink)
        session = self._open_session()
        key = (queue, address, id(sink))
        guarded = session.sinks.setdefault(key, GuardedSink(sink, session.numbers))
        await session.inner.subscribe(queue, address, guarded)

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        """Stop pushing; see `jobqueue.storage.contract`."""
        arguments.check_sink(queue, address, sink)
        session = self._open_session()
        guarded = session.sinks.pop((queue, address, id(sink)), None)
        if guarded is not None:
            await session.inner.unsubscribe(queue, address, guarded)

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        """Acquire a lock; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.lock_acquire(lock, owner, ttl)

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        """Renew a lock; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.lock_renew(lock, owner, ttl)

    async def lock_release(self, lock: str, owner: str) -> bool:
        """Release a lock; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.lock_release(lock, owner)

    async def lock_holder(self, lock: str) -> LockInfo | None:
        """Return the holder of a lock; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.lock_holder(lock)

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        """Wait for a lock; see `jobqueue.storage.contract`."""
        return await self._open_session().inner.wait_for_lock(lock, timeout)

    # -- rules ------------------------------------------------------------------------------------------

    async def set_rules(self, queue: str, rules: Rules | None, *, expected: Rules | None = None) -> bool:
        """Replace the rules of a queue; see `jobqueue.storage.capabilities`."""
        return await self._admission().set_rules(queue, rules, expected=expected)

    async def get_rules(self, queue: str, *, counted: bool = True) -> AdmissionInfo:
        """Return the rules of a queue; see `jobqueue.storage.capabilities`."""
        return await self._admission().get_rules(queue, counted=counted)

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where groups stand; see `jobqueue.storage.capabilities`."""
        return await require(self._open_session().inner, Limiting, "limits").usage(queue, groups)

    def _admission(self) -> Admission:
        return require(self._open_session().inner, Admission, "pausing a queue")

    # -- documents ------------------------------------------------------------------------------------

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read documents; see `jobqueue.storage.capabilities`."""
        return await self._documents().read_documents(space, names)

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        """Write documents; see `jobqueue.storage.capabilities`."""
        return await self._documents().write_documents(space, changes)

    async def list_documents(self, space: str, limit: int, cursor: str | None = None) -> DocumentPage:
        """List documents; see `jobqueue.storage.capabilities`."""
        return await self._documents().list_documents(space, limit, cursor)

    def _documents(self) -> Documents:
        return require(self._open_session().inner, Documents, "a guard")

    # -- operators ------------------------------------------------------------------------------------

    async def apply_schema(self) -> tuple[int, int]:
        """Make the tables of the ledger, and those of the store if it has some; the ledger's versions."""
        if isinstance(self._inner, HasSchema):
            await self._inner.apply_schema()
        return await self._ledger.apply_schema()

    async def check_schema(self) -> int:
        """Return the version of the ledger's tables; see `jobqueue.storage.capabilities`."""
        if isinstance(self._inner, HasSchema):
            await self._inner.check_schema()
        async with _connected(self._ledger) as ledger:
            return await ledger.check()

    def schema_script(self) -> str:
        """Return the SQL that makes the tables of the ledger."""
        inner = self._inner.schema_script() + "\n" if isinstance(self._inner, HasSchema) else ""
        return inner + self._ledger.schema_script()

    async def hindrances(self) -> list[Finding]:
        """Tell what hinders the store; see `jobqueue.storage.capabilities`."""
        inner = self._open_session().inner
        return list(await inner.hindrances()) if isinstance(inner, Hampered) else []

    async def diagnose(self) -> list[Finding]:
        """Judge the store and the ledger; see `jobqueue.storage.capabilities`."""
        session = self._open_session()
        inner = session.inner
        findings = list(await inner.diagnose()) if isinstance(inner, Diagnosable) else []
        started = SYSTEM_CLOCK.monotonic()
        try:
            await session.ledger.check()
        except JobQueueError as error:
            return [*findings, Finding("ledger", Severity.ERROR, str(error))]
        millis = (SYSTEM_CLOCK.monotonic() - started) * 1000
        text = f"answers in {millis:.1f} ms; {len(session.outbox)} writes wait for it"
        findings.append(Finding("ledger", Severity.OK, text))
        if not await session.ledger.is_durable():
            text = (
                "synchronous_commit or fsync is off: a crash of PostgreSQL loses the last jobs. "
                "Turn both on for the role and the server of the ledger"
            )
            findings.append(Finding("ledger durability", Severity.WARNING, text))
        return findings

    async def check(self, *, repair: bool = False) -> list[Finding]:
        """Check the data of the store; see `jobqueue.storage.capabilities`."""
        inner = self._inner
        return list(await inner.check(repair=repair)) if isinstance(inner, Checkable) else []


@asynccontextmanager
async def _connected(ledger: PostgresLedger) -> AsyncGenerator[PostgresLedger]:
    twin = ledger.clone()
    twin.open()
    try:
        yield twin
    finally:
        await twin.close()
