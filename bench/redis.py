"""The Redis store against other Redis queues, interleaved, each measurement in a process of its own.

``enqueue``: 100 callers, each in a loop of single enqueues. ``drain``: a worker process with no-op handlers,
from the last job of its warm-up to the last of all. ``request/response``: see `bench.requests`. ``CPU``,
``commands``: of the server, meanwhile, per job. ``bytes``: growth of the server's memory per queued job,
without connections.

A private server without persistence, emptied before each measurement. README.md beside this has the rest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.measure import machine
from bench.peers import PEERS, Peer, install
from bench.redis_report import draw, report
from bench.redis_server import Load, RedisServer
from bench.requests import ONE, TWO, measure_requests
from bench.results import Results
from bench.rounds import take_turns
from bench.runner import Runner


class Bench:
    """The measurements of one peer after the other, on one server."""

    def __init__(self, server: RedisServer, *, quick: bool) -> None:
        self.server = server
        self.scale = 10 if quick else 1
        self.seconds = {"warmup": 0.2, "seconds": 0.5} if quick else {"warmup": 0.3, "seconds": 1.2}
        self.results = Results()

    def round(self, peer: Peer) -> None:
        """Measure everything of one peer once."""
        for slots in (100, 10):
            self.server.empty()
            enqueued, drained = self._enqueue(peer), self._drain(peer, slots)
            self.results.note(peer, enqueued | drained)
            if slots == 100:
                self.results.note(peer, {"cpu": enqueued["enqueue cpu"] + drained["drain100 cpu"]})
        for topology in (TWO, ONE):
            self.server.empty()
            options = {"port": self.server.port, **self.seconds}
            self.results.note(peer, measure_requests(peer, topology, options))

    def _sizes(self, peer: Peer) -> dict[str, int]:
        def scaled(jobs: int) -> int:
            return -(-jobs // self.scale // 100) * 100  # in whole hundreds: each of the callers makes as many

        return {"port": self.server.port, "warmup": scaled(peer.warmup), "jobs": scaled(peer.jobs)}

    def _enqueue(self, peer: Peer) -> dict[str, float]:
        sizes = self._sizes(peer)
        before = self.server.load()
        with Runner(peer, "enqueue", sizes | {"in_flight": 100}) as runner:
            start = self.server.load()
            rate = runner.measure()["rate"]
            used = self.server.load() - start
        growth = (self.server.settled() - before).memory
        measured = {"enqueue": rate, "bytes": growth / (sizes["warmup"] + sizes["jobs"])}
        return measured | _per_job("enqueue", used, sizes["jobs"])

    def _drain(self, peer: Peer, slots: int) -> dict[str, float]:
        sizes = self._sizes(peer)
        with Runner(peer, "drain", sizes | {"concurrency": slots}) as runner:
            start = self.server.load()
            rate = runner.measure()["rate"]
            used = self.server.load() - start
        what = f"drain{slots}"
        return {what: rate} | _per_job(what, used, sizes["warmup"] + sizes["jobs"])


def _per_job(what: str, used: Load, jobs: int) -> dict[str, float]:
    return {f"{what} cpu": used.cpu / jobs * 1e6, f"{what} commands": used.commands / jobs}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m bench redis")
    parser.add_argument("--quick", action="store_true", help="one round with a tenth of the jobs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PEERS), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart of the medians")
    options = parser.parse_args(sys.argv[2:])
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(PEERS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return options


def main() -> None:
    """Run the benchmark."""
    options: Any = arguments()
    peers = [PEERS[name] for name in options.only]
    for peer in peers:
        install(peer)
    with RedisServer() as server:
        bench = Bench(server, quick=options.quick)
        done = take_turns(bench.round, peers, 1 if options.quick else options.rounds)
        if not done:
            return
        told = f"{machine()}, Redis {server.version}, medians of {done}"
    print(told, report(bench.results, peers), sep="\n\n")
    if options.svg:
        options.svg.write_text(draw(told, bench.results, peers))
