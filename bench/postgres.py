"""The PostgreSQL store against other queues on it, interleaved, each measurement in a process of its own.

``enqueue``: 100 callers, each in a loop of single enqueues. ``bulk``: one caller, 1,000 jobs per call.
``drain``: a worker process with 100 slots and no-op handlers, from the last job of its warm-up to the last of
all. ``request/response``: see `bench.requests`; only of those that store results. ``CPU``, ``WAL``: of the
server, per job, enqueued one by one and drained.

A private server with fsync on, and a new database for each measurement. README.md beside this has the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from bench.chart import number
from bench.measure import machine
from bench.peers import POSTGRES_PEERS, Peer, install
from bench.postgres_server import Database, Server
from bench.results import Results, Target, judge, table
from bench.rounds import take_turns
from bench.runner import Runner

BATCH = 1_000
IN_FLIGHT = {"ours": (1, 8, 100), "platformatic": (1, 8)}
"""Callers of request/response. The other library hangs when they are as many as its connections, ten."""
PRODUCERS = {"platformatic": 5}
"""Callers of single enqueues, where they are not 100, for the same reason."""
RATES = {"enqueue, 100 in flight": "enqueue", "bulk, 1,000 per call": "bulk", "drain, 100 slots": "drain"}
SERVER = {
    "CPU, enqueue (µs)": "enqueue cpu", "CPU, drain (µs)": "drain cpu", "CPU, end to end (µs)": "cpu",
    "WAL, end to end (bytes)": "wal",
}  # fmt: skip
REQUESTS = ("1 p50", "1 p99", "1 rate", "8 rate", "100 rate")
TARGETS = (
    Target(what="bulk enqueue", name="bulk", peer="pgqueuer", factor=1.5),
    Target(what="bulk enqueue", name="bulk", peer="awa", factor=1.5),
    Target(what="drain, 100 slots", name="drain", peer="pgqueuer", factor=2),
    Target(what="drain, 100 slots", name="drain", peer="awa", factor=5),
    Target(what="enqueue, 100 in flight", name="enqueue", peer="pgqueuer", factor=10),
    Target(what="enqueue, 100 in flight", name="enqueue", peer="awa", factor=25),
    Target(what="server CPU, end to end (µs)", name="cpu", peer="pgqueuer", factor=5, less_is_better=True),
    Target(what="server CPU, end to end (µs)", name="cpu", peer="awa", factor=20, less_is_better=True),
    Target(what="requests, ours at 100, theirs at 8", name="most rate", peer="platformatic", factor=10),
    Target(what="requests, 1, p50 (ms)", name="1 p50", peer="platformatic", factor=2, less_is_better=True),
)


class Bench:
    """The measurements of one peer after the other, on one server."""

    def __init__(self, server: Server, *, quick: bool) -> None:
        self.server = server
        self.scale = 10 if quick else 1
        self.seconds = {"warmup": 0.3, "seconds": 0.5} if quick else {"warmup": 0.5, "seconds": 2.0}
        self.results = Results()

    def round(self, peer: Peer) -> None:
        """Measure everything of one peer once."""
        with self.database(peer):
            self._one_by_one(peer)
        if peer.name != "platformatic":
            with self.database(peer):
                self._bulk(peer)
        if peer.name in IN_FLIGHT:
            with self.database(peer):
                self._requests(peer)

    def database(self, peer: Peer) -> Database:
        """Return a database with the peer's tables, for a ``with`` statement."""
        return prepared(self.server, peer)

    def _sizes(self, peer: Peer) -> dict[str, int]:
        def scaled(jobs: int) -> int:
            return -(-jobs // self.scale // 100) * 100

        return {"port": 0, "warmup": scaled(peer.warmup), "jobs": scaled(peer.jobs)}

    def _one_by_one(self, peer: Peer) -> None:
        sizes = self._sizes(peer)
        with Runner(peer, "enqueue", sizes | {"in_flight": PRODUCERS.get(peer.name, 100)}) as runner:
            start = self.server.load()
            rate = runner.measure()["rate"]
            enqueued = self.server.load() - start
        self.server.query("checkpoint")
        with Runner(peer, "drain", sizes | {"concurrency": 100}) as runner:
            start = self.server.load()
            drained_rate = runner.measure()["rate"]
            drained = self.server.load() - start
        jobs, drained_jobs = sizes["jobs"], sizes["jobs"] + sizes["warmup"]
        enqueue_cpu, drain_cpu = enqueued.cpu / jobs * 1e6, drained.cpu / drained_jobs * 1e6
        self.results.note(
            peer,
            {
                "enqueue": rate, "drain": drained_rate, "enqueue cpu": enqueue_cpu, "drain cpu": drain_cpu,
                "cpu": enqueue_cpu + drain_cpu, "wal": enqueued.wal / jobs + drained.wal / drained_jobs,
            },
        )  # fmt: skip

    def _bulk(self, peer: Peer) -> None:
        jobs = max(BATCH, peer.jobs * 2 // self.scale // BATCH * BATCH)
        with Runner(peer, "bulk", {"port": 0, "warmup": BATCH, "jobs": jobs, "batch": BATCH}) as runner:
            self.results.note(peer, {"bulk": runner.measure()["rate"]})

    def _requests(self, peer: Peer) -> None:
        found: dict[str, float] = {}
        with Runner(peer, "serve", {"port": 0}) as worker:
            for in_flight in IN_FLIGHT[peer.name]:
                options = {"port": 0, **self.seconds, "in_flight": in_flight, "served": 1}
                with Runner(peer, "request", options) as callers:
                    measured = callers.measure()
                found[f"{in_flight} rate"] = found["most rate"] = measured["rate"]
                found |= {f"{in_flight} {what}": measured[what] * 1e3 for what in ("p50", "p99")}
            worker.measure()  # the line that ends it
        self.results.note(peer, found)


def prepared(server: Server, peer: Peer) -> Database:
    """Return a database with a peer's tables, which its runners use."""
    database = Database(server, f"bench_{peer.name}").create()
    os.environ["BENCH_POSTGRES"] = database.url
    with Runner(peer, "install", {"port": 0}) as runner:
        runner.measure()
    return database


def report(results: Results, peers: list[Peer]) -> str:
    """Write everything as Markdown."""

    def row(peer: Peer, names: Any) -> list[str]:
        return [number(results.get(peer.name, n)) if results.of(peer.name, n) else "n/a" for n in names]

    asked = [peer for peer in peers if peer.name in IN_FLIGHT]
    return "\n\n".join(
        [
            "Jobs per second:",
            table(peers, list(RATES), [row(peer, RATES.values()) for peer in peers]),
            "Request/response, callers and worker in two processes:",
            table(
                asked,
                ["1, p50 (ms)", "1, p99 (ms)", "1 (/s)", "8 (/s)", "100 (/s)"],
                [row(peer, REQUESTS) for peer in asked],
            ),
            "The server, per job:",
            table(peers, list(SERVER), [row(peer, SERVER.values()) for peer in peers]),
            "Targets:",
            judge(results, peers, TARGETS),
        ]
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser("python -m bench postgres")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the jobs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default=",".join(POSTGRES_PEERS), metavar="NAMES", help="default: %(default)s"
    )
    options: Any = parser.parse_args(sys.argv[2:])
    names = options.only.split(",")
    if unknown := set(names) - set(POSTGRES_PEERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(POSTGRES_PEERS)}")
    peers = [POSTGRES_PEERS[name] for name in names]
    for peer in peers:
        install(peer)
    with Server() as server:
        bench = Bench(server, quick=options.quick)
        done = take_turns(bench.round, peers, 1 if options.quick else options.rounds)
        if done:
            told = f"{machine()}, PostgreSQL {server.version}, fsync on, medians of {done}"
            print(told, report(bench.results, peers), sep="\n\n")
