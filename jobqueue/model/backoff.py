"""The pause between the attempts of a failing job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import MAX_SECONDS, check_number, check_seconds
from jobqueue.runtime.clock import SYSTEM_CLOCK

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Computes the pause before the next attempt from the number of attempts made, counted from 1.

    Build one with `exponential`, `fixed` or `custom`.
    """

    _rule: Callable[[int], float]
    _jitter: float
    _text: str

    def __repr__(self) -> str:
        return self._text

    @classmethod
    def exponential(
        cls, initial: float, *, factor: float = 2.0, max: float = 30.0, jitter: float = 0.1
    ) -> Backoff:
        """Build a rule of growing pauses: ``initial * factor ** (attempts - 1)`` seconds, at most ``max``.

        ``jitter`` is the fraction of the pause drawn at random to either side, so that jobs which
        failed together do not come back together. Raises `InvalidArgumentError`.
        """
        check_seconds("initial", initial, zero=True)
        check_number("factor", factor, low=1.0)
        check_seconds("max", max, zero=True)
        check_number("jitter", jitter, low=0.0, high=1.0)

        def rule(attempts: int) -> float:
            try:
                return min(max, initial * float(factor) ** (attempts - 1))  # an int would grow without bound
            except OverflowError:
                return max if initial else 0.0

        text = f"Backoff.exponential({initial}, factor={factor}, max={max}, jitter={jitter})"
        return cls(rule, jitter, text)

    @classmethod
    def fixed(cls, delay: float) -> Backoff:
        """Build a rule that always waits ``delay`` seconds. Raises `InvalidArgumentError`."""
        check_seconds("delay", delay, zero=True)
        return cls(lambda _attempts: delay, 0.0, f"Backoff.fixed({delay})")

    @classmethod
    def custom(cls, rule: Callable[[int], float]) -> Backoff:
        """Build a rule from a function: ``rule(attempts)`` returns the pause in seconds.

        A rule that raises or returns nonsense is reported as an ``error`` event, and the job
        waits one second.
        """
        if not callable(rule):
            raise InvalidArgumentError("rule", "must be callable: attempts -> seconds")
        return cls(rule, 0.0, f"Backoff.custom({rule!r})")

    def delay(self, attempts: int, uniform: Callable[[float, float], float] = SYSTEM_CLOCK.uniform) -> float:
        """Return the seconds to wait after ``attempts`` attempts. Raises `InvalidArgumentError`."""
        seconds = check_seconds("backoff", self._rule(attempts), zero=True)
        if not self._jitter:
            return seconds
        # Applied after the cap: otherwise every late retry would wait exactly `max`.
        return min(seconds * uniform(1.0 - self._jitter, 1.0 + self._jitter), MAX_SECONDS)
