"""The errors: one tree, copies, the states of a queue that they tell apart, and the names that are stored."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import jobqueue
from jobqueue import (
    BrokenError,
    Confirm,
    ErrorInfo,
    Fatal,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobQueueError,
    MaxRetriesError,
    MemoryStorage,
    NotConfirmedError,
    NotStartedError,
    Queue,
    Reaper,
    Retry,
    SerializationError,
    StoppedError,
    StorageError,
    TooLargeError,
    UnsupportedError,
    WrongLoopError,
    errors,
)
from jobqueue.errors import Reached
from jobqueue.model.failures import error_info
from jobqueue.model.outcomes import FailureReason, decode_error, encode_error
from jobqueue.storage.file.disk.lock import DisplacedError

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "InvalidArgumentError": ("name", "is bad"),
    "JobFailedError": ("a", ErrorInfo("E", "m"), 2, "fatal"),
    "MaxRetriesError": ("a", ErrorInfo("E", "m"), 2, "error"),
    "UnsupportedError": ("schedules", "MyStore", "Documents", "use another"),
    "NotConfirmedError": (Confirm(replicas=2, local_fsync=True), Reached(local_fsync=True, replicas=1)),
}
ERRORS = [getattr(errors, name) for name in errors.__all__ if name != "ErrorInfo"]


def an(error: type[JobQueueError]) -> JobQueueError:
    return error(*ARGUMENTS.get(error.__name__, ("it broke",)))


# -- the tree ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_a_copy_and_a_pickle(
    error: type[JobQueueError], again: Callable[[JobQueueError], JobQueueError]
) -> None:
    original = an(error)
    copied = again(original)
    assert type(copied) is error
    assert (str(copied), vars(copied)) == (str(original), vars(original))


def test_the_text_of_an_error_is_the_same_after_a_copy() -> None:
    failed = MaxRetriesError("a", ErrorInfo("ValueError", "bad"), 3, "error")
    for again in (pickle.loads(pickle.dumps(failed)), copy.copy(failed)):
        assert (again.job_id, again.error, again.attempts, again.reason) == ("a", failed.error, 3, "error")
        assert str(again) == str(failed) == "job 'a' failed (error) after 3 attempts: ValueError: bad"
    bad = InvalidArgumentError("name", "must be: good")
    again = pickle.loads(pickle.dumps(bad))
    assert (again.argument, str(again)) == ("name", "name: must be: good")


def test_one_attempt_is_no_plural() -> None:
    assert "after 1 attempt:" in str(JobFailedError("a", ErrorInfo("E", ""), 1, "fatal"))


def test_every_class_of_the_tree_is_public_and_no_other_module_makes_one_that_users_get() -> None:
    assert {error.__name__ for error in ERRORS} <= set(jobqueue.__all__)
    assert all(issubclass(error, JobQueueError) for error in ERRORS)
    assert issubclass(TooLargeError, SerializationError)
    assert issubclass(NotConfirmedError, StorageError)
    assert issubclass(UnsupportedError, JobQueueError)


def test_where_0_1_0_had_the_errors_of_stores_they_still_are() -> None:
    from jobqueue.storage import redis

    assert redis.NotConfirmedError is NotConfirmedError
    assert redis.Confirm is Confirm


# -- what a caller can tell apart -------------------------------------------------------------------


async def test_before_the_start_and_after_the_stop_a_queue_is_not_started() -> None:
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q")
    with pytest.raises(NotStartedError, match="not started"):
        await queue.enqueue("a", 1)
    async with queue:
        await queue.enqueue("a", 1)
    with pytest.raises(NotStartedError, match="not started"):
        await queue.wait("a")


async def test_a_wait_that_a_stop_cuts_off_tells_that_the_queue_was_stopped() -> None:
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q")
    async with queue:
        waiting = asyncio.create_task(queue.enqueue_and_wait("a", 1))
        while await queue.get_status("a") is None:
            await asyncio.sleep(0)
    with pytest.raises(StoppedError, match="stopped during this call"):
        await asyncio.wait_for(waiting, 10)


async def test_a_queue_whose_background_task_failed_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q")
    async with queue:
        session = queue._session
        assert session is not None

        async def defect() -> None:
            raise ZeroDivisionError("a defect")

        session.supervisor.spawn(defect(), "defect")
        with pytest.raises(BrokenError, match="must be restarted") as broken:
            await asyncio.wait_for(queue.until_broken(), 10)
        assert isinstance(broken.value.__cause__, ZeroDivisionError)
        with pytest.raises(BrokenError, match="must be restarted"):
            await queue.enqueue("a", 1)


@pytest.mark.parametrize("make", [lambda store: Queue[Any, Any](store, "q"), Reaper], ids=["queue", "reaper"])
def test_another_event_loop_is_the_wrong_one(make: Callable[[MemoryStorage], Any]) -> None:
    served = make(MemoryStorage())
    owner = asyncio.new_event_loop()
    try:
        owner.run_until_complete(served.start())
        with pytest.raises(WrongLoopError, match="in another event loop"):
            asyncio.run(served.stop())
        owner.run_until_complete(served.stop())
    finally:
        owner.close()


def test_so_is_the_event_loop_of_a_forked_child() -> None:
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q")
    owner = asyncio.new_event_loop()
    try:
        owner.run_until_complete(queue.start())
        session = queue._session
        assert session is not None
        session.forked()  # as `os.register_at_fork` calls it
        with pytest.raises(WrongLoopError, match="before a fork"):
            owner.run_until_complete(queue.enqueue("a", os.getpid()))
        session.in_child, session.defect = False, None
        owner.run_until_complete(queue.stop())
    finally:
        owner.close()


async def test_a_result_that_is_too_large_is_stored_under_its_public_name() -> None:
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q", max_payload_bytes=10)

    @queue.execute
    async def handler(job: Job[Any]) -> str:
        return "x" * 100

    async with queue:
        with pytest.raises(jobqueue.JobFailedError) as failed:
            await queue.enqueue_and_wait("a", 1)
    assert failed.value.error.type == "jobqueue.TooLargeError"
    assert failed.value.reason == FailureReason.SERIALIZATION


# -- names that are stored --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [*map(an, ERRORS), Fatal("no"), Retry()], ids=lambda error: type(error).__name__
)
def test_errors_of_ours_are_stored_without_the_module(error: BaseException) -> None:
    name = error_info(error).type
    assert name == f"jobqueue.{type(error).__name__}"
    assert getattr(jobqueue, type(error).__name__) is type(error)


def test_an_inner_error_is_stored_without_the_module_too() -> None:
    assert error_info(DisplacedError("x")).type == "jobqueue.DisplacedError"


def test_errors_of_others_keep_their_module() -> None:
    class jobqueueing(Exception): ...

    jobqueueing.__module__ = "jobqueue_app.errors"
    jobqueueing.__qualname__ = "Bad"
    assert error_info(jobqueueing()).type == "jobqueue_app.errors.Bad"
    assert error_info(json.JSONDecodeError("x", "y", 0)).type == "json.decoder.JSONDecodeError"
    assert error_info(ValueError()).type == "ValueError"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("jobqueue.serde.TooLargeError", "jobqueue.TooLargeError"),
        ("jobqueue.job.Fatal", "jobqueue.Fatal"),
        ("jobqueue.job.Retry", "jobqueue.Retry"),
        ("jobqueue.errors.InvalidArgumentError", "jobqueue.InvalidArgumentError"),
        ("jobqueue.storage.redis.confirm.NotConfirmedError", "jobqueue.NotConfirmedError"),
        ("jobqueue.Fatal", "jobqueue.Fatal"),
        ("app.job.Fatal", "app.job.Fatal"),
        ("jobqueue_app.job.Fatal", "jobqueue_app.job.Fatal"),
        ("ValueError", "ValueError"),
        ("Stalled", "Stalled"),
    ],
)
def test_the_module_paths_of_0_1_0_are_read_as_the_names_of_today(stored: str, read: str) -> None:
    info, reason = decode_error(encode_error(ErrorInfo(stored, "m"), FailureReason.FATAL))
    assert info == ErrorInfo(read, "m")
    assert reason is FailureReason.FATAL
