"""What is counted and timed, and by which labels, whatever collects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from jobqueue import (
    App,
    Backoff,
    EnqueueRequest,
    Fatal,
    InvalidArgumentError,
    Job,
    JobFailedError,
    MemoryStorage,
    Queue,
    Reaper,
)
from jobqueue.observe import metrics
from jobqueue.observe.metrics import OTHER, instrument
from jobqueue.testing import FakeClock
from tests.support import Recorder, die, until, within


class Figures:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.times: dict[tuple[str, ...], list[float]] = {}

    def increment(self, name: str, labels: Mapping[str, str], /) -> None:
        self.counts[name, *labels.values()] += 1

    def observe(self, name: str, seconds: float, labels: Mapping[str, str], /) -> None:
        self.times.setdefault((name, *labels.values()), []).append(seconds)


@pytest.fixture
def figures() -> Figures:
    return Figures()


async def work(job: Job[Any]) -> str:
    match job.payload:
        case "fatal":
            raise Fatal("no")
        case "once" if job.attempts == 1:
            raise ValueError("not yet")
    return "done"


async def test_each_end_of_a_job_is_counted_and_timed(figures: Figures) -> None:
    queue = Queue("memory://", "mail", backoff=Backoff.fixed(0.001))
    queue.execute(work)
    instrument(queue, sink=figures)

    @queue.task
    async def send(to: str) -> str:
        return to

    async with queue:
        await within(queue.enqueue_and_wait("a", "fine"))
        await within(queue.enqueue_and_wait("b", "once"))
        with pytest.raises(JobFailedError):
            await within(queue.enqueue_and_wait("c", "fatal"))
        await within(send.enqueue_and_wait("ann"))
        await queue.enqueue("a", "fine")  # a duplicate
        await queue.enqueue("d", None, delay=3600.0)
        await queue.cancel("d")
        await until(lambda: figures.counts["jobqueue_jobs_ended_total", "mail", "send", "completed", ""] == 1)
    assert figures.counts == {
        ("jobqueue_jobs_enqueued_total", "mail", ""): 4,
        ("jobqueue_jobs_enqueued_total", "mail", "send"): 1,
        ("jobqueue_jobs_ended_total", "mail", "", "completed", ""): 2,
        ("jobqueue_jobs_ended_total", "mail", "send", "completed", ""): 1,
        ("jobqueue_jobs_ended_total", "mail", "", "failed", "fatal"): 1,
        ("jobqueue_jobs_ended_total", "mail", "", "cancelled", ""): 1,
        ("jobqueue_jobs_retried_total", "mail", ""): 1,
    }
    assert len(figures.times["jobqueue_job_duration_seconds", "mail", ""]) == 4
    assert len(figures.times["jobqueue_job_duration_seconds", "mail", "send"]) == 1
    waits = figures.times["jobqueue_job_wait_seconds", "mail", ""]
    assert len(waits) == 4
    assert all(0 <= wait < 5 for wait in waits)


async def test_tasks_that_nobody_here_declares_share_one_label(figures: Figures) -> None:
    queue = Queue("memory://", "mail")
    instrument(queue, sink=figures)
    async with queue:
        names = [f"task-{number}" for number in range(50)]
        await queue.enqueue_many(
            [EnqueueRequest(None, {"args": [], "kwargs": {}}, task=name) for name in names]
        )
    assert figures.counts == {("jobqueue_jobs_enqueued_total", "mail", OTHER): 50}


async def test_a_reaper_counts_stalls_and_what_fails_by_them(figures: Figures) -> None:
    storage = MemoryStorage()
    await storage.open()
    reaper = Reaper(storage, sweep_interval=0.05)
    heard = Recorder(reaper)
    instrument(reaper, sink=figures)
    await die(storage, "a", max_stalls=1)
    await die(storage, "b", max_stalls=0)
    async with reaper:
        await until(lambda: heard.names.count("stalled") == 2)
    await storage.close()
    assert figures.counts == {
        ("jobqueue_jobs_stalled_total", "q"): 2,
        ("jobqueue_jobs_ended_total", "q", "", "failed", "stalled"): 1,
    }


@pytest.mark.parametrize("by_reaper", [True, False])
async def test_jobs_that_have_not_started_in_time_are_counted_and_logged(
    figures: Figures, caplog: pytest.LogCaptureFixture, by_reaper: bool
) -> None:
    clock = FakeClock()
    queue = Queue(MemoryStorage(clock=clock), "q")
    reaper = Reaper(queue.storage)
    instrument(queue, reaper, sink=figures)
    async with queue:
        await queue.enqueue("a", 1, expires=1.0)
        clock.move(1.0)
        await (reaper.sweep() if by_reaper else queue.reclaim())
    assert figures.counts["jobqueue_jobs_ended_total", "q", "", "failed", "expired"] == 1
    assert figures.times == {}
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.getMessage().startswith("job 'a' of q failed (expired) after 0 attempts")


async def test_queues_that_only_a_reaper_sees_have_a_bounded_number_of_labels(
    figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MAX_QUEUES", 2)
    labels = metrics.QueueLabels()
    labels.know("mine")
    assert [labels.of(name) for name in ("a", "b", "c", "a", "mine", "d")] == [
        "a",
        "b",
        OTHER,
        "a",
        "mine",
        OTHER,
    ]


async def test_an_app_is_counted_with_all_its_parts_each_once(figures: Figures) -> None:
    queue = Queue("memory://", "mail")
    queue.execute(work)
    app = App(queue.storage, [queue])
    remove = instrument(app, queue, sink=figures)
    async with app:
        await within(queue.enqueue_and_wait("a", "fine"))
        await until(lambda: figures.counts["jobqueue_jobs_ended_total", "mail", "", "completed", ""] == 1)
        remove()
        await within(queue.enqueue_and_wait("b", "fine"))
    assert figures.counts["jobqueue_jobs_enqueued_total", "mail", ""] == 1


@pytest.mark.parametrize("sources", [(), ("mail",), (None,)])
def test_anything_else_cannot_be_instrumented(figures: Figures, sources: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="sources"):
        instrument(*sources, sink=figures)
