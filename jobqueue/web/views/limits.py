"""The limits of a queue and its groups, and how far they are used."""

from __future__ import annotations

from dataclasses import dataclass

from jobqueue.model.limits import Limits, Rate
from jobqueue.stats import limits_of
from jobqueue.storage.capabilities import Limiting
from jobqueue.web.params import Params
from jobqueue.web.source import Desk
from jobqueue.web.text import count, span

__all__ = ["LimitsView", "limits_view", "limits_wanted", "rate_text"]


@dataclass(frozen=True, slots=True)
class LimitsView:
    """What holds, and where the queue stands by it."""

    limits: Limits
    operator: bool
    """Whether an operator has set them, so that programs leave them alone."""
    running: int
    opens_in: float | None
    """Seconds until one more job may start; ``None``: not before a run ends."""
    group: str
    """The group that is looked at; ``""``: none."""
    group_running: int
    group_opens_in: float | None

    @property
    def none(self) -> bool:
        """Whether nothing is limited."""
        return self.limits == Limits()


async def limits_view(desk: Desk, group: str) -> LimitsView | None:
    """Return the limits of a queue; ``None`` if the store has none."""
    store = desk.store
    if not isinstance(store, Limiting):
        return None
    rules = (await store.get_rules(desk.name, counted=False)).rules
    whole, one = await store.usage(desk.name, ["", group or ""])
    return LimitsView(
        limits_of(rules), rules.operator, whole.running, _seconds(whole.opens_in),
        group, one.running, _seconds(one.opens_in),
    )  # fmt: skip


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def rate_text(rate: Rate | None) -> str:
    """Return a rate in words; empty without one."""
    if rate is None:
        return ""
    text = f"{count(rate.count)} in {span(rate.per)}" if rate.per != 1 else f"{count(rate.count)} per second"
    return text if rate.burst == 1 else f"{text}, {count(rate.burst)} at once"


def limits_wanted(params: Params) -> Limits:
    """Return the limits in a form. Raises `InvalidArgumentError` and `BadRequestError`."""
    return Limits(
        running=params.whole("running"),
        rate=_rate(params, ""),
        group_running=params.whole("group_running"),
        group_rate=_rate(params, "group_"),
    )


def _rate(params: Params, prefix: str) -> Rate | None:
    number = params.whole(f"{prefix}count")
    if number is None:
        return None
    return Rate(number, params.seconds(f"{prefix}per", 1.0), params.whole(f"{prefix}burst") or 1)
