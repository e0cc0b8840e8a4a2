"""When the guard asks its ledger, and how often it compares: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Breaker", "BreakerState", "Pace"]

EMPTY_ROUNDS = 3
"""Rounds without work after which the pace slows down."""
SLOWER, FASTER = 1.5, 0.8
WIDEST = 4.0
"""The interval stays between a fourth and four times of what was asked for."""


class BreakerState(StrEnum):
    """Whether the ledger is asked."""

    CLOSED = "closed"
    """Yes."""
    OPEN = "open"
    """No: it failed several times in a row, a moment ago."""
    HALF_OPEN = "half_open"
    """One call tries."""


@dataclass(slots=True)
class Breaker:
    """Stops asking a ledger that does not answer, so that nobody waits for it; a circuit breaker."""

    failures: int
    """Failures in a row that open it."""
    reset: float
    """Seconds after which one call tries again."""
    failed: int = 0
    opened_at: float = 0.0
    trying: bool = False

    def state(self, now: float) -> BreakerState:
        """Return the state at an instant."""
        if self.failed < self.failures:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.opened_at + self.reset else BreakerState.HALF_OPEN

    def admits(self, now: float) -> bool:
        """Return whether a call may be made; when half open, the first that asks may."""
        state = self.state(now)
        if state is BreakerState.HALF_OPEN and not self.trying:
            self.trying = True
            return True
        return state is BreakerState.CLOSED

    def succeeded(self) -> None:
        """Note an answer."""
        self.failed, self.trying = 0, False

    def failed_at(self, now: float) -> None:
        """Note a failure."""
        self.failed, self.trying, self.opened_at = self.failed + 1, False, now


@dataclass(slots=True)
class Pace:
    """The seconds from one comparison to the next: more while there is nothing to do, fewer when there is."""

    interval: float
    factor: float = 1.0
    empty: int = 0

    @property
    def seconds(self) -> float:
        """The seconds until the next comparison."""
        return self.interval * self.factor

    def note(self, found: int) -> None:
        """Note what a comparison found."""
        self.empty = 0 if found else self.empty + 1
        if found:
            self.factor = max(1 / WIDEST, self.factor * FASTER)
        elif self.empty >= EMPTY_ROUNDS:
            self.factor = min(WIDEST, self.factor * SLOWER)
