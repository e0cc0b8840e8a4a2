"""The Redis store against other Redis queues, interleaved, each measurement in a process of its own.

``enqueue``: 100 callers, each in a loop of single enqueues. ``drain``: a worker process with no-op handlers,
from the last job of its warm-up to the last of all. ``request/response``: callers in a loop of "enqueue and
wait for the result", worker of 100 slots in the same process. ``Redis CPU``, ``calls``: of the server,
meanwhile, per job. ``bytes``: growth of the server's memory per queued job, without connections.

A private server without persistence, emptied before each measurement. README.md beside this has the rest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.measure import machine
from bench.peers import PEERS, Peer, install
from bench.redis_report import draw, report
from bench.redis_server import Load, RedisServer
from bench.runner import Runner


class Bench:
    """The measurements of one peer after the other, on one server."""

    def __init__(self, server: RedisServer, *, quick: bool) -> None:
        self.server = server
        self.scale = 10 if quick else 1
        self.seconds = {"warmup": 0.3, "seconds": 0.7} if quick else {"warmup": 0.5, "seconds": 1.5}
        self.results: dict[tuple[str, str], list[float]] = defaultdict(list)

    def all(self, peers: list[Peer], number: int) -> None:
        """Measure all peers once."""
        # Whoever begins a round has no advantage that would last.
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
            started = time.monotonic()
            self.round(peer)
            took = time.monotonic() - started
            print(f"round {number + 1}, {peer.title}: {took:.0f} s", file=sys.stderr)

    def round(self, peer: Peer) -> None:
        """Measure everything of one peer once."""
        for concurrency in (100, 10):
            self.server.empty()
            self._enqueue(peer)
            self._drain(peer, concurrency)
        for in_flight in (1, 10, 100):
            self.server.empty()
            self._request(peer, in_flight)

    def _sizes(self, peer: Peer) -> dict[str, int]:
        def scaled(jobs: int) -> int:
            return -(-jobs // self.scale // 100) * 100  # in whole hundreds: each of the callers makes as many

        return {"port": self.server.port, "warmup": scaled(peer.warmup), "jobs": scaled(peer.jobs)}

    def _note(self, peer: Peer, **values: float) -> None:
        for name, value in values.items():
            self.results[peer.name, name].append(value)

    def _enqueue(self, peer: Peer) -> None:
        sizes = self._sizes(peer)
        before = self.server.load()
        with Runner(peer, "enqueue", sizes | {"in_flight": 100}) as runner:
            start = self.server.load()
            result = runner.measure()
            used = self.server.load() - start
        growth = (self.server.settled() - before).memory
        self._note(peer, enqueue=result["rate"], bytes=growth / (sizes["warmup"] + sizes["jobs"]))
        self._note_load(peer, "enqueue", used, sizes["jobs"])

    def _drain(self, peer: Peer, concurrency: int) -> None:
        sizes = self._sizes(peer)
        with Runner(peer, "drain", sizes | {"concurrency": concurrency}) as runner:
            start = self.server.load()
            result = runner.measure()
            used = self.server.load() - start
        self._note(peer, **{f"drain{concurrency}": result["rate"]})
        self._note_load(peer, f"drain{concurrency}", used, sizes["warmup"] + sizes["jobs"])

    def _note_load(self, peer: Peer, what: str, used: Load, jobs: int) -> None:
        self._note(peer, **{f"{what} cpu": used.cpu / jobs * 1e6, f"{what} calls": used.calls / jobs})

    def _request(self, peer: Peer, in_flight: int) -> None:
        options = {"port": self.server.port, "in_flight": in_flight, **self.seconds}
        with Runner(peer, "request", options) as runner:
            result = runner.measure()
        values = {"": result["rate"], " p50": result["p50"] * 1e3, " p99": result["p99"] * 1e3}
        self._note(peer, **{f"request{in_flight}{name}": value for name, value in values.items()})


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
        rounds = 1 if options.quick else options.rounds
        done = 0
        try:
            while done < rounds:
                bench.all(peers, done)
                done += 1
        except KeyboardInterrupt:
            print(f"ended after {done} of {rounds} rounds", file=sys.stderr)
        if not done:
            return
        medians = {key: statistics.median(values) for key, values in bench.results.items()}
        told = f"{machine()}, Redis {server.version}, medians of {done}"
    print(told, report(medians, peers), sep="\n\n")
    if options.svg:
        options.svg.write_text(draw(told, medians, peers))
