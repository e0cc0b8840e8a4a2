"""Queues on PostgreSQL while a transaction elsewhere keeps vacuum from its work, one library after the other.

One process enqueues at a steady rate and works. In the middle third another connection holds a transaction
open that has a snapshot. ``p95``: from a job's turn to be enqueued until its handler runs, in milliseconds.
``dead``: dead rows at the end of a third, as the server counts them, in thousands. ``size``: all tables with
their indexes. ``--rate 0``: as many jobs as the worker can take. ``--unpinned``: each library a second time,
with no such transaction, since tables that grow and checkpoints change the rate as well.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import asyncpg

from bench.chart import number
from bench.measure import machine
from bench.peers import POSTGRES_PEERS, Peer, install
from bench.postgres import prepared
from bench.postgres_server import Database, Server
from bench.results import table
from bench.runner import Runner

THIRDS = ("before", "pinned", "after")


def hold(url: str, seconds: float) -> None:
    """Keep a transaction open that has a snapshot."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("begin isolation level repeatable read; select pg_current_xact_id()")
            await asyncio.sleep(seconds)
            await connection.execute("rollback")
        finally:
            await connection.close()

    asyncio.run(run())


def watch(database: Database, third: float, found: dict[str, float], *, pinned: bool) -> None:
    """Measure the tables at the end of each third, and hold the transaction in the second if it is to be."""
    for name in THIRDS:
        started = time.monotonic()
        if pinned and name == "pinned":
            hold(database.url, third)
        else:
            time.sleep(third)
        size = database.size()
        found[f"{name} dead"], found[f"{name} size"] = size.dead / 1e3, size.bytes / 1e6
        time.sleep(max(0.0, third - (time.monotonic() - started)))


def measure(
    server: Server, peer: Peer, per_second: float, third: float, *, pinned: bool = True
) -> dict[str, float]:
    """Measure one library."""
    found: dict[str, float] = {}
    options = {"port": 0, "per_second": per_second, "seconds": 3 * third, "concurrency": 100}
    with prepared(server, peer) as database, Runner(peer, "steady", options) as runner:
        watching = threading.Thread(target=watch, args=(database, third, found), kwargs={"pinned": pinned})
        watching.start()
        measured = runner.measure()
        watching.join()
    return found | {name: value * (1e3 if name.endswith("p95") else 1) for name, value in measured.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("python -m bench postgres-bloat")
    parser.add_argument(
        "--rate", type=float, default=1_000, help="jobs per second, default %(default)s; 0: no limit"
    )
    parser.add_argument("--third", type=float, default=30.0, help="seconds of a third, default %(default)s")
    names = [name for name, peer in POSTGRES_PEERS.items() if not peer.node]
    parser.add_argument("--only", default=",".join(names), metavar="NAMES", help="default: %(default)s")
    parser.add_argument(
        "--unpinned", action="store_true", help="measure each once more while nobody holds a transaction"
    )
    options: Any = parser.parse_args(sys.argv[2:])
    peers = [POSTGRES_PEERS[name] for name in options.only.split(",")]
    measured = [
        (peer, pinned) for peer in peers for pinned in ((True, False) if options.unpinned else (True,))
    ]
    rows: list[list[str]] = []
    for peer in peers:
        install(peer)
    with Server() as server:
        for peer, pinned in measured:
            found = measure(server, peer, options.rate, options.third, pinned=pinned)
            rows.append(
                [
                    " / ".join(number(found[f"{third} {what}"]) for third in THIRDS)
                    for what in ("rate", "p95", "dead", "size")
                ]
            )
            print(f"{peer.title}{'' if pinned else ', not pinned'}: {rows[-1]}", file=sys.stderr)
        rate = f"{options.rate:g} jobs/s" if options.rate else "as many jobs as each can take"
        told = f"{machine()}, PostgreSQL {server.version}, fsync on, {rate}"
    named = [
        peer if pinned else replace(peer, title=f"{peer.title}, not pinned") for peer, pinned in measured
    ]
    columns = ["ended (/s)", "p95 (ms)", "dead rows (thousands)", "size (MB)"]
    print(
        f"{told}, {' / '.join(THIRDS)} of {options.third:g} s each:", table(named, columns, rows), sep="\n\n"
    )
