"""The tables, the targets and the chart of the Redis benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.chart import Panel, chart, number
from bench.peers import PEERS, Peer

Medians = dict[tuple[str, str], float]

RATES = (
    ("enqueue, 100 in flight", "enqueue"),
    ("drain, 100 slots", "drain100"),
    ("drain, 10 slots", "drain10"),
    ("request/response, 100", "request100"),
    ("10", "request10"),
    ("1", "request1"),
)
SERVER = (
    ("CPU, enqueue (µs)", "enqueue cpu"),
    ("CPU, drain (µs)", "drain100 cpu"),
    ("CPU, end to end (µs)", "cpu"),
    ("calls, enqueue", "enqueue calls"),
    ("calls, drain", "drain100 calls"),
    ("bytes per queued job", "bytes"),
)


def report(medians: Medians, peers: Sequence[Peer]) -> str:
    """Write everything as Markdown."""
    for peer in peers:
        medians[peer.name, "cpu"] = medians[peer.name, "enqueue cpu"] + medians[peer.name, "drain100 cpu"]
    p50s, p99s = (_rows(medians, peers, [f"request{n} {p}" for n in (1, 10, 100)]) for p in ("p50", "p99"))
    latency_rows = [
        [f"{a} / {b}" for a, b in zip(*both, strict=True)] for both in zip(p50s, p99s, strict=True)
    ]
    parts = [
        "Jobs per second:",
        _table(peers, [name for name, _ in RATES], _rows(medians, peers, [key for _, key in RATES])),
        "Request/response, p50 / p99 in milliseconds:",
        _table(peers, ["1 in flight", "10", "100"], latency_rows),
        "The server, per job (drain: 100 slots):",
        _table(peers, [name for name, _ in SERVER], _rows(medians, peers, [key for _, key in SERVER])),
    ]
    if targets := _targets(medians, {peer.name for peer in peers}):
        parts += ["Targets:", targets]
    return "\n\n".join(parts)


def _rows(medians: Medians, peers: Sequence[Peer], keys: Sequence[str]) -> list[list[str]]:
    return [[number(medians[peer.name, key]) for key in keys] for peer in peers]


def _table(peers: Sequence[Peer], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for peer, row in zip(peers, rows, strict=True):
        lines.append(f"| {peer.title} | {' | '.join(row)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Target:
    """Ours against a peer's: at least ``factor`` times as much; or, with ``limit``, at most that."""

    what: str
    key: str
    peer: str = ""
    """A peer, or "python" for the best of the Python ones."""
    factor: float = 0.0
    limit: float = 0.0


TARGETS = (
    Target("request/response at 100", "request100", "platformatic", factor=4),
    Target("request/response at 1, p50 (ms)", "request1 p50", "platformatic", factor=-2),
    Target("drain, 100 slots", "drain100", "bullmq", factor=2.5),
    Target("drain, 100 slots", "drain100", "python", factor=20),
    Target("enqueue, 100 in flight", "enqueue", "bullmq", factor=3),
    Target("enqueue, 100 in flight", "enqueue", "python", factor=10),
    Target("Redis CPU per job, end to end (µs)", "cpu", limit=8),
    Target("bytes per queued job", "bytes", limit=260),
)


def _targets(medians: Medians, there: set[str]) -> str:
    lines = [
        "| work | ours | compared with | ratio | target | holds |",
        "|---|---:|---|---:|---:|---|",
    ]
    for target in TARGETS:
        rivals = [p for p in there if (PEERS[p].python if target.peer == "python" else p == target.peer)]
        if "ours" not in there or (target.peer and not rivals):
            continue
        ours = medians["ours", target.key]
        if target.limit:
            with_whom, ratio, wanted, holds = "", "", f"≤ {target.limit:g}", ours <= target.limit
        else:
            rival = max(rivals, key=lambda name: medians[name, target.key])
            theirs = medians[rival, target.key]
            # A negative factor: less is better.
            times = ours / theirs if target.factor > 0 else theirs / ours
            with_whom = f"{PEERS[rival].title}: {number(theirs)}"
            ratio, wanted = f"{times:.1f}x", f"{abs(target.factor):g}x"
            holds = times >= abs(target.factor)
        verdict = "yes" if holds else "**no**"
        lines.append(f"| {target.what} | {number(ours)} | {with_whom} | {ratio} | {wanted} | {verdict} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def draw(told: str, medians: Medians, peers: Sequence[Peer]) -> str:
    """Draw the chart, after `report`."""

    def panel(title: str, note: str, key: str) -> Panel:
        names = [peer.title.split(" ")[0].removesuffix("/job-queue") for peer in peers]
        values = [medians.get((peer.name, key)) for peer in peers]
        return Panel(title, note, list(zip(names, values, strict=True)))

    panels = [
        panel("Enqueue", "jobs per second, 100 in flight, more is better", "enqueue"),
        panel("Drain", "no-op jobs per second, 100 slots, one worker process, more is better", "drain100"),
        panel("Request/response", "per second, 100 in flight, more is better", "request100"),
        panel("Request/response alone", "milliseconds, p50, one in flight, less is better", "request1 p50"),
        panel("Redis CPU", "microseconds per job, enqueue + drain, less is better", "cpu"),
        panel("Redis memory", "bytes per queued job of 100 bytes, less is better", "bytes"),
    ]
    return chart("Job queues on Redis", told, panels)
