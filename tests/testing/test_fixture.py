"""The fixture for the tests of applications, with and without pytest."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from jobqueue import (
    App,
    Backoff,
    EnqueueRequest,
    InvalidArgumentError,
    Job,
    JobQueueError,
    JobState,
    MemoryStorage,
    Processed,
    Queue,
    WrongLoopError,
)
from jobqueue.testing import Enqueued, JobQueueFixture

ROOT = Path(__file__).parents[2]
LIMIT = 30.0


@pytest.fixture
def jobs() -> Iterator[JobQueueFixture]:
    with JobQueueFixture() as fixture:
        yield fixture


@pytest.fixture
def queue() -> Queue[Any, Any]:
    """The queue of an application, on a store that no test can reach."""
    queue: Queue[Any, Any] = Queue("redis://127.0.0.1:1", "mail", backoff=Backoff.fixed(60.0))

    @queue.task
    async def send(to: str, subject: str = "hi") -> str:
        if to == "nobody":
            raise ValueError("no such address")
        if to == "all":
            await queue.enqueue_many([send.request("a"), send.request("b")])
        return f"{subject} {to}"

    return queue


def test_a_test_that_is_not_asynchronous(jobs: JobQueueFixture, queue: Queue[Any, Any]) -> None:
    own, send = queue.storage, queue.task["send"]
    jobs.use(queue)
    answer = send.sync.enqueue("ann")
    assert jobs.drain_sync() == Processed(1, 1, 0, 0, 0)
    assert answer.wait(timeout=LIMIT) == "hi ann"
    (job,) = jobs.assert_enqueued(send)
    assert job == Enqueued("mail", answer.id, {"args": ["ann"], "kwargs": {}}, "send", "", 0, 0.0)
    jobs.close()
    assert queue.storage is own
    assert not queue.sync.is_open


async def test_an_asynchronous_test(jobs: JobQueueFixture, queue: Queue[Any, Any]) -> None:
    send = queue.task["send"]
    jobs.use(queue)
    assert await jobs.drain() == Processed(0, 0, 0, 0, 0)
    async with queue.producer():
        answer = await send.enqueue("all")
        assert (await jobs.drain()).completed == 3
        assert await answer.wait(timeout=LIMIT) == "hi all"
        with pytest.raises(WrongLoopError):
            jobs.drain_sync()


def test_a_queue_that_is_started_in_another_loop_works_there(
    jobs: JobQueueFixture, queue: Queue[Any, Any]
) -> None:
    send = queue.task["send"]
    jobs.use(queue)
    with asyncio.Runner() as app:
        app.run(queue.start(work=False))
        app.run(send.enqueue("all"))

        async def drain_from_elsewhere() -> Processed:
            return await asyncio.to_thread(jobs.drain_sync)

        assert app.run(drain_from_elsewhere()).completed == 3
        app.run(queue.stop())


def test_time_passes_at_once(jobs: JobQueueFixture, queue: Queue[Any, Any]) -> None:
    send = queue.task["send"]
    jobs.use(queue)
    send.sync.using(id="failing", max_attempts=2).enqueue("nobody")
    send.sync.using(id="later", delay=3_600.0).enqueue("ann")
    assert jobs.drain_sync() == Processed(1, 0, 0, 1, 0)
    jobs.travel(61.0)
    assert jobs.drain_sync() == Processed(1, 0, 1, 0, 0)
    failed = queue.sync.get_status("failing")
    assert failed is not None
    assert failed.state is JobState.FAILED
    jobs.travel(3_601.0)
    assert jobs.drain_sync() == Processed(1, 1, 0, 0, 0)
    assert queue.sync.get_status("failing") is None


def test_what_was_enqueued_is_compared(jobs: JobQueueFixture, queue: Queue[Any, Any]) -> None:
    send = queue.task["send"]
    plain: Queue[Any, Any] = Queue("redis://127.0.0.1:1", "plain")
    jobs.use(queue, plain)
    jobs.assert_not_enqueued()
    send.sync.using(id="1", group="g").enqueue("ann", subject="hello")
    plain.sync.enqueue("2", {"at": [1, 2]}, priority=3, delay=5.0)
    plain.sync.enqueue("2", "a duplicate, which makes no job")
    assert len(jobs.enqueued) == 2
    jobs.assert_enqueued(send.request("ann", subject="hello"))
    jobs.assert_enqueued(send.using(id="1", group="g").request("ann", subject="hello"))
    jobs.assert_enqueued(plain, payload={"at": (1, 2)}, id="2", count=1)
    jobs.assert_enqueued(EnqueueRequest("2", {"at": [1, 2]}))
    jobs.assert_enqueued(group="g")
    (job,) = jobs.assert_enqueued(queue)
    assert (job.id, job.group) == ("1", "g")
    for what, like in (
        (send.request("ben"), {}),
        (send.using(id="other").request("ann", subject="hello"), {}),
        (send.using(group="other").request("ann", subject="hello"), {}),
        (plain, {"payload": None}),
        (queue, {"id": "2"}),
        (send, {"count": 2}),
    ):
        with pytest.raises(AssertionError, match="should have been enqueued"):
            jobs.assert_enqueued(what, **like)
    jobs.assert_not_enqueued(send.request("ben"))
    with pytest.raises(AssertionError, match=r"Enqueued:\n  Enqueued\(queue='mail', id='1'"):
        jobs.assert_not_enqueued(send)
    with pytest.raises(InvalidArgumentError, match="what"):
        jobs.assert_enqueued("send")  # type: ignore[arg-type]


def test_jobs_that_never_end_are_an_error(jobs: JobQueueFixture) -> None:
    queue: Queue[Any, Any] = Queue(MemoryStorage(), "q")

    @queue.execute
    async def again(job: Job[Any]) -> None:
        if job.payload == "slow":
            await asyncio.sleep(LIMIT)
        await queue.enqueue(None, None)

    jobs.use(queue)
    queue.sync.enqueue(None, None)
    with pytest.raises(AssertionError, match="20 jobs have run"):
        jobs.drain_sync(limit=20)
    queue.sync.jobs.cancel([job.id for job in queue.sync.jobs.list(state="queued").jobs])
    queue.sync.enqueue("slow", "slow")
    with pytest.raises(AssertionError, match="have not ended within"):
        jobs.drain_sync(timeout=0.3)


def test_apps_are_used_whole_and_started_queues_refused(
    jobs: JobQueueFixture, queue: Queue[Any, Any]
) -> None:
    storage = MemoryStorage()
    other: Queue[Any, Any] = Queue(storage, "other")
    other.execute(lambda job: job.payload)
    whole = App(storage, queues=[other])
    jobs.use(whole)
    assert other.storage is whole.storage is jobs.storage
    other.sync.enqueue("a", 1)
    assert jobs.drain_sync().completed == 1
    jobs.close()
    assert other.storage is whole.storage is storage
    with pytest.raises(InvalidArgumentError, match="sources"):
        jobs.use(object())  # type: ignore[arg-type]

    async def use_a_started_one() -> None:
        async with Queue[Any, Any](storage, "q") as started:
            with pytest.raises(JobQueueError, match="is started"):
                jobs.use(started)

    asyncio.run(use_a_started_one())


# -- the plugin -----------------------------------------------------------------------------------


def test_pytest_finds_the_plugin_where_the_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    name = project["project"]["entry-points"]["pytest11"]["jobqueue"]
    assert importlib.import_module(name).jobqueue_fixture


def test_it_loads_nothing_until_it_is_asked_for() -> None:
    program = (
        "import sys, pytest, typing\nbefore = set(sys.modules)\nimport jobqueue.pytest_plugin\n"
        "print(sorted(set(sys.modules) - before))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "['jobqueue', 'jobqueue.pytest_plugin']"


SUITE = """
import pytest
from jobqueue import Queue

queue = Queue("redis://127.0.0.1:1", "q")

@queue.task
def double(n: int) -> int:
    return 2 * n

def test_it(jobqueue):
    jobqueue.use(queue)
    answer = double.sync.enqueue(2)
    jobqueue.assert_enqueued(double.request(2))
    assert jobqueue.drain_sync().completed == 1
    assert answer.wait() == 4

def test_that_nothing_is_left_of_another(jobqueue):
    jobqueue.use(queue)
    jobqueue.assert_not_enqueued()
    assert queue.sync.jobs.list().jobs == []
"""


def test_a_suite_uses_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    installed = any(entry.name == "jobqueue" for entry in entry_points(group="pytest11"))
    given = [] if installed else ["-p", "jobqueue.pytest_plugin"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", *given, "test_suite.py"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout
