"""Jobs for the unit tests of handlers, without a queue or a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from jobqueue.errors import UnsupportedError
from jobqueue.model.checks import check_count, check_id, check_instant, check_member, check_queue_name
from jobqueue.model.generics import P
from jobqueue.model.headers import encode_headers
from jobqueue.model.outcomes import AbortedReason
from jobqueue.model.serde import JsonSerde, Serde
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.values import Claimed
from jobqueue.worker.job import Job
from jobqueue.worker.run import Run

__all__ = ["make_job"]


class _Alone:
    """Replaces the queue of a job that has none."""

    def __init__(
        self, queue: str, worker_id: str, on_progress: Callable[[Any], object] | None, resources: Any
    ) -> None:
        self.queue = queue
        self.worker_id = worker_id
        self.resources = resources
        self.result_serde: Serde[Any] = JsonSerde()
        self.max_bytes = 1_048_576
        self._on_progress = on_progress

    async def on_saved(self, job: Job[Any], data: bytes, /) -> None:
        await asyncio.sleep(0)  # as every store lets others run

    async def on_progress(self, job: Job[Any], value: Any, /) -> None:
        await asyncio.sleep(0)  # as every store lets others run
        if self._on_progress is not None:
            self._on_progress(value)

    def transaction(self, run: Run, /) -> AbstractAsyncContextManager[Any]:
        remedy = "run it by a queue on a store that has it"
        raise UnsupportedError("job.transaction()", "make_job", "Transactional", remedy)


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
    headers: Mapping[str, str] | None = None,
    aborted: AbortedReason | str | None = None,
    on_progress: Callable[[Any], object] | None = None,
    resources: Any = None,
) -> Job[P]:
    """Make the `Job` that a handler would get, for a unit test that calls the handler itself.

    ``created_at`` is now unless given. With ``aborted`` the run has been asked to end for that reason.
    ``on_progress`` is called with every value that the handler reports. ``resources`` is what the queue's
    lifespan would give. What the handler saves, the job has. Raises `InvalidArgumentError`.
    """
    created = check_instant("created_at", created_at) if created_at else int(SYSTEM_CLOCK.time() * 1000)
    limit = check_count("max_attempts", max_attempts)
    count = check_count("attempts", attempts)
    claimed = Claimed(
        check_id(id),
        b"",
        check_count("fence", fence),
        count,
        limit,
        0,
        created,
        encode_headers(headers or {}),
    )
    now = SYSTEM_CLOCK.monotonic()
    run = Run(claimed, now, now)
    if aborted is not None:
        run.abort(check_member("aborted", AbortedReason, aborted))
    return Job(
        run, payload, _Alone(check_queue_name(queue, "queue"), check_id(worker_id), on_progress, resources)
    )
