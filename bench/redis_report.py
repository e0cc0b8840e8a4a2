"""The tables, the targets and the chart of the Redis benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from bench.chart import Panel, chart, number
from bench.peers import Peer
from bench.requests import TWO, request_tables
from bench.results import Results, Target, judge, table

RATES = {
    "enqueue, 100 in flight": "enqueue",
    "drain, 100 slots": "drain100",
    "drain, 10 slots": "drain10",
}
SERVER = {
    "CPU, enqueue (µs)": "enqueue cpu",
    "CPU, drain (µs)": "drain100 cpu",
    "CPU, end to end (µs)": "cpu",
    "commands, enqueue": "enqueue commands",
    "commands, drain": "drain100 commands",
    "bytes per queued job": "bytes",
}
AT_100, AT_1 = f"{TWO} 100 rate", f"{TWO} 1 p50"
TARGETS = (
    Target(what="request/response, two processes, 100", name=AT_100, peer="platformatic", factor=4),
    Target(what="the same, 1, p50 (ms)", name=AT_1, peer="platformatic", factor=2, less_is_better=True),
    Target(what="the same, 1, longest (ms)", name=f"{TWO} 1 longest", limit=50),
    Target(what="drain, 100 slots", name="drain100", peer="bullmq", factor=3.5),
    Target(what="drain, 100 slots", name="drain100", peer="python", factor=30),
    Target(what="enqueue, 100 in flight", name="enqueue", peer="bullmq", factor=3.5),
    Target(what="enqueue, 100 in flight", name="enqueue", peer="python", factor=15),
    Target(what="Redis CPU per job, end to end (µs)", name="cpu", limit=6),
    Target(what="bytes per queued job", name="bytes", limit=260),
)


def report(results: Results, peers: Sequence[Peer]) -> str:
    """Write everything as Markdown."""
    return "\n\n".join(
        [
            "Jobs per second:",
            _table(results, peers, RATES),
            request_tables(results, peers),
            "The server, per job (drain: 100 slots):",
            _table(results, peers, SERVER),
            "Targets:",
            judge(results, peers, TARGETS),
        ]
    )


def _table(results: Results, peers: Sequence[Peer], columns: dict[str, str]) -> str:
    rows = [[number(results.get(peer.name, name)) for name in columns.values()] for peer in peers]
    return table(peers, list(columns), rows)


def draw(told: str, results: Results, peers: Sequence[Peer]) -> str:
    """Draw the chart."""

    def panel(title: str, note: str, name: str) -> Panel:
        names = [peer.title.split(" ")[0].removesuffix("/job-queue") for peer in peers]
        values = [results.get(peer.name, name) for peer in peers]
        return Panel(title, note, list(zip(names, values, strict=True)))

    panels = [
        panel("Enqueue", "jobs per second, 100 in flight, more is better", "enqueue"),
        panel("Drain", "no-op jobs per second, 100 slots, one worker process, more is better", "drain100"),
        panel("Request/response", "per second, two processes, 100 in flight, more is better", AT_100),
        panel("Request/response alone", "milliseconds, p50, two processes, one in flight", AT_1),
        panel("Redis CPU", "microseconds per job, enqueue + drain, less is better", "cpu"),
        panel("Redis memory", "bytes per queued job of 100 bytes, less is better", "bytes"),
    ]
    return chart("Job queues on Redis", told, panels)
