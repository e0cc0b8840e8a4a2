"""The memory store: the `Engine` behind the contract, in one process.

It is the executable specification of the contract. No call awaits anything inside a step, and a lock
around each step makes one store usable from several threads (leases are renewed from one).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.runtime.forks import tell_in_child
from jobqueue.storage import arguments
from jobqueue.storage.contract import Sink
from jobqueue.storage.engine.engine import Engine
from jobqueue.storage.engine.wakeups import WakeUps
from jobqueue.storage.values import (
    AdmissionInfo,
    CancelStatus,
    Change,
    CheckedJob,
    Counts,
    Document,
    DocumentPage,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    Rules,
    Swept,
    UpdateTtlStatus,
    Usage,
    WorkerInfo,
)

__all__ = ["MemoryStorage"]

TOLERANCE = 0.5
"""Seconds that the two clocks may drift apart before the wall clock counts as set."""


class MemoryStorage:
    """Keeps jobs in this process; they live as long as this object.

    For tests, development and work that may be lost with the process. Queues that are to share jobs
    must be given the same object.

    Leases, locks and TTLs last as long as they should when the wall clock is set; the times at which jobs are
    due are instants of the wall clock, and follow it.
    """

    batched = False
    shared = False

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self._engine = Engine()
        self._lock = threading.Lock()
        self._hints = WakeUps(clock)
        self._opened = 0
        self._in_child = False
        self._monotonic = clock.monotonic
        self._ahead = clock.time() - clock.monotonic()
        """Seconds from the monotonic clock to the store's time."""

    def __repr__(self) -> str:
        return "MemoryStorage()"

    @property
    def answers_at_once(self) -> bool:
        """True, but for classes built on this one, whose calls may suspend."""
        return type(self) is MemoryStorage

    def _now(self) -> int:
        """Return the store's time, after following a wall clock that was set."""
        if not self._opened:
            self._check_open()  # raises
        now = self._monotonic()
        ahead = self.clock.time() - now
        if not -TOLERANCE < ahead - self._ahead < TOLERANCE:
            with self._lock:
                self._engine.shift(round((ahead - self._ahead) * 1000))
                self._ahead = ahead
        return int((now + self._ahead) * 1000)

    def _check_open(self) -> None:
        if not self._opened:
            self._check_process()
            raise StorageError("the memory store is not open: call open() first")

    def _publish(self) -> None:
        """Deliver the engine's notifications. Within the lock: the effects are one object, used again."""
        effects = self._engine.effects
        if effects:
            self._hints.publish(effects)
            effects.clear()

    def _check_process(self) -> None:
        if self._in_child:
            raise StorageError(
                "this memory store was opened before a fork, and its jobs are the parent's: "
                "make a new MemoryStorage in the child process, or use a store that processes share"
            )

    def forked(self) -> None:
        """Refuse use in a forked child: jobs would run twice, and the lock may never be let go."""
        self._in_child = True
        self._opened = 0

    async def open(self) -> None:
        self._check_process()
        tell_in_child(self)
        with self._lock:
            self._opened += 1

    async def close(self) -> None:
        if self._in_child:
            return  # it has nothing of its own to close
        with self._lock:
            self._opened = max(0, self._opened - 1)

    def clone(self) -> Self:
        return self

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        kind = type(jobs)
        if kind is not tuple or len(jobs) != 1 or type(jobs[0]) is not CheckedJob:
            arguments.check_insert(queue, jobs, reply_to, max_length)
        if not self._opened:
            self._check_open()  # raises
        monotonic = self._monotonic  # called so, as in `Timers.start`
        now = int((monotonic() + self._ahead) * 1000)  # `_now`, but for a clock that was set just now
        self._lock.acquire()  # `with` would take 3 % of an insert
        try:
            answers = self._engine.insert(queue, jobs, now, reply_to, max_length)
            woken = self._engine.effects.woken  # all that an insert can tell
            if woken:
                if self._hints.topics:
                    self._publish()
                woken.clear()
        finally:
            self._lock.release()
        return answers

    async def get(
        self,
        queue: str,
        ids: Sequence[str],
        *,
        reply_to: str | None = None,
        payload: bool = False,
        letters: bool = False,
    ) -> list[Record | None]:
        arguments.check_get(queue, ids, reply_to, payload=payload, letters=letters)
        now = self._now()
        with self._lock:
            return self._engine.get(queue, ids, now, reply_to=reply_to, payload=payload, letters=letters)

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        arguments.check_exchange(queue, worker, settlements, limit, lease)
        now = self._now()
        with self._lock:
            answer = self._engine.exchange(queue, worker, settlements, limit, lease, now)
            self._publish()
        return answer

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        arguments.check_extend(queue, worker, leases, lease)
        now = self._now()
        with self._lock:
            return self._engine.extend(queue, worker, leases, lease, now)

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        arguments.check_limit(queue, limit)
        now = self._now()
        with self._lock:
            swept = self._engine.sweep(queue, limit, now)
            self._publish()
        return swept

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        arguments.check_cancel(queue, ids, running)
        now = self._now()
        with self._lock:
            statuses = self._engine.cancel(queue, ids, now, running=running)
            self._publish()
        return statuses

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        arguments.check_keep(queue, ttls)
        now = self._now()
        with self._lock:
            return self._engine.set_ttl(queue, ttls, now)

    async def purge(self, queue: str, limit: int) -> int:
        arguments.check_limit(queue, limit)
        now = self._now()
        with self._lock:
            return self._engine.purge(queue, limit, now)

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        arguments.check_scan(queue, state, limit, cursor)
        now = self._now()
        with self._lock:
            return self._engine.scan(queue, state, limit, now, cursor)

    async def counts(self, queue: str) -> Counts:
        arguments.check_queue(queue)
        now = self._now()
        with self._lock:
            return self._engine.counts(queue, now)

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues in which a sweep would find something; see `jobqueue.storage.capabilities`."""
        arguments.check_queues(queues)
        now = self._now()
        with self._lock:
            return self._engine.to_sweep(queues, now)

    async def ended(self, queue: str) -> int:
        """Return how many jobs have ended; see `jobqueue.storage.capabilities`."""
        arguments.check_queue(queue)
        self._now()
        with self._lock:
            return self._engine.ended(queue)

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Run failed jobs again; see `jobqueue.storage.capabilities.Revival`."""
        arguments.check_revive(queue, ids, delay, payload)
        now = self._now()
        with self._lock:
            revived = self._engine.revive(queue, ids, now, delay, payload)
            self._publish()
        return revived

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete records before their time; see `jobqueue.storage.capabilities.Revival`."""
        arguments.check_forget(queue, ids)
        now = self._now()
        with self._lock:
            forgotten = self._engine.forget(queue, ids, now)
            self._publish()
        return forgotten

    async def set_rules(self, queue: str, rules: Rules | None, *, expected: Rules | None = None) -> bool:
        """Replace the rules of a queue; see `jobqueue.storage.capabilities.Admission`."""
        arguments.check_set_rules(queue, rules, expected)
        now = self._now()
        with self._lock:
            replaced = self._engine.set_rules(queue, rules, now, expected=expected)
            self._publish()
        return replaced

    async def get_rules(self, queue: str, *, counted: bool = True) -> AdmissionInfo:
        """Return the rules of a queue; see `jobqueue.storage.capabilities.Admission`."""
        arguments.check_queue(queue)
        del counted  # it costs nothing here
        now = self._now()
        with self._lock:
            return self._engine.get_rules(queue, now)

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where groups stand; see `jobqueue.storage.capabilities.Limiting`."""
        arguments.check_usage(queue, groups)
        now = self._now()
        with self._lock:
            return self._engine.usage(queue, groups, now)

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read documents; see `jobqueue.storage.capabilities.Documents`."""
        arguments.check_read_documents(space, names)
        self._now()
        with self._lock:
            return self._engine.documents.read(space, names)

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        """Change documents; see `jobqueue.storage.capabilities.Documents`."""
        arguments.check_write_documents(space, changes)
        self._now()
        with self._lock:
            return self._engine.write_documents(space, changes)

    async def list_documents(self, space: str, limit: int, cursor: str | None = None) -> DocumentPage:
        """List documents; see `jobqueue.storage.capabilities.Documents`."""
        arguments.check_list_documents(space, limit, cursor)
        self._now()
        with self._lock:
            return self._engine.documents.list(space, limit, cursor)

    async def queues(self) -> list[str]:
        self._now()
        with self._lock:
            return self._engine.queues()

    async def workers(self, queue: str) -> list[WorkerInfo]:
        arguments.check_queue(queue)
        now = self._now()
        with self._lock:
            return self._engine.workers(queue, now)

    async def wait_for_work(self, queue: str, worker: str, timeout: float) -> bool:
        arguments.check_wait_for_work(queue, worker, timeout)
        now = self._now()
        # The waiter stands before the look: work that comes between the two still wakes it.
        with self._hints.waiting(("work", queue)) as hint:
            with self._lock:
                due = self._engine.work_in(queue, now)
            return due == 0 or await self._hints.wait(hint, timeout, due)

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        self._now()
        self._hints.subscribe(queue, address, sink)

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        self._hints.unsubscribe(queue, address, sink)

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        arguments.check_acquire(lock, owner, ttl)
        now = self._now()
        with self._lock:
            return self._engine.lock_acquire(lock, owner, ttl, now)

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        arguments.check_acquire(lock, owner, ttl)
        now = self._now()
        with self._lock:
            return self._engine.lock_renew(lock, owner, ttl, now)

    async def lock_release(self, lock: str, owner: str) -> bool:
        arguments.check_owner(lock, owner)
        now = self._now()
        with self._lock:
            released = self._engine.lock_release(lock, owner, now)
            self._publish()
        return released

    async def lock_holder(self, lock: str) -> LockInfo | None:
        arguments.check_lock(lock)
        now = self._now()
        with self._lock:
            return self._engine.lock_holder(lock, now)

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        arguments.check_wait_for_lock(lock, timeout)
        now = self._now()
        with self._hints.waiting(("lock", lock)) as hint:
            with self._lock:
                free = self._engine.lock_holder(lock, now) is None
            return free or await self._hints.wait(hint, timeout)
