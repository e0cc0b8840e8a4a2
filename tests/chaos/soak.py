"""`python -m tests.chaos.soak --store redis --minutes 15`: whether anything grows that should not.

One process of each role lives throughout; others of its kind are killed, frozen and replaced beside it, and
the server is cut off and restarted. Outcomes and dead letters are kept for a few seconds only, so the store
reaches a steady size. Memory, descriptors and threads of the three, and keys or rows, memory and disk of the
store, are read every second; their slopes after a warm-up of a quarter of the time are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import hiredis

from jobqueue import open_storage
from tests.chaos.stores import STORES, Files, Postgres
from tests.chaos.storm import Plan, Storm, ended

EVERY = 1.0
"""Seconds between two readings."""
WARM_UP = 0.25
"""Part of the time that is left out: caches fill, the first outcomes expire."""
PLAN = Plan(seconds=0.0, seed=1, every=2.0, pause=0.05, result_ttl=5.0)


class Slope(NamedTuple):
    """How a reading has changed."""

    first: float
    """Mean of the first tenth after the warm-up."""
    last: float
    """Mean of the last tenth."""
    per_minute: float
    """By least squares."""


def slope(readings: Sequence[tuple[float, float]]) -> Slope:
    """Return the slope of readings, each with its seconds."""
    kept = readings[int(len(readings) * WARM_UP) :]
    tenth = max(1, len(kept) // 10)
    times, values = [t / 60.0 for t, _ in kept], [value for _, value in kept]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - middle) ** 2 for t in times)
    rise = sum((t - middle) * (value - mean) for t, value in zip(times, values, strict=True))
    return Slope(sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth, rise / spread if spread else 0.0)


def of_process(pid: int) -> dict[str, float]:
    """Read a process: memory in MB, descriptors, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "RSS (MB)": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        "threads": int(status["Threads"]),
    }


async def of_store(store: Any) -> dict[str, float]:
    """Read a store: disk in MB, and what its kind counts."""
    readings = {"disk (MB)": await asyncio.to_thread(_size, store.data) / 1e6}
    away = (OSError, asyncpg.PostgresError, AssertionError, RuntimeError, hiredis.HiredisError)
    with suppress(*away):  # or it reads its data just now
        if isinstance(store, Postgres):
            readings |= await _of_postgres(store)
        elif not isinstance(store, Files):
            info = await asyncio.to_thread(store.server.command, "INFO", "memory")
            used = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
            readings["memory (MB)"] = int(used["used_memory"]) / 1e6
            readings["keys"] = await asyncio.to_thread(store.server.command, "DBSIZE")
    return readings


def _size(directory: Path) -> int:
    size = 0
    for place, _, names in os.walk(directory):  # it passes over what is gone by now
        for name in names:
            with suppress(OSError):
                size += os.lstat(Path(place, name)).st_size
    return size


async def _of_postgres(store: Postgres) -> dict[str, float]:
    connection = await asyncpg.connect(store.direct, timeout=2.0)
    try:
        rows = await connection.fetchrow(
            "select sum(n_live_tup) as live, sum(n_dead_tup) as dead, "
            "sum(pg_total_relation_size(relid)) as size from pg_stat_user_tables"
        )
    finally:
        await connection.close()
    return {
        "rows": float(rows["live"]),
        "dead rows": float(rows["dead"]),
        "tables (MB)": float(rows["size"]) / 1e6,
    }


class Readings:
    """What was read, and when."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._of: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, whose: str, readings: dict[str, float]) -> None:
        """Keep some."""
        now = time.monotonic() - self._began
        for name, value in readings.items():
            self._of[f"{whose} {name}"].append((now, value))

    def slopes(self) -> dict[str, Slope]:
        """Return how each has changed."""
        return {name: slope(readings) for name, readings in self._of.items()}


async def soak(name: str, seconds: float, directory: Path) -> tuple[dict[str, Slope], Storm, int]:
    """Run; return the slopes, the storm that it went through, and the number of calls."""
    store = STORES[name](directory)
    await store.open()
    store.faults = tuple(kind for kind in store.faults if kind not in {"rollback", "failover"})
    plan = Plan(seconds, PLAN.seed, PLAN.every, PLAN.pause, result_ttl=PLAN.result_ttl)
    storm, readings = Storm(store, directory, plan), Readings()
    storage = open_storage(store.direct)
    try:
        await storage.open()
        async with storm.cast():
            oldest = {role: pid for pid, role in reversed(storm.actors.items())}
            storm.spared = set(oldest.values())
            reading = asyncio.create_task(_read(store, oldest, readings))
            try:
                await storm.rage(storage)
            finally:
                await ended(reading)
        await storage.close()
    finally:
        await store.close()
    calls = sum(b'"answer"' in line for line in (directory / "history").read_bytes().splitlines())
    return readings.slopes(), storm, calls


async def _read(store: Any, pids: dict[str, int], readings: Readings) -> None:
    while True:
        for role, pid in pids.items():
            readings.add(role, of_process(pid))
        readings.add("store", await of_store(store))
        await asyncio.sleep(EVERY)


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--store", choices=STORES, default="file", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=15.0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the slopes as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobqueue-soak-") as name:
        slopes, storm, calls = asyncio.run(soak(options.store, options.minutes * 60.0, Path(name)))
    if options.json:
        print(json.dumps({name: each._asdict() for name, each in slopes.items()}))
        return
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(storm.done.items()))
    print(f"{options.store}: {options.minutes:g} minutes, {calls:,} calls; {faults}")
    print("| | at first | at last | per minute |\n|---|---:|---:|---:|")
    for name, each in slopes.items():
        print(f"| {name} | {each.first:,.1f} | {each.last:,.1f} | {each.per_minute:+,.2f} |")


if __name__ == "__main__":
    main()
