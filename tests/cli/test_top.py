"""top: live on a terminal, once elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any, Self

import pytest
from rich.console import Console

from jobqueue import JobState, MemoryStorage, Queue, QueueStats, StorageUnavailableError, WorkerStats
from jobqueue.cli import overview
from jobqueue.cli.overview import Overview, Trends, as_data, look, rendered
from jobqueue.observe.gauges import GuardGauges
from tests.cli.terminals import Terminal

NOW = datetime(2026, 11, 26, 19, tzinfo=UTC)


class EndError(Exception):
    """Ends a loop without end."""


def queue(name: str, *, ready: int = 0, running: int = 0, workers: int = 0, **fields: Any) -> QueueStats:
    counts = {**dict.fromkeys(JobState, 0), JobState.QUEUED: ready, JobState.PROCESSING: running}
    return QueueStats(**{
        "name": name, "paused": False, "counts": counts, "total": ready + running, "oldest_age": None,
        "workers": tuple(
            WorkerStats(worker_id=f"{name}-w{number}", host=None, pid=None, seen_at=NOW, running=running)
            for number in range(workers)
        ),
        "reaper": None, "rate": 0.0, "wait_p50": None, "wait_p95": None, **fields,
    })  # fmt: skip


def text(found: Overview, lines: int | None = None, width: int = 120) -> str:
    trends, out = Trends(), StringIO()
    trends.add(found.queues)
    Console(file=out, width=width, markup=False).print(rendered(found, trends, width, lines))
    return out.getvalue()


def test_where_there_is_no_terminal_it_is_shown_once(made: str, cli: Callable[..., Any], data: Any) -> None:
    data("enqueue", "a", "1", "-s", made, "-q", "mail")
    shown = cli("top", "-s", made).stdout
    assert "\x1b" not in shown
    assert shown.splitlines()[0].split()[:2] == ["queue", "ready"]
    assert "queue mail has jobs and no worker" in shown
    assert "no reaper sweeps this store" in shown
    (found,) = data("top", "-s", made)["queues"]
    assert (found["queue"], found["queued"], found["workers"], found["paused"]) == ("mail", 1, [], False)
    assert "no queue 'typo'" in cli("top", "-s", made, "-q", "typo", code=3).stderr


def test_every_kind_of_store_can_be_looked_at(anywhere: str, data: Any) -> None:
    data("enqueue", "a", "1", "-s", anywhere, "-q", "mail")
    found = data("top", "-s", anywhere)
    assert [(queue["queue"], queue["queued"]) for queue in found["queues"]] == [("mail", 1)]
    assert (found["unread"], found["reapers"], found["guard"]) == (0, [], None)


def test_on_a_terminal_it_goes_on_until_ctrl_c_and_leaves_the_screen_as_it_was(made: str, data: Any) -> None:
    terminal = Terminal("top", "-s", made, "--interval", "0.1", columns=120)
    terminal.read_until("no reaper sweeps")
    data("enqueue", "a", "1", "-s", made, "-q", "mail")
    terminal.read_until("mail has jobs and no worker")
    terminal.interrupt()
    assert terminal.wait() == 0
    assert "\x1b[?1049h" in terminal.text
    assert re.search(r"\x1b\[\?1049l(\x1b\[\?25h)?\s*$", terminal.text)
    assert "Traceback" not in terminal.text


def test_the_busiest_come_first_and_what_has_no_room_is_counted() -> None:
    queues = [queue(f"q{number:02}", ready=number, workers=2, running=number) for number in range(30)]
    shown = text(Overview(NOW, queues, 5, [], None), lines=20)
    assert len(shown.splitlines()) <= 20
    names = re.findall(r"^q(\d\d) ", shown, re.MULTILINE)
    assert names[0] == "29"
    assert re.search(r"and \d+ more queues", shown)
    assert re.search(r"and \d+ more workers", shown)
    assert "q00" in text(Overview(NOW, queues, 0, [], None))


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    found = Overview(NOW, [queue("q" * 20, ready=5, running=2, rate=1234.5)], 0, [], None)
    assert "completed" in text(found, width=120)
    narrow = text(found, width=60).splitlines()
    assert narrow[0].split() == ["queue", "ready", "running", "dead", "oldest"]
    assert "…" not in narrow[1]


def test_names_are_data_and_a_line_stays_a_line() -> None:
    hostile = queue("[red]x", ready=1, workers=1)
    (worker,) = hostile.workers
    shown = text(Overview(NOW, [hostile, queue("p", paused=True)], 0, [], None), width=60)
    assert "[red]x" in shown
    assert "p (paused)" in shown
    assert all(len(line) <= 60 for line in shown.splitlines())
    evil = WorkerStats(worker_id="\x1b[2J\n\u202e" * 100, host=None, pid=None, seen_at=NOW, running=0)
    shown = text(Overview(NOW, [replace(hostile, workers=(evil, worker))], 0, [], None), width=60)
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(("breaker", "lost"), [("open", 0), ("closed", 3), ("closed", 0)])
def test_the_guard_is_shown(breaker: str, lost: int) -> None:
    found = Overview(NOW, [], 0, [], GuardGauges(breaker=breaker, buffered=7, lost=lost))
    assert f"guard: breaker {breaker}, 7 writes buffered" in text(found)
    assert as_data(found)["guard"] == {"breaker": breaker, "buffered": 7, "lost": lost}


def test_a_trend_is_drawn_to_its_own_scale() -> None:
    trends = Trends()
    for rate in (0.0, 5.0, 10.0, None):
        trends.add([queue("q", rate=rate)])
    assert trends.bars("q") == "▁▅█▁"
    assert trends.bars("unknown") == ""
    trends.add([])
    assert trends.bars("q") == ""


async def test_no_more_queues_are_read_than_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST_QUEUES", 2)
    storage = MemoryStorage()
    for name in ("c", "a", "b"):
        async with Queue(storage, name) as made:
            await made.enqueue(None, 1)
    await storage.open()
    found = await look(storage, ())
    await storage.close()
    assert [each.name for each in found.queues] == ["a", "b"]
    assert found.unread == 1


async def test_while_the_store_is_away_the_last_figures_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobqueue.cli.commands import top

    frames: list[str] = []
    answers: list[Any] = [
        Overview(NOW, [queue("mail", ready=7)], 0, [], None),
        StorageUnavailableError("gone"),
    ]

    async def look(store: Any, names: Any) -> Overview:
        if not answers:
            raise EndError
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    class Screen:
        def __init__(self, **options: Any) -> None:
            self.console = options["console"]

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def update(self, shown: Any, *, refresh: bool) -> None:
            out = StringIO()
            Console(file=out, width=100).print(shown)
            frames.append(out.getvalue())

    monkeypatch.setattr(top, "look", look)
    monkeypatch.setattr("rich.live.Live", Screen)
    storage = MemoryStorage()
    await storage.open()
    with pytest.raises(EndError):
        await asyncio.wait_for(top._watch(storage, (), "redis://x", 0.001), 10)
    await storage.close()
    first, second = frames
    assert "mail" in first
    assert "away" not in first
    assert "away: gone" in second
    assert "mail" in second
