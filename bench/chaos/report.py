"""The table and the chart of the comparison."""

from __future__ import annotations

from collections.abc import Mapping

from bench.chaos.contenders import CONTENDERS
from bench.chaos.tally import Tally
from bench.chart import Panel, chart
from jobqueue.model.numbers import percentile

__all__ = ["report"]

HEAD = """\
| | kills | accepted | lost | failed | wrong result | run again: cut off | by Redis's restart | unexplained \
| recovery p50 | longest | workers that ended by themselves |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""
SETTINGS = """\
| | settings beside the defaults | its documentation says of a dead worker |
|---|---|---|"""


def report(tallies: Mapping[str, Tally], head: str) -> tuple[str, str]:
    """Return the tables as Markdown and the chart as SVG."""
    rows = [_row(CONTENDERS[name].peer.title, each) for name, each in tallies.items()]
    settings = [
        f"| {each.peer.title} | {each.settings} | {each.promise} |"
        for each in CONTENDERS.values()
        if each.name in tallies
    ]
    table = "\n".join([head, "", HEAD, *rows, "", SETTINGS, *settings])
    return table, _drawing(tallies, head)


def _row(title: str, each: Tally) -> str:
    cells = [each.kills, each.accepted, each.lost, each.failed, each.wrong, each.cut_off, each.outage]
    cells.append(each.unexplained)
    numbers = " | ".join(f"{cell:,}" for cell in cells)
    return f"| {title} | {numbers} | {_seconds(each, 0.5)} | {_seconds(each, 1.0)} | {each.restarts:,} |"


def _seconds(each: Tally, share: float) -> str:
    return f"{percentile(each.recovery, share):.1f} s" if each.recovery else "-"


def _drawing(tallies: Mapping[str, Tally], head: str) -> str:
    def bars(count: str) -> list[tuple[str, float | None]]:
        return [(_short(name), float(getattr(each, count))) for name, each in tallies.items()]

    longest = [
        (_short(name), percentile(each.recovery, 1.0) if each.recovery else None)
        for name, each in tallies.items()
    ]
    return chart(
        "Workers killed every 2 s, Redis killed once",
        head,
        [
            Panel("Lost", "accepted jobs without an outcome", bars("lost")),
            Panel("Failed", "accepted jobs that ended as failed, though no handler raised", bars("failed")),
            Panel(
                "Run again without a cause",
                "further runs of jobs that no kill had cut off",
                bars("unexplained"),
            ),
            Panel(
                "Longest recovery", "seconds from a kill to the next run of a job that it cut off", longest
            ),
        ],
    )


def _short(name: str) -> str:
    return CONTENDERS[name].peer.title.partition(" ")[0].removeprefix("@")
