# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Middleware of a typed queue knows its payloads and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, assert_type

from jobqueue import EnqueueNext, EnqueueRequest, EnqueueResult, Job, Queue, RunNext

typed = Queue[int, str]("memory://")
untyped = Queue("memory://")


# -- what fits ------------------------------------------------------------------------------------


@typed.around_run
async def around(job: Job[int], call_next: RunNext[int, str]) -> str:
    assert_type(job.payload, int)
    return assert_type(await call_next(job), str)


@typed.around_run
@untyped.around_run
async def around_any(job: Job, call_next: RunNext) -> Any:
    return await call_next(job)


@typed.around_enqueue
@untyped.around_enqueue
async def send(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> list[EnqueueResult[Any]]:
    assert_type(requests[0].id, str | None)
    answers = await call_next([replace(request, priority=5) for request in requests])
    assert_type(answers, list[EnqueueResult[Any]])
    return answers


class Timing:
    async def __call__(self, job: Job[int], call_next: RunNext[int, str]) -> str:
        return await call_next(job)


typed.around_run(Timing())


# -- what does not fit ----------------------------------------------------------------------------


async def other_payload(job: Job[str], call_next: RunNext[str, str]) -> str:
    return await call_next(job)


async def other_result(job: Job[int], call_next: RunNext[int, str]) -> int:
    return len(await call_next(job))


def plain(job: Job[int], call_next: RunNext[int, str]) -> str:
    return str(job.payload)


async def no_answer(requests: Sequence[EnqueueRequest], call_next: EnqueueNext) -> None:
    await call_next(requests)


typed.around_run(other_payload)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
typed.around_run(other_result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
typed.around_run(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
typed.around_enqueue(no_answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
