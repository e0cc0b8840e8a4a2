"""The command ``stats``: jobs by state, workers, and the leading reaper."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobqueue.cli.client import opened, require_queues, shared_storage
from jobqueue.cli.options import option, output_option, queue_name, seconds, seconds_or_zero, storage_option
from jobqueue.cli.output import emit_json, fitted, show
from jobqueue.cli.running import run
from jobqueue.stats import reapers
from jobqueue.storage.capabilities import Hampered, Totals
from jobqueue.storage.contract import Storage

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Rates", "collect", "stats"]

_NOT_STATES = {"queue", "workers", "oldest_waiting", "rate"}


@click.command()
@storage_option()
@output_option()
@option("-q", "--queue", type=queue_name, metavar="NAME", multiple=True, show_default=False,
        help="Only this queue; may be repeated.  [default: all]")  # fmt: skip
@option("--watch", is_flag=True, help="Show them again and again, until interrupted.")
@option("--sample", type=seconds_or_zero, metavar="SECONDS", default=0.5,
        help="Seconds over which the rate is measured first; 0: not at all.")  # fmt: skip
@option("--interval", type=seconds, default=2.0, help="Seconds between two looks of --watch.")
def stats(
    *, storage: str, output: str, queue: tuple[str, ...], sample: float, interval: float, watch: bool
) -> None:
    """Count the jobs of every queue by state; list workers and the reapers that sweep."""

    async def call() -> None:
        async with opened(shared_storage(storage)) as store:
            await require_queues(store, queue, storage)
            rates = Rates(store)
            if sample:
                await rates.look(queue or await store.queues())
                await store.clock.sleep(sample)
            while True:
                _show(await collect(store, queue, rates), output, watch=watch)
                if not watch:
                    return
                await store.clock.sleep(interval)

    run(call())


class Rates:
    """How many jobs end per second, from one look to the next."""

    def __init__(self, store: Storage) -> None:
        self._store = store
        self._seen: dict[str, tuple[int, float]] = {}

    async def look(self, queues: Sequence[str]) -> dict[str, float | None]:
        """Return the rate of each queue; ``None`` at the first look, or if the store does not count."""
        rates: dict[str, float | None] = dict.fromkeys(queues)
        if isinstance(self._store, Totals):
            for name in queues:
                ended, now = await self._store.ended(name), self._store.clock.monotonic()
                before, self._seen[name] = self._seen.get(name), (ended, now)
                if before is not None and now > before[1]:
                    rates[name] = round(max(0, ended - before[0]) / (now - before[1]), 1)
        return rates


async def collect(store: Storage, queues: Sequence[str], rates: Rates) -> dict[str, Any]:
    """Read the numbers from the store. Ages are in seconds, rates in ended jobs per second."""
    now = store.clock.time() * 1000
    names = queues or await store.queues()
    ending = await rates.look(names)
    found = await _reapers(store, now)
    return {
        "queues": [await _queue(store, name, now, ending[name]) for name in names],
        "reaper": found[0] if found else None,
        "reapers": found,
        "hindrances": await _hindrances(store),
    }


async def _hindrances(store: Storage) -> list[str]:
    return [finding.text for finding in await store.hindrances()] if isinstance(store, Hampered) else []


async def _reapers(store: Storage, now: float) -> list[dict[str, Any]]:
    """Return the reapers: the leader of all queues, then the others."""
    return [
        {
            "leader": reaper.id,
            "term": reaper.term,
            "expires_in": None if reaper.expires_at is None else _left(_millis(reaper.expires_at), now),
            "seen": None if reaper.seen_at is None else _age(_millis(reaper.seen_at), now),
        }
        for reaper in await reapers(store)
    ]


def _millis(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


async def _queue(store: Storage, name: str, now: float, rate: float | None) -> dict[str, Any]:
    counts = (await store.counts(name))._asdict()
    oldest = counts.pop("oldest")
    return {
        "queue": name,
        **counts,
        "oldest_waiting": None if oldest is None else _age(oldest, now),
        "rate": rate,
        "workers": [
            {"worker": known.worker, "running": known.running, "seen": _age(known.seen_at, now)}
            for known in await store.workers(name)
        ],
    }


def _age(instant: int, now: float) -> float:
    # The store's clock and this one may differ a little: nothing is younger than now.
    return round(max(0.0, now - instant) / 1000, 1)


def _left(instant: int, now: float) -> float:
    return round(max(0.0, instant - now) / 1000, 1)


def _show(found: dict[str, Any], output: str, *, watch: bool) -> None:
    if output == "json":
        emit_json(found)
        return
    if watch and sys.stdout.isatty():
        click.clear()
    if not found["queues"]:
        click.echo("this store holds no job yet; -q NAME shows the workers of a queue", err=True)
    show(*_tables(found))
    for text in found["hindrances"]:
        click.echo(f"warning: {text}", err=True)


def _tables(found: dict[str, Any]) -> Iterator[Table]:
    queues = found["queues"]
    if queues:
        states = [name for name in queues[0] if name not in _NOT_STATES]
        rows = [
            [each["queue"], *(each[state] for state in states), _seconds(each["oldest_waiting"]), _rate(each)]
            for each in queues
        ]
        yield from fitted(["queue", *states, "oldest", "rate"], rows)
    workers = [[queue["queue"], worker["worker"], worker["running"], _ago(worker["seen"])]
               for queue in queues for worker in queue["workers"]]  # fmt: skip
    if workers:
        yield from fitted(["queue", "worker", "running", "seen"], workers)
    reapers = [[reaper["leader"], reaper["term"], _ago(reaper["seen"])] for reaper in found["reapers"]]
    if reapers:
        yield from fitted(["reaper", "term", "seen"], reapers)


def _rate(queue: dict[str, Any]) -> str | None:
    return None if queue["rate"] is None else f"{queue['rate']:g}/s"


def _ago(value: float | None) -> str | None:
    return None if value is None else f"{value:g} s ago"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:g} s"
