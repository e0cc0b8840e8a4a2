"""What was measured of several libraries in rounds, and whether the targets hold."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.chart import number
from bench.peers import PEERS, POSTGRES_PEERS, Peer

ALL = PEERS | POSTGRES_PEERS

__all__ = ["Results", "Target", "judge", "table"]


class Results:
    """The values of every library and measurement, one of each round."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def note(self, peer: Peer, values: Mapping[str, float]) -> None:
        """Add what one round has given."""
        for name, value in values.items():
            self._values[peer.name, name].append(value)

    def of(self, peer: str, name: str) -> list[float]:
        """Return the values of all rounds, in their order."""
        return self._values[peer, name]

    def get(self, peer: str, name: str) -> float:
        """Return the median of the rounds; of the longest calls the longest."""
        values = self._values[peer, name]
        return max(values) if name.endswith("longest") else statistics.median(values)

    def total(self, peer: str, name: str) -> float:
        """Return the sum of the rounds."""
        return sum(self._values[peer, name])


@dataclass(frozen=True, kw_only=True)
class Target:
    """How good ours is to be: beside another library, or by itself."""

    what: str
    name: str
    """The measurement."""
    peer: str = ""
    """The other library; "python" for the best of the Python ones; "" for none."""
    factor: float = 0.0
    """How many times better than the other."""
    limit: float = 0.0
    """What is allowed at most, where there is no other."""
    less_is_better: bool = False


def judge(results: Results, peers: Sequence[Peer], targets: Sequence[Target]) -> str:
    """Write which targets hold, as far as their libraries were measured.

    A ratio is that of the medians; in parentheses stand the least and the most of the single rounds.
    """
    lines = [
        "| work | ours | compared with | ratio (rounds) | target | holds |",
        "|---|---:|---|---:|---:|---|",
    ]
    there = {peer.name for peer in peers}
    for target in targets if "ours" in there else ():
        rivals = [p for p in there if (ALL[p].python if target.peer == "python" else p == target.peer)]
        if rivals or not target.peer:
            lines.append(_compared(results, target, rivals) if rivals else _limited(results, target))
    return "\n".join(lines)


def _limited(results: Results, target: Target) -> str:
    ours = results.get("ours", target.name)
    return f"| {target.what} | {number(ours)} | | | ≤ {target.limit:g} | {_verdict(ours <= target.limit)} |"


def _compared(results: Results, target: Target, rivals: Sequence[str]) -> str:
    best = min if target.less_is_better else max
    rival = best(rivals, key=lambda name: results.get(name, target.name))

    def ratio(ours: float, theirs: float) -> float:
        return theirs / ours if target.less_is_better else ours / theirs

    ours, theirs = results.get("ours", target.name), results.get(rival, target.name)
    rounds = list(map(ratio, results.of("ours", target.name), results.of(rival, target.name)))
    times = ratio(ours, theirs)
    return (
        f"| {target.what} | {number(ours)} | {ALL[rival].title}: {number(theirs)} "
        f"| {times:.1f}x ({min(rounds):.1f} to {max(rounds):.1f}) | {target.factor:g}x "
        f"| {_verdict(times >= target.factor)} |"
    )


def _verdict(holds: bool) -> str:  # noqa: FBT001
    return "yes" if holds else "**no**"


def table(peers: Sequence[Peer], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table with a row for each library."""
    lines = [f"| | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for peer, row in zip(peers, rows, strict=True):
        lines.append(f"| {peer.title} | {' | '.join(row)} |")
    return "\n".join(lines)
