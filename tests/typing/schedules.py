# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Schedules: a declared task stays what it is, and options are known by name."""

from __future__ import annotations

from datetime import datetime
from typing import assert_type

from jobqueue import CatchUp, Queue, Schedule

queue = Queue("memory://")


@queue.schedule(cron="0 2 * * *", timezone="Europe/Berlin", catch_up="all", priority=3)
@queue.task
async def report(day: str = "today") -> int:
    return len(day)


@queue.schedule(every=60.0, catch_up=CatchUp.SKIP, result_ttl=None, kwargs={"day": "monday"})
@queue.task(name="other")
def other(day: str) -> None:
    print(day)


queue.schedule(every=60.0, prioritty=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
queue.schedule(cron=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def main() -> None:
    assert_type((await report.enqueue("friday")).result, int | None)
    added = await queue.schedules.add("nightly", report, args=("monday",), cron="@daily", group="tenant:7")
    assert_type(added, Schedule)
    assert_type(added.next_at, datetime | None)
    assert_type(await queue.schedules.list(), list[Schedule])
    assert_type(await queue.schedules.get("nightly"), Schedule | None)
    assert_type(await queue.schedules.remove("nightly"), bool)
    print((await queue.schedules.run_now("nightly")).id)
