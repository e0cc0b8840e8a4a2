"""`GuardedStorage`: a store whose jobs outlive it."""

from __future__ import annotations

from typing import Self

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import check_count, check_seconds
from jobqueue.storage.capabilities import ClaimsOnArrival, Documents, Revival, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.guard.control import Guard
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.notices import Notices
from jobqueue.storage.guard.reconcile import Reconciling
from jobqueue.storage.guard.replies import Numbers
from jobqueue.storage.guard.session import GuardOptions, GuardSession
from jobqueue.storage.guard.working import Working

__all__ = ["GuardedStorage"]

LEAST_STUCK = 60.0


class GuardedStorage(Working):
    """Guards the jobs of another store, ``inner``, by a ledger in PostgreSQL: they survive its loss.

    Every job is in the ledger before ``inner`` has it; what becomes of it follows in the background. Whoever
    leads the reapers of the store compares the two: every ``interval`` seconds, less often while there is
    nothing to do, ``batch_size`` jobs at a time, and brings back up to ``rate`` lost jobs per second; at once
    and without that limit when the store was wiped or set back. A job that runs although its lease has been
    over for ``stuck_after`` seconds (60 at least) counts as stuck, and is swept.

    While PostgreSQL is away ``on_ledger_failure`` decides: ``"continue"`` enqueues all the same and keeps
    what the ledger lacks in memory, within bounds; ``"refuse"`` raises `StorageUnavailableError`. After
    ``breaker_failures`` failures in a row it is asked once in ``breaker_reset`` seconds. Jobs that have ended
    stay in the ledger for ``history_days``.

    Raises `InvalidArgumentError` for a bad option, `UnsupportedError` for a store without documents.
    """

    _kind = "guarded"

    def __init__(
        self,
        inner: Storage,
        ledger: PostgresLedger,
        *,
        interval: float = 30.0,
        rate: float = 20.0,
        batch_size: int = 100,
        stuck_after: float = 300.0,
        on_ledger_failure: str = "continue",
        breaker_failures: int = 5,
        breaker_reset: float = 60.0,
        history_days: float = 7.0,
    ) -> None:
        if not isinstance(ledger, PostgresLedger):
            raise InvalidArgumentError("ledger", f"must be a PostgresLedger, not {type(ledger).__name__}")
        if on_ledger_failure not in {"continue", "refuse"}:
            raise InvalidArgumentError("on_ledger_failure", 'must be "continue" or "refuse"')
        if check_seconds("stuck_after", stuck_after) < LEAST_STUCK:
            raise InvalidArgumentError("stuck_after", f"must be at least {LEAST_STUCK:g} seconds")
        require(inner, Documents, "a guard")
        require(inner, Revival, "a guard")
        self._options = GuardOptions(
            Reconciling(
                check_seconds("interval", interval),
                check_seconds("rate", rate),
                check_count("batch_size", batch_size),
                stuck_after,
                check_seconds("history_days", history_days),
            ),
            refuses=on_ledger_failure == "refuse",
            breaker_failures=check_count("breaker_failures", breaker_failures),
            breaker_reset=check_seconds("breaker_reset", breaker_reset),
        )
        self._inner = inner
        self._ledger = ledger
        self._watches = True
        self._notices = Notices()
        self._numbers = Numbers()  # that of all clones: what one has inserted another may be told of
        self.clock = inner.clock
        self.batched = True
        self.shared = inner.shared
        self._offer_arrivals()
        super().__init__()

    def __repr__(self) -> str:
        return f"GuardedStorage({self._inner!r}, {self._ledger!r})"

    @property
    def guard(self) -> Guard:
        """What an operator asks the guard: counts, a comparison now, the history of a job."""
        return Guard(self._open_session, self._ledger, self._notices)

    def _make_session(self) -> GuardSession:
        return GuardSession(
            self._inner, self._ledger, self._options, self._numbers, self._notices, watches=self._watches
        )

    def clone(self) -> Self:
        twin = super().clone()
        twin._be_twin()  # noqa: SLF001 - of the same class
        return twin

    def _be_twin(self) -> None:
        self._inner, self._ledger = self._inner.clone(), self._ledger.clone()
        self._watches = False  # one watch of a process is enough
        self._offer_arrivals()

    def _offer_arrivals(self) -> None:
        """Claim on arrival if the store does: an ability is there if its call is."""
        if isinstance(self._inner, ClaimsOnArrival):
            self.claim_on_arrival = self._claim_on_arrival
