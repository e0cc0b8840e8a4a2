"""Instants and durations as people write and read them: ``2h``, ``5 min ago``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from jobqueue.cli.options import instant
from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import MAX_SECONDS, check_instant
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.durations import ago_or_in, duration

__all__ = ["ago_or_in", "duration", "iso", "moment_ago", "moment_ahead", "now"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|min|s|m|h|d|w)")


def now() -> datetime:
    """Return the present instant, in UTC."""
    return datetime.fromtimestamp(SYSTEM_CLOCK.time(), UTC)


def moment_ago(value: str | datetime) -> datetime:
    """Parse an instant: ``2h`` is two hours ago."""
    return _moment(value, -1)


def moment_ahead(value: str | datetime) -> datetime:
    """Parse an instant: ``2h`` is in two hours, ``-2h`` two hours ago."""
    return _moment(value, 1)


def _moment(value: str | datetime, direction: int) -> datetime:
    if isinstance(value, datetime):
        return value
    if value == "now":
        return now()
    sign, text = (-1, value[1:]) if value.startswith("-") else (1, value.removeprefix("+"))
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        try:
            return instant(value)
        except click.BadParameter as error:
            if value[:1].isdigit() and "-" in value:  # it looks like an instant: what is wrong with it?
                raise
            raise click.BadParameter(
                f"{value!r} is neither a time such as 2h, 30min or 7d, nor an instant such as "
                "2030-01-31T08:00:00Z"
            ) from error
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > MAX_SECONDS:
        raise click.BadParameter(f"{value!r} is more than a hundred years")
    moment = now() + timedelta(seconds=direction * sign * seconds)
    try:
        check_instant("value", moment)
    except InvalidArgumentError as error:
        raise click.BadParameter(str(error)) from None
    return moment


def iso(instant: datetime | None) -> str | None:
    """Return an instant as ISO 8601, without empty digits."""
    if instant is None:
        return None
    return instant.isoformat(timespec="milliseconds" if instant.microsecond else "seconds")
