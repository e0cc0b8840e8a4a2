"""Jobs for the unit tests of handlers, without a queue or a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jobqueue.generics import P
from jobqueue.job import AbortedReason
from jobqueue.options import check_count, check_id, check_instant, check_member, check_queue_name
from jobqueue.run import Job, Run
from jobqueue.runtime import SYSTEM_CLOCK
from jobqueue.storage.base import Claimed

__all__ = ["make_job"]


class _Alone:
    """Stands for the queue of a job that has none."""

    def __init__(self, queue: str, worker_id: str, on_progress: Callable[[Any], object] | None) -> None:
        self.queue = queue
        self.worker_id = worker_id
        self._on_progress = on_progress

    async def report(self, job: Job[Any], value: Any, /) -> None:
        await asyncio.sleep(0)  # as every store lets others run
        if self._on_progress is not None:
            self._on_progress(value)


def make_job(
    payload: P,
    *,
    id: str = "job",
    attempts: int = 1,
    max_attempts: int = 3,
    queue: str = "default",
    worker_id: str = "worker",
    fence: int = 1,
    created_at: datetime | None = None,
    aborted: AbortedReason | str | None = None,
    on_progress: Callable[[Any], object] | None = None,
) -> Job[P]:
    """Make the `Job` that a handler would get, for a unit test that calls the handler itself.

    ``created_at`` is now unless given. With ``aborted`` the run has been asked to end for that reason.
    ``on_progress`` is called with every value that the handler reports. Raises `InvalidArgumentError`.
    """
    created = check_instant("created_at", created_at) if created_at else int(SYSTEM_CLOCK.time() * 1000)
    limit = check_count("max_attempts", max_attempts)
    count = check_count("attempts", attempts)
    claimed = Claimed(check_id(id), b"", check_count("fence", fence), count, limit, 0, created)
    run = Run(claimed, SYSTEM_CLOCK.monotonic())
    if aborted is not None:
        run.abort(check_member("aborted", AbortedReason, aborted))
    return Job(run, payload, _Alone(check_queue_name(queue, "queue"), check_id(worker_id), on_progress))
