"""The resources of an open guarded store: the store, the ledger, what runs in the background."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple, TypeVar

from jobqueue.errors import JobQueueError, StorageError, StorageUnavailableError
from jobqueue.model.outcomes import Settlement
from jobqueue.runtime.batching import Batcher
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.capabilities import Documents, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard.epoch import LEAST_DOUBT, Epoch
from jobqueue.storage.guard.gate import Gate, LedgerAwayError, LedgerRefusedError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.notices import Notices
from jobqueue.storage.guard.outbox import Outbox
from jobqueue.storage.guard.reconcile import Reconciler, Reconciling
from jobqueue.storage.guard.replies import GuardedSink, Numbers
from jobqueue.storage.guard.values import Change, History, Known, Written
from jobqueue.storage.opening import StoreSession
from jobqueue.storage.values import Claimed

__all__ = ["Claim", "GuardOptions", "GuardSession"]

T = TypeVar("T")

MOST_CLAIMS = 100_000
"""Claims whose tokens are remembered until they are settled."""

log = get_logger("jobqueue.storage.guard")


class GuardOptions(NamedTuple):
    """The options of a guarded store."""

    reconciling: Reconciling
    refuses: bool
    """Whether nothing is enqueued while the ledger is away."""
    breaker_failures: int
    breaker_reset: float


class Claim(NamedTuple):
    """What the ledger is told at the end of a run."""

    token: str
    worker: str
    attempts: int
    seq: int


class GuardSession(StoreSession):
    """A guarded store from its first opening to its last closing."""

    def __init__(
        self,
        inner: Storage,
        ledger: PostgresLedger,
        options: GuardOptions,
        numbers: Numbers,
        notices: Notices,
        *,
        watches: bool,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.ledger = ledger
        self._options = options
        self._watches = watches
        self._notices = notices
        self.gate = Gate(options.breaker_failures, options.breaker_reset, notices)
        self.outbox = Outbox(ledger, self.gate, notices)
        self.reconciler = Reconciler(inner, ledger, self.gate, options.reconciling, self.now, notices)
        self.epoch = Epoch(
            require(inner, Documents, "a guard"), ledger, self.gate, self._has_lost, self._loss_is_noted
        )
        self.numbers = numbers
        self.sinks: dict[tuple[str, str, int], GuardedSink] = {}
        """By queue, address and the identity of the caller's sink."""
        self._claims: OrderedDict[tuple[str, str, int], Claim] = OrderedDict()
        self._ledger_began: int | None = None
        """The ledger's time when the monotonic clock of this machine began; ``None``: not known yet."""
        self._doubt_until = 0
        self._asks_for_doubt = False
        self.losses = 0
        """How often this process has found the store wiped or set back."""
        self._writes: Batcher[Sequence[Written], LedgerAwayError | None] = Batcher(
            self._write_together, sizes=lambda calls: [sum(one.size for one in jobs) for jobs in calls]
        )
        self._background: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Open both. A ledger that is away is an error only if nothing may be enqueued without it.

        One that answers, and lacks its tables or the rights on them, is always one: nothing would be guarded.
        """
        await self.inner.open()
        self.ledger.open()
        if not self._watches:
            return
        try:
            await self.gate.ask(self.ledger.check)
            await self._learn_doubt()
            await self.epoch.look()
            await self._learn_doubt()
        except LedgerRefusedError as error:
            raise StorageError(str(error)) from error
        except LedgerAwayError:
            if self._options.refuses:
                raise
            self._asks_for_doubt = True
        except JobQueueError as error:
            log.warning("looking at the epoch failed: %s", error)
        self.epoch.start()

    async def close(self) -> None:
        """Write what the ledger does not have yet, and close both."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.inner.close)
            stack.push_async_callback(self.ledger.close)
            stack.push_async_callback(self.outbox.close)
            stack.push_async_callback(self._writes.close)
            stack.push_async_callback(self._end_background)
            stack.push_async_callback(self.epoch.close)

    async def _end_background(self) -> None:
        if self._background:
            await asyncio.wait(self._background)

    def now(self) -> int:
        """Return the ledger's time, in milliseconds: a clock of this machine that is set does not move it."""
        if self._ledger_began is None:
            return int(SYSTEM_CLOCK.time() * 1000)
        return int(SYSTEM_CLOCK.monotonic() * 1000) + self._ledger_began

    # -- losses -------------------------------------------------------------------------------------

    def _has_lost(self) -> None:
        self._doubt_until = max(self._doubt_until, self.now() + LEAST_DOUBT)
        self.losses += 1
        self._notices.tell("store_lost", "the store was wiped or set back: its jobs are compared now")
        self.reconciler.lost()

    def _loss_is_noted(self) -> None:
        self._asks_for_doubt = True
        self.reconciler.lost()  # a comparison that began before took it for none

    @property
    def doubts(self) -> bool:
        """Whether the ledger may remember outcomes that the store has lost, as far as this process knows."""
        return self.now() < self._doubt_until

    async def in_doubt(self) -> bool:
        """Return whether the ledger may remember outcomes that the store has lost."""
        if self._asks_for_doubt:
            try:
                await self._learn_doubt()
            except LedgerAwayError:
                self._asks_for_doubt = True
            except BaseException:  # cut off
                self._asks_for_doubt = True
                raise
        if 0 < self._doubt_until <= self.now():  # it may have been put off since
            self._doubt_until, self._asks_for_doubt = 0, True
        return self.doubts

    async def _learn_doubt(self) -> None:
        self._asks_for_doubt = False
        now, until = await self.gate.ask(self.ledger.doubt)
        before = self.now()
        self._ledger_began = now - int(SYSTEM_CLOCK.monotonic() * 1000)
        if self._doubt_until:  # by the clock of before, which may have been that of this machine
            self._doubt_until += self.now() - before
        self._doubt_until = max(self._doubt_until, until)

    async def known(self, queue: str, ids: Sequence[str], but: Sequence[str] = ()) -> dict[str, Known]:
        """Return the last jobs that the ledger remembers, by id; none while it is away."""
        try:
            found = await self.gate.ask(self.ledger.known, queue, ids, but)
        except LedgerAwayError:
            return {}
        return {known.id: known for known in found}

    async def bring_back(self, queue: str, tokens: Sequence[str]) -> bool:
        """Bring jobs back that the store has lost; return False while the ledger is away."""
        try:
            await self.reconciler.bring_back(queue, tokens, loss=True)
        except LedgerAwayError:
            return False
        return True

    # -- writing ------------------------------------------------------------------------------------

    async def write(self, jobs: Sequence[Written], *, refuses: bool | None = None) -> None:
        """Write jobs before the store has them, with those of other callers in one statement.

        Raises `StorageUnavailableError` if that is a must; ``refuses`` says so in place of the option.
        """
        await self.written(jobs, self.begin_to_write(jobs), refuses=refuses)

    def begin_to_write(self, jobs: Sequence[Written]) -> asyncio.Future[LedgerAwayError | None]:
        """Write jobs as `write` does; the future is for `written`."""
        return self._writes.call(jobs)

    async def written(
        self,
        jobs: Sequence[Written],
        writing: asyncio.Future[LedgerAwayError | None],
        *,
        refuses: bool | None = None,
    ) -> None:
        """Await jobs that are being written; see `write`."""
        answer = await writing
        if answer is not None:
            if self._options.refuses if refuses is None else refuses:
                raise StorageUnavailableError(f"nothing is enqueued without the ledger: {answer}") from answer
            self.outbox.start()
            self.outbox.add_jobs(jobs)

    async def _write_together(self, calls: Sequence[Sequence[Written]]) -> Sequence[LedgerAwayError | None]:
        try:
            jobs = [one for of_one in calls for one in of_one]
            await self.gate.ask(self.ledger.write, jobs, SYSTEM_CLOCK.monotonic())
        except LedgerRefusedError as error:
            if len(calls) == 1:
                return [error]
            return [(await self._write_together([of_one]))[0] for of_one in calls]
        except LedgerAwayError as error:
            return [error] * len(calls)
        return [None] * len(calls)

    async def write_ahead(self, changes: Sequence[Change]) -> None:
        """Tell the ledger of changes before they are made in the store."""
        try:
            await self.outbox.write_now(changes)
        except LedgerAwayError as error:
            if self._options.refuses:
                raise StorageUnavailableError(f"nothing is enqueued without the ledger: {error}") from error

    def tell(self, change: Change) -> None:
        """Tell the ledger, soon, what has become of a job."""
        self.outbox.start()
        self.outbox.add(change)

    async def write_soon(self, changes: Sequence[Change]) -> None:
        """Write changes that were told, now if the ledger answers."""
        with suppress(LedgerAwayError):
            await self.outbox.write_now(changes)

    def drop(self, tokens: Sequence[str]) -> None:
        """Tell the ledger that jobs were not made."""
        for token in tokens:
            self.tell(Change(token, drops=True))

    async def to_its_end(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call that goes on if the caller is cancelled, and that closing waits for."""
        task = asyncio.create_task(call, name="jobqueue-guard-call")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return await asyncio.shield(task)

    # -- runs ---------------------------------------------------------------------------------------

    def claimed(self, queue: str, job: Claimed, claim: Claim) -> None:
        """Remember a run, and tell the ledger."""
        self._claims[queue, job.id, job.fence] = claim
        if len(self._claims) > MOST_CLAIMS:
            self._claims.popitem(last=False)
        history = [History(self.now(), "claimed", claim.worker, claim.attempts)]
        self.tell(
            Change(
                claim.token, 3, claim.attempts, claim.worker, seq=claim.seq, fence=job.fence, history=history
            )
        )

    def settled(self, queue: str, settlement: Settlement) -> Claim | None:
        """Return and forget a run; ``None`` if this process has not seen its claim."""
        return self._claims.pop((queue, settlement.id, settlement.fence), None)
