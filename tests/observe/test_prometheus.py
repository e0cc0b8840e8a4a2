"""Metrics for Prometheus: what a scrape shows, from whichever thread, and without a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobqueue import (
    App,
    InvalidArgumentError,
    Job,
    Limits,
    MemoryStorage,
    Queue,
    Rate,
    Reaper,
    StorageUnavailableError,
)  # fmt: skip
from jobqueue.observe import looks
from jobqueue.observe.gauges import read_gauges
from jobqueue.observe.prometheus import Metrics, instrument
from jobqueue.testing import FakeClock
from tests.support import until, within


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture(autouse=True)
def no_look_is_too_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FRESH", 0.0)


def values(text: bytes) -> dict[tuple[str, ...], float]:
    """Return all samples by name and labels, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def echo(job: Job[Any]) -> Any:
    return job.payload


class Away(MemoryStorage):
    """A store that at times does not answer, or says that it cannot."""

    silent = refuses = False

    async def counts(self, queue: str) -> Any:
        if self.silent:
            await asyncio.Event().wait()
        if self.refuses:
            raise StorageUnavailableError("away")
        return await super().counts(queue)


async def test_a_scrape_shows_events_and_what_the_store_has(registry: CollectorRegistry) -> None:
    queue = Queue("memory://", "mail")
    queue.execute(echo)
    metrics = instrument(App(queue.storage, [queue]), registry=registry)
    app = App(queue.storage, [queue])
    async with app:
        await within(queue.enqueue_and_wait("a", 1))
        await queue.pause()
        await queue.enqueue_many([("b", 1), ("c", 1)])
        await until(lambda: value(registry, "jobqueue_jobs_ended_total", state="completed") == 1)
        found = values(await metrics.render())
    assert found["jobqueue_jobs_enqueued_total", "mail", ""] == 3
    assert found["jobqueue_job_duration_seconds_count", "mail", ""] == 1
    assert found["jobqueue_jobs", "mail", "queued"] == 2
    assert found["jobqueue_jobs", "mail", "completed"] == 1
    assert found["jobqueue_workers", "mail"] == 1
    assert found["jobqueue_queue_paused", "mail"] == 1
    assert 0 < found["jobqueue_oldest_job_age_seconds", "mail"] < 10
    assert found["jobqueue_store_up",] == 1
    assert "a" not in {label for sample in found for label in sample[1:]}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_a_reaper_shows_all_queues_its_leadership_and_late_schedules(
    registry: CollectorRegistry,
) -> None:
    storage = MemoryStorage()
    async with Queue(storage, "a") as one, Queue(storage, "b") as other:
        await one.enqueue(None, 1)
        await other.enqueue(None, 1)
        await one.schedules.add("tick", 1, every=3600.0)
        reaper = Reaper(storage)
        metrics = instrument(reaper, registry=registry)
        assert values(await metrics.render()) == {}, "it is not started"
        async with reaper:
            await until(lambda: reaper.schedule_lag is not None)
            found = values(await metrics.render())
        assert reaper.schedule_lag is None
    assert found["jobqueue_jobs", "a", "queued"] == found["jobqueue_jobs", "b", "queued"] == 1
    assert found["jobqueue_reaper_leader",] == 1
    assert found["jobqueue_schedule_lag_seconds",] == 0
    assert "jobqueue_reapers" in {name for name, *_ in found}


async def test_a_schedule_that_cannot_be_enqueued_is_told_as_late(registry: CollectorRegistry) -> None:
    class Full(MemoryStorage):
        full = False

        async def insert(self, *args: Any, **options: Any) -> Any:
            if self.full:
                raise StorageUnavailableError("no room")
            return await super().insert(*args, **options)

    clock = FakeClock()
    storage = Full(clock=clock)
    async with Queue(storage, "mail") as queue, Reaper(storage) as reaper:
        await queue.schedules.add("tick", 1, every=10.0)
        await clock.advance(2.0)
        metrics = instrument(reaper, registry=registry)
        assert values(await metrics.render())["jobqueue_schedule_lag_seconds",] == 0
        storage.full = True
        await clock.advance(25.0)
        assert 15 <= values(await metrics.render())["jobqueue_schedule_lag_seconds",] <= 25
        storage.full = False
        await clock.advance(5.0)
        assert values(await metrics.render())["jobqueue_schedule_lag_seconds",] == 0


async def test_the_limits_that_there_are_are_shown(registry: CollectorRegistry) -> None:
    limits = Limits(running=5, group_rate=Rate(30, per=60.0))
    async with Queue("memory://", "mail", limits=limits) as queue:
        found = values(await instrument(queue, registry=registry).render())
    assert {key: value for key, value in found.items() if key[0] == "jobqueue_limit"} == {
        ("jobqueue_limit", "running", "mail"): 5,
        ("jobqueue_limit", "group_rate", "mail"): 0.5,
    }


@pytest.mark.parametrize("fault", ["silent", "refuses"])
async def test_a_store_that_is_away_is_told_as_down_and_comes_back(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    storage = Away()
    async with Queue(storage, "mail") as queue:
        metrics = instrument(queue, registry=registry)
        setattr(storage, fault, True)
        started = time.monotonic()
        with monkeypatch.context() as impatient:
            impatient.setattr(looks, "PATIENCE", 0.05)
            found = values(await metrics.render())
        assert time.monotonic() - started < 5
        assert found["jobqueue_store_up",] == 0
        assert ("jobqueue_jobs", "mail", "queued") not in found
        setattr(storage, fault, False)
        found = values(await metrics.render())
    assert found["jobqueue_store_up",] == 1
    assert found["jobqueue_jobs", "mail", "queued"] == 0


async def test_one_queue_that_cannot_be_read_takes_no_other_along() -> None:
    class Partly(MemoryStorage):
        async def counts(self, queue: str) -> Any:
            if queue == "bad":
                raise StorageUnavailableError("away")
            return await super().counts(queue)

    async with Queue(Partly(), "good") as queue:
        found = await read_gauges(queue.storage, ["bad", "good"])
    assert not found.up
    assert [each.name for each in found.queues] == ["good"]


async def test_a_scrape_in_another_thread_waits_for_the_store(registry: CollectorRegistry) -> None:
    async with Queue("memory://", "mail") as queue:
        instrument(queue, registry=registry)
        await queue.enqueue("a", 1)
        found = values(await asyncio.to_thread(generate_latest, registry))
    assert found["jobqueue_jobs", "mail", "queued"] == 1


async def test_a_scrape_within_the_event_loop_waits_for_nothing(registry: CollectorRegistry) -> None:
    async with Queue("memory://", "mail") as queue:
        instrument(queue, registry=registry)
        await queue.enqueue("a", 1)
        first = values(generate_latest(registry))
        assert ("jobqueue_jobs", "mail", "queued") not in first
        await until(lambda: ("jobqueue_jobs", "mail", "queued") in values(generate_latest(registry)))


async def test_a_scrape_while_the_event_loop_stands_still_ends_all_the_same(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "WAIT", 0.05)
    async with Queue("memory://", "mail") as queue:
        instrument(queue, registry=registry)
        await queue.enqueue("a", 1)
        scrape = asyncio.get_running_loop().run_in_executor(None, generate_latest, registry)
        time.sleep(0.3)
        assert values(await scrape)["jobqueue_jobs_enqueued_total", "mail", ""] == 1


async def test_what_is_instrumented_twice_is_counted_once(registry: CollectorRegistry) -> None:
    queue = Queue("memory://", "mail")
    first = instrument(queue, registry=registry)
    assert instrument(queue, App(queue.storage, [queue]), registry=registry) is first
    async with queue:
        await queue.enqueue("a", 1)
    assert value(registry, "jobqueue_jobs_enqueued_total") == 1


async def test_metrics_can_be_removed_and_made_anew(registry: CollectorRegistry) -> None:
    queue = Queue("memory://", "mail")
    metrics = instrument(queue, registry=registry)
    metrics.remove()
    metrics.remove()
    assert list(registry.collect()) == []
    again = instrument(queue, registry=registry)
    async with queue:
        await queue.enqueue("a", 1)
        assert values(await again.render())["jobqueue_jobs_enqueued_total", "mail", ""] == 1


def test_a_registry_that_has_such_a_metric_is_refused_whole(registry: CollectorRegistry) -> None:
    Counter("jobqueue_jobs_retried_total", "Of somebody else.", registry=registry)
    with pytest.raises(InvalidArgumentError, match="registry: has other metrics of the same names"):
        instrument(Queue("memory://"), registry=registry)
    assert [family.name for family in registry.collect()] == ["jobqueue_jobs_retried"]


async def test_the_guard_is_shown(registry: CollectorRegistry) -> None:
    class View:
        breaker, buffered, lost = "half_open", 3, 2
        waited, brought_back, losses = 1.5, 7, 1

    class Guarded(MemoryStorage):
        guard = View()

    async with Queue(Guarded(), "mail") as queue:
        found = values(await instrument(queue, registry=registry).render())
    assert found["jobqueue_guard_breaker", "half_open"] == 1
    assert found["jobqueue_guard_breaker", "open"] == found["jobqueue_guard_breaker", "closed"] == 0
    assert found["jobqueue_guard_buffered",] == 3
    assert found["jobqueue_guard_lost_total",] == 2
    assert found["jobqueue_guard_waited_seconds_total",] == 1.5
    assert found["jobqueue_guard_brought_back_total",] == 7
    assert found["jobqueue_guard_losses_total",] == 1


async def test_many_scrapes_at_once_ask_the_store_once(registry: CollectorRegistry) -> None:
    class Asked(MemoryStorage):
        times = 0

        async def counts(self, queue: str) -> Any:
            self.times += 1
            await asyncio.sleep(0.01)
            return await super().counts(queue)

    storage = Asked()
    async with Queue(storage, "mail") as queue:
        metrics: Metrics = instrument(queue, registry=registry)
        await asyncio.gather(*(metrics.render() for _ in range(20)))
        assert storage.times <= 2


@pytest.fixture(autouse=True)
def nothing_is_left(registry: CollectorRegistry) -> Iterator[None]:
    yield
    assert all(family.name.startswith("jobqueue_") for family in registry.collect())
