"""The resources of an open guarded store: the store, the ledger, what runs in the background."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from jobqueue.errors import JobQueueError, StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.capabilities import Documents, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard.epoch import Epoch
from jobqueue.storage.guard.gate import Gate, LedgerAwayError
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.outbox import Outbox
from jobqueue.storage.guard.reconcile import Reconciler, Reconciling
from jobqueue.storage.guard.replies import GuardedSink, Numbers
from jobqueue.storage.guard.values import Change, History, Known, Written
from jobqueue.storage.opening import StoreSession

__all__ = ["Claim", "GuardOptions", "GuardSession"]

LEAST_DOUBT = 600_000
"""Milliseconds after a loss in which what the store does not have is looked for in the ledger, at least."""
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


class GuardSession(StoreSession):
    """A guarded store from its first opening to its last closing."""

    def __init__(
        self,
        inner: Storage,
        ledger: PostgresLedger,
        options: GuardOptions,
        numbers: Numbers,
        *,
        watches: bool,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.ledger = ledger
        self._options = options
        self._watches = watches
        self.gate = Gate(options.breaker_failures, options.breaker_reset)
        self.outbox = Outbox(ledger, self.gate)
        self.reconciler = Reconciler(inner, ledger, self.gate, options.reconciling, self.now)
        self.epoch = Epoch(
            require(inner, Documents, "a guard"), ledger, self.gate, self._has_lost, self._loss_is_noted
        )
        self.numbers = numbers
        self.sinks: dict[tuple[str, str, int], GuardedSink] = {}
        """By queue, address and the identity of the caller's sink."""
        self._claims: OrderedDict[tuple[str, int], Claim] = OrderedDict()
        self._ahead = 0
        """Milliseconds that the ledger's clock is ahead of this machine's."""
        self._doubt_until = 0
        self._asks_for_doubt = False

    async def start(self) -> None:
        """Open both. A ledger that is away is an error only if nothing may be enqueued without it."""
        await self.inner.open()
        self.ledger.open()
        if not self._watches:
            return
        try:
            await self.gate.ask(self.ledger.check)
            self._ahead = await self.gate.ask(self.ledger.now) - int(SYSTEM_CLOCK.time() * 1000)
            await self.epoch.look()
            await self._learn_doubt()
        except LedgerAwayError:
            if self._options.refuses:
                raise
            self._asks_for_doubt = True
        except JobQueueError as error:
            log.warning("looking at the epoch failed: %s", error)
        self.epoch.start()

    async def close(self) -> None:
        """Write what the ledger does not have yet, and close both."""
        await self.epoch.close()
        await self.outbox.close()
        await self.ledger.close()
        await self.inner.close()

    def now(self) -> int:
        """Return the ledger's time, in milliseconds."""
        return int(SYSTEM_CLOCK.time() * 1000) + self._ahead

    # -- losses -------------------------------------------------------------------------------------

    def _has_lost(self) -> None:
        self._doubt_until = max(self._doubt_until, self.now() + LEAST_DOUBT)
        self.reconciler.lost()

    def _loss_is_noted(self) -> None:
        self._asks_for_doubt = True

    async def in_doubt(self) -> bool:
        """Return whether the ledger may remember outcomes that the store has lost."""
        if self._asks_for_doubt:
            try:
                await self._learn_doubt()
            except LedgerAwayError:
                self._asks_for_doubt = True
        return self.now() < self._doubt_until

    async def _learn_doubt(self) -> None:
        self._asks_for_doubt = False
        until = await self.gate.ask(self.ledger.doubt_until, LEAST_DOUBT)
        self._doubt_until = max(self._doubt_until, until)

    async def known(self, queue: str, ids: Sequence[str], but: Sequence[str] = ()) -> dict[str, Known]:
        """Return the last jobs that the ledger remembers, by id; none while it is away."""
        try:
            found = await self.gate.ask(self.ledger.known, queue, ids, but)
        except LedgerAwayError:
            return {}
        return {known.id: known for known in found}

    # -- writing ------------------------------------------------------------------------------------

    async def write(self, jobs: Sequence[Written]) -> None:
        """Write jobs before the store has them. Raises `StorageUnavailableError` if that is a must."""
        try:
            await self.gate.ask(self.ledger.write, jobs, SYSTEM_CLOCK.monotonic())
        except LedgerAwayError as error:
            if self._options.refuses:
                raise StorageUnavailableError(f"nothing is enqueued without the ledger: {error}") from error
            self.outbox.add_jobs(jobs)
            self.outbox.start()

    def tell(self, change: Change) -> None:
        """Tell the ledger, soon, what has become of a job."""
        self.outbox.start()
        self.outbox.add(change)

    def drop(self, tokens: Sequence[str]) -> None:
        """Tell the ledger that jobs were not made."""
        for token in tokens:
            self.tell(Change(token, drops=True))

    # -- runs ---------------------------------------------------------------------------------------

    def claimed(self, queue: str, fence: int, claim: Claim) -> None:
        """Remember a run, and tell the ledger."""
        self._claims[queue, fence] = claim
        if len(self._claims) > MOST_CLAIMS:
            self._claims.popitem(last=False)
        history = [History(self.now(), "claimed", claim.worker, claim.attempts)]
        self.tell(Change(claim.token, 3, claim.attempts, claim.worker, history=history))

    def settled(self, queue: str, fence: int) -> Claim | None:
        """Return and forget a run; ``None`` if this process has not seen its claim."""
        return self._claims.pop((queue, fence), None)
