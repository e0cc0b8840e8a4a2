"""What the benchmarks share: repeating, medians, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from bench.chart import number
from jobqueue.cli.running import run_fast
from jobqueue.runtime.collector import calm_collector


@dataclass
class Series:
    """The results of one measurement, repeated."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        """The middle of the results."""
        return statistics.median(self.values)

    def row(self) -> str:
        """Write a row of the table."""
        spread = f"{number(min(self.values))} to {number(max(self.values))}"
        return f"| {self.name} | {number(self.median)} {self.unit} | {spread} | {len(self.values)} |"


def machine() -> str:
    """Say in one line where this runs."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, {python}"


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a benchmark as `jobqueue worker` runs a queue: on uvloop, if installed, with a calm collector."""
    calm_collector()
    if find_spec("uvloop") is None:
        print("uvloop is not installed: measuring on asyncio's own loop")
    run_fast(_call(main))


async def _call(main: Callable[[], Awaitable[None]]) -> None:
    await main()


@dataclass(frozen=True)
class Rivals:
    """One measurement of ours and of another library, and how many times better ours has to be."""

    ours: Series
    theirs: Series
    target: float
    less_is_better: bool = False

    def row(self) -> str:
        """Write a row of the comparison."""
        a, b = self.ours.median, self.theirs.median
        ratio = b / a if self.less_is_better else a / b
        holds = "yes" if ratio >= self.target else "**no**"
        return f"| {self.ours.name} | {ratio:.1f} | {self.target:g} | {holds} |"


def comparison(rows: list[Rivals]) -> str:
    """Write the ratios of the medians, and whether the targets hold."""
    head = "| | ratio | target | holds |\n| --- | ---: | ---: | --- |"
    return "\n".join([head, *(row.row() for row in rows)])


def table(rows: list[Series]) -> str:
    """Write the results as a Markdown table."""
    head = "| measurement | median | range | runs |\n| --- | --- | --- | --- |"
    return "\n".join([head, *(row.row() for row in rows)])
