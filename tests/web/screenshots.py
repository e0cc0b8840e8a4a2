"""Makes the pictures of the dashboard in ``docs/images``: ``python -m tests.web.screenshots [DIRECTORY]``."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path
from typing import Any

from jobqueue import MemoryStorage
from jobqueue.web import Dashboard, dashboard
from jobqueue.web.samples import Sample
from tests.web.browser import Browser, browser, served
from tests.web.scene import busy_shop

IMAGES = Path(__file__).parent.parent.parent / "docs/images"
LETTER = "job?queue=payments&id=capture:2005"
NEWSLETTER = "job?queue=mail&id=newsletter:2026-11:new"
PICTURES = [
    ("dashboard-queues", "", 1400, "light", 660),
    ("dashboard-queues-dark", "", 1400, "dark", 660),
    ("dashboard-queue", "queue?queue=payments&state=failed", 1400, "light", 800),
    ("dashboard-job", LETTER, 1400, "light", 860),
    ("dashboard-schedules", "schedules", 1400, "dark", 620),
    ("dashboard-narrow", "", 400, "dark", 860),
]
EVERY = [
    "",
    "queue?queue=mail",
    "queue?queue=thumbnails&state=queued",
    "queue?queue=payments&state=failed",
    LETTER,
    NEWSLETTER,
    "dead",
    "schedules",
    "workers",
    "system",
]


def history(made: Dashboard) -> None:
    """Give the charts ten minutes to show."""
    samples = made._board.samples
    samples.want(["mail", "thumbnails", "payments", "reports"])
    for name, level, phase in (
        ("mail", 42.0, 0.3),
        ("thumbnails", 8.0, 1.9),
        ("payments", 130.0, 0.0),
        ("reports", 0.0, 0),
    ):
        for place in range(121):
            wave = 1 + 0.35 * math.sin(place / 9 + phase) + 0.16 * math.sin(place / 2.3 + phase * 3)
            rate = level * wave
            samples._queues[name].append(Sample(place * 5.0, int(rate * 0.7), int(4 + wave), 12, rate))


async def take(directory: Path, pictures: list[tuple[str, str, int, str, int]], *, whole: bool) -> None:
    storage = MemoryStorage()
    made = dashboard(storage, title="Shop jobs")
    async with busy_shop(storage), served(made) as address:
        history(made)
        with browser() as window:
            await asyncio.to_thread(_take, window, address, directory, pictures, whole)


def _take(window: Browser, address: str, directory: Path, pictures: list[Any], whole: bool) -> None:
    for name, page, width, scheme, height in pictures:
        window.look(width, scheme, height)
        window.driver.get(f"{address}/{page}")
        window.picture(directory / f"{name}.png", whole=whole)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        target = Path(sys.argv[1])
        every = [
            (f"{place}-{width}-{scheme}", page, width, scheme, 900)
            for place, page in enumerate(EVERY)
            for width, scheme in ((1400, "light"), (900, "dark"), (400, "light"))
        ]
        asyncio.run(take(target, every, whole=True))
    else:
        IMAGES.mkdir(exist_ok=True)
        asyncio.run(take(IMAGES, PICTURES, whole=False))
