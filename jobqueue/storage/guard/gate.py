"""The way to the ledger: a breaker in front of it, and one log line for each change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from jobqueue.errors import JobQueueError, QueueFullError, StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.guard.notices import Notices
from jobqueue.storage.guard.policy import Breaker, BreakerState

__all__ = ["Gate", "LedgerAwayError", "LedgerRefusedError"]

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger("jobqueue.storage.guard")


class LedgerAwayError(StorageUnavailableError):
    """The ledger did not do it, or was not asked since it has not answered lately."""


class LedgerRefusedError(LedgerAwayError):
    """The ledger has answered, and refused: for what it was given, its tables or the rights on them."""


class Gate:
    """Makes the calls to a ledger, unless it has failed lately."""

    def __init__(self, failures: int, reset: float, notices: Notices | None = None) -> None:
        self._breaker = Breaker(failures, reset)
        self._notices = notices or Notices()
        self._away = False

    @property
    def state(self) -> BreakerState:
        """Whether the ledger is asked."""
        return self._breaker.state(SYSTEM_CLOCK.monotonic())

    def try_now(self) -> None:
        """Have the next call try the ledger, also if it has failed a moment ago."""
        self._breaker.opened_at = float("-inf")

    async def ask(self, call: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
        """Make a call. Raises `LedgerAwayError` for whatever goes wrong with the ledger."""
        if not self._breaker.admits(SYSTEM_CLOCK.monotonic()):
            raise LedgerAwayError(
                "the ledger is not asked: it has failed several times, and is tried again soon"
            )
        try:
            answer = await call(*args, **options)
        except JobQueueError as error:
            refused = not isinstance(error, StorageUnavailableError | QueueFullError)
            if refused:  # nobody waits for an answer that comes at once
                self._breaker.succeeded()
            else:
                self._breaker.failed_at(SYSTEM_CLOCK.monotonic())
            if not self._away:
                self._away = True
                log.warning("the ledger does not take what the store takes: %s", error)
                self._notices.tell("ledger_away", str(error))
            raise (LedgerRefusedError if refused else LedgerAwayError)(f"the ledger: {error}") from error
        except BaseException:  # cancelled: nothing is known of the ledger
            self._breaker.trying = False
            raise
        self._breaker.succeeded()
        if self._away:
            self._away = False
            log.info("the ledger answers again")
            self._notices.tell("ledger_back", "the ledger answers again")
        return answer
