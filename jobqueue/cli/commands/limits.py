"""The command ``queue limits``: how many jobs of a queue, and of each of its groups, may run and start."""

from __future__ import annotations

import re
from dataclasses import asdict

import click

from jobqueue.cli.client import is_used, opened, shared_storage
from jobqueue.cli.options import QUEUE_VARIABLE, option, output_option, queue_name, storage_option
from jobqueue.cli.output import emit_json, fields_table, show
from jobqueue.cli.running import run
from jobqueue.errors import InvalidArgumentError
from jobqueue.limits import give_back, set_limits
from jobqueue.model.checks import shown
from jobqueue.model.limits import Limits, Rate
from jobqueue.stats import limits_of
from jobqueue.storage.capabilities import Limiting, require
from jobqueue.storage.values import Rules

__all__ = ["limits"]

_RATE = re.compile(r"(\d{1,9})(?:/(\d{1,9}(?:\.\d{1,3})?))?(?:\+(\d{1,9}))?")


def rate(value: str | Rate) -> Rate:
    """Read a rate as ``COUNT``, ``COUNT/SECONDS``, each with ``+BURST``."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{shown(value)} is no rate: give COUNT/SECONDS, as 100/60, or 100/60+20")
    count, per, burst = found.groups()
    try:
        return Rate(int(count), float(per or 1), int(burst or 1))
    except InvalidArgumentError as error:
        raise click.BadParameter(str(error)) from None


@click.command("limits")
@click.argument("name", type=queue_name, envvar=QUEUE_VARIABLE)
@storage_option()
@output_option()
@option("--running", type=click.IntRange(min=1), metavar="NUMBER", show_default=False,
        help="Most jobs of the queue that run at once.")  # fmt: skip
@option("--rate", type=rate, metavar="COUNT/SECONDS", show_default=False,
        help="Most jobs that start within a time, +BURST at once.")  # fmt: skip
@option("--group-running", type=click.IntRange(min=1), metavar="NUMBER", show_default=False,
        help="Most jobs of one group that run at once.")  # fmt: skip
@option("--group-rate", type=rate, metavar="COUNT/SECONDS", show_default=False,
        help="Most jobs of one group that start within a time.")  # fmt: skip
@option("--none", is_flag=True, help="Have no limits.")
@option("--reset", is_flag=True, help="Let programs set the limits again; until one does, they stay.")
def limits(
    *,
    name: str,
    storage: str,
    output: str,
    running: int | None,
    rate: Rate | None,
    group_running: int | None,
    group_rate: Rate | None,
    none: bool,
    reset: bool,
) -> None:
    """Show the limits of queue NAME; with options, replace all of them by these.

    They hold from the next claim of any worker on, and programs that declare others leave them alone until
    --reset.
    """
    try:
        wanted = Limits(running=running, rate=rate, group_running=group_running, group_rate=group_rate)
    except InvalidArgumentError as error:
        raise click.UsageError(str(error)) from None
    if (wanted != Limits()) + none + reset > 1:
        raise click.UsageError("give limits, --none or --reset, not two of them")

    async def call() -> tuple[Rules, bool]:
        async with opened(shared_storage(storage)) as store:
            keeper = require(store, Limiting, "limits")
            if none or wanted != Limits():
                await set_limits(store, name, wanted)
            elif reset:
                await give_back(store, name, None)
            return (await keeper.get_rules(name, counted=False)).rules, await is_used(store, name)

    rules, used = run(call())
    if not used:  # a name to come, or a wrong one
        click.echo(f"queue {name} has neither jobs nor workers yet", err=True)
    holds = limits_of(rules)
    set_by = None if holds == Limits() and not rules.operator else "operator" if rules.operator else "program"
    if output == "json":
        emit_json({"queue": name, "limits": asdict(holds), "set_by": set_by})
        return
    fields = {
        "queue": name,
        "running": holds.running,
        "rate": _text(holds.rate),
        "group running": holds.group_running,
        "group rate": _text(holds.group_rate),
        "set by": set_by,
    }
    show(fields_table(fields))


def _text(rate: Rate | None) -> str | None:
    if rate is None:
        return None
    text = f"{rate.count} in {rate.per:g} s"
    return text if rate.burst == 1 else f"{text}, {rate.burst} at once"
