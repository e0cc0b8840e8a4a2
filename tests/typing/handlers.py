# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A typed queue checks its handler, its payloads and its results; an untyped one takes any."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import wraps
from typing import Any, assert_type

from jobqueue import EnqueueResult, Handler, Job, JobStatus, Queue

typed = Queue[int, str]("memory://")
untyped = Queue("memory://")


# -- handlers that fit ----------------------------------------------------------------------------


@typed.execute
async def awaited(job: Job[int]) -> str:
    return str(assert_type(job.payload, int))


@typed.execute
def plain(job: Job[int]) -> str:
    return str(job.payload)


@typed.execute
@wraps(awaited)
def wrapped(job: Job[int]) -> Awaitable[str]:
    return awaited(job)


class Printer:
    async def __call__(self, job: Job[int]) -> str:
        return str(job.payload)


typed.execute(Printer())


@typed.execute
async def of_any(job: Job) -> str:
    return str(assert_type(job.payload, Any))


@untyped.execute
async def any_awaited(job: Job) -> str:
    return job.id


@untyped.execute
def any_plain(job: Job[bytes]) -> int:
    return len(job.payload)


def register(handler: Handler[int, str]) -> None:
    typed.execute(handler)


# -- handlers that do not fit ---------------------------------------------------------------------


async def other_result(job: Job[int]) -> int:
    return job.payload


def other_payload(job: Job[str]) -> str:
    return job.payload


def no_job() -> str:
    return ""


typed.execute(other_result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
typed.execute(other_payload)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
typed.execute(no_job)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
untyped.execute(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


# -- calls ----------------------------------------------------------------------------------------


async def calls(job: Job[int]) -> None:
    assert_type(await awaited(job), str)
    assert_type(plain(job), str)
    assert_type(await typed.enqueue("a", 1), EnqueueResult[str])
    assert_type(await typed.enqueue_many([("a", 1), (None, 2)]), list[EnqueueResult[str]])
    assert_type(await typed.enqueue_and_wait("a", 1), str)
    assert_type(await typed.wait("a"), str)
    assert_type(await typed.get_status("a"), JobStatus[str] | None)
    assert_type(await typed.get_result("a"), str | None)
    assert_type(await typed.get_result("a", 0), str | int)
    assert_type(await typed.get_result("a", default=""), str)
    await typed.enqueue("a", "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await typed.enqueue_many([("a", "1")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def untyped_calls() -> None:
    await untyped.enqueue("a", {"any": "thing"})
    assert_type(await untyped.enqueue_and_wait("a", 1), Any)
    assert_type(await untyped.get_result("a"), Any | None)
