"""Request/response of one library: callers and worker in two processes, and in one.

The callers share a process, each in a loop of "enqueue and wait for the result"; a worker of 100 slots is in
a process of its own, or in theirs. A call that is under way when the time is up still counts, and so does one
that its library gives up: that is lost, and took as long as it waited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.chart import number
from bench.peers import Peer
from bench.results import Results, table
from bench.runner import Runner

__all__ = ["ONE", "TWO", "measure_requests", "request_tables"]

IN_FLIGHT = (1, 10, 100)
TWO, ONE = "two processes", "one process"
_MILLISECONDS = ("p50", "p99", "p999", "longest")


def measure_requests(
    peer: Peer, topology: str, options: Mapping[str, float], directory: str = ""
) -> dict[str, float]:
    """Measure a library once at each number of calls in flight; names are ``TOPOLOGY IN_FLIGHT WHAT``."""
    if topology == ONE:
        return _at_each(peer, topology, options, directory)
    with Runner(peer, "serve", {"port": options["port"]}, directory) as worker:
        found = _at_each(peer, topology, {**options, "served": 1}, directory)
        worker.measure()  # the line that ends it
    return found


def _at_each(peer: Peer, topology: str, options: Mapping[str, float], directory: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for in_flight in IN_FLIGHT:
        with Runner(peer, "request", {**options, "in_flight": in_flight}, directory) as callers:
            for what, value in callers.measure().items():
                found[f"{topology} {in_flight} {what}"] = value * (1e3 if what in _MILLISECONDS else 1)
    return found


def request_tables(results: Results, peers: Sequence[Peer]) -> str:
    """Write requests per second and what a call takes, in two processes and in one."""
    return "\n\n".join(
        [
            "Request/response, calls per second:",
            _rates(results, peers),
            *(part for topology in (TWO, ONE) for part in _latencies(results, peers, topology)),
        ]
    )


def _rates(results: Results, peers: Sequence[Peer]) -> str:
    pairs = [(topology, n) for topology in (TWO, ONE) for n in reversed(IN_FLIGHT)]
    columns = [f"{topology}, {n} in flight" if n == max(IN_FLIGHT) else str(n) for topology, n in pairs]
    rows = [
        [number(results.get(peer.name, f"{topology} {n} rate")) for topology, n in pairs] for peer in peers
    ]
    return table(peers, columns, rows)


def _latencies(results: Results, peers: Sequence[Peer], topology: str) -> tuple[str, str]:
    def cell(peer: Peer, in_flight: int) -> str:
        names = (f"{topology} {in_flight} {what}" for what in _MILLISECONDS)
        return " / ".join(number(results.get(peer.name, name)) for name in names)

    head = f"A call, {topology}, in milliseconds, p50 / p99 / p99.9 / the longest of all rounds:"
    columns = [f"{n} in flight" if n == min(IN_FLIGHT) else str(n) for n in IN_FLIGHT]

    def calls(peer: Peer) -> str:
        made, lost = (results.total(peer.name, f"{topology} 1 {what}") for what in ("calls", "lost"))
        return f"{made:,.0f}, {lost:,.0f} lost" if lost else f"{made:,.0f}"

    rows = [[*(cell(peer, n) for n in IN_FLIGHT), calls(peer)] for peer in peers]
    return head, table(peers, [*columns, "calls at 1"], rows)
