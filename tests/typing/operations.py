# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""The calls for operators, for the type checkers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_type

from jobqueue import Explanation, Health, JobState, Queue, QueueStats, ReaperStats, ReasonKind, WorkerStats


async def operate(queue: Queue[Any, Any]) -> None:
    assert_type(await queue.drain(1.0), bool)
    assert_type(await queue.clear(ended=True), int)
    stats = assert_type(await queue.stats(), QueueStats)
    assert_type(stats.counts, Mapping[JobState, int])
    assert_type(stats.workers, tuple[WorkerStats, ...])
    assert_type(stats.reaper, ReaperStats | None)
    assert_type(stats.wait_p95, float | None)
    health = assert_type(await queue.health(), Health)
    assert_type(health.problems, tuple[str, ...])
    explanation = assert_type(await queue.jobs.explain("a"), Explanation)
    for reason in explanation.reasons:
        assert_type(reason.kind, ReasonKind)
        assert_type(reason.until, datetime | None)
