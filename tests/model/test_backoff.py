"""`Backoff`: how long a job waits before its next attempt."""

from __future__ import annotations

import pytest

from jobqueue import Backoff, InvalidArgumentError


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def test_exponential_backoff() -> None:
    backoff = Backoff.exponential(0.5, factor=3, max=10)
    assert [backoff.delay(n, middle) for n in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1.5, 4.5, 10, 10, 10]
    assert repr(backoff) == "Backoff.exponential(0.5, factor=3, max=10, jitter=0.1)"
    assert Backoff.exponential(50, max=10, jitter=0).delay(1) == 10
    assert Backoff.exponential(0).delay(5, middle) == 0


@pytest.mark.parametrize("attempts", [1, 1024, 1025, 2**31 - 1])
def test_exponential_backoff_after_very_many_attempts(attempts: int) -> None:
    assert Backoff.exponential(0).delay(attempts) == 0
    assert Backoff.exponential(0, factor=7, max=5).delay(attempts) == 0
    assert Backoff.exponential(3, factor=1, jitter=0).delay(attempts) == 3
    assert Backoff.exponential(5, factor=5, max=60, jitter=0).delay(attempts) in {5, 60}
    hundred_years = 100 * 365 * 86400.0
    assert Backoff.exponential(hundred_years, max=hundred_years, jitter=1).delay(attempts) <= hundred_years


def test_jitter_is_drawn_to_both_sides_and_after_the_cap() -> None:
    asked: list[tuple[float, float]] = []

    def low(a: float, b: float) -> float:
        asked.append((a, b))
        return a

    assert Backoff.exponential(1, max=30, jitter=0.25).delay(99, low) == 22.5
    assert asked == [(0.75, 1.25)]
    assert {Backoff.exponential(8, jitter=0).delay(1) for _ in range(5)} == {8}
    drawn = [Backoff.exponential(10, jitter=0.5).delay(1) for _ in range(200)]
    assert 5 <= min(drawn) < 7 < 13 < max(drawn) <= 15


def test_fixed_and_custom_backoff() -> None:
    assert [Backoff.fixed(2.5).delay(n) for n in (1, 2, 50)] == [2.5] * 3
    assert [Backoff.custom(lambda n: n * n).delay(n) for n in (1, 2, 3)] == [1, 4, 9]
    assert "custom" in repr(Backoff.custom(abs))
    assert repr(Backoff.fixed(2)) == "Backoff.fixed(2)"
    for nonsense in (-1, "x", None, float("nan")):
        with pytest.raises(InvalidArgumentError, match="backoff"):
            Backoff.custom(lambda n, nonsense=nonsense: nonsense).delay(1)  # type: ignore[misc]
