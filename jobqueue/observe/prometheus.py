"""Metrics for Prometheus: counters and times from events, gauges from a look at the store.

A registry is collected by plain calls: one from another thread waits for the store, a few seconds at most,
one from within an event loop takes the figures of the last look and starts the next. `Metrics.render` awaits
the store.

Needs ``pip install 'jobqueue[prometheus]'``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from weakref import WeakSet

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from jobqueue.errors import InvalidArgumentError
from jobqueue.maintenance.reaper import Reaper
from jobqueue.model.limits import Limits, Rate
from jobqueue.observe.gauges import GuardGauges, StoreGauges
from jobqueue.observe.looks import Look, looks_at, wait_for, wait_in_loop
from jobqueue.observe.metrics import COUNTERS, TIMES, Metric, QueueLabels, watch
from jobqueue.observe.sources import Part, Source, parts_of
from jobqueue.runtime.lifecycle import loop_of

__all__ = ["GAUGES", "Metrics", "instrument"]

BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400,
)  # fmt: skip
"""Bounds of the classes of times, in seconds."""

_JOBS = Metric("jobqueue_jobs", ("queue", "state"), "Jobs by state; dead letters are failed.")
_OLDEST = Metric(
    "jobqueue_oldest_job_age_seconds",
    ("queue",),
    "Age of the oldest of the next ready jobs; 0: none is ready.",
)
_WORKERS = Metric("jobqueue_workers", ("queue",), "Workers that were seen within the last minute.")
_PAUSED = Metric("jobqueue_queue_paused", ("queue",), "Whether the queue is paused.")
_LIMIT = Metric(
    "jobqueue_limit", ("queue", "limit"),
    "Limits of a queue, and of each of its groups: jobs at once, and starts per second.",
)  # fmt: skip
_UP = Metric("jobqueue_store_up", (), "Whether the store has answered all that it was asked for this.")
_REAPERS = Metric("jobqueue_reapers", (), "Reapers that sweep the store.")
_LEADER = Metric("jobqueue_reaper_leader", (), "Whether a reaper of this process sweeps.")
_LAG = Metric("jobqueue_schedule_lag_seconds", (), "Time by which the most overdue schedule is late.")
_BREAKER = Metric(
    "jobqueue_guard_breaker", ("state",), "1 for the state of the breaker in front of the guard's ledger."
)
_BREAKER_STATES = ("closed", "half_open", "open")
_BUFFERED = Metric("jobqueue_guard_buffered", (), "Writes of this process that the ledger does not have yet.")
_UNWRITTEN = Metric(
    "jobqueue_guard_lost_total", (), "Writes of this process that found no room while the ledger was away."
)
_WAITED = Metric(
    "jobqueue_guard_waited_seconds_total", (), "Time that callers in this process have waited for the ledger."
)
_BROUGHT_BACK = Metric(
    "jobqueue_guard_brought_back_total", (), "Lost jobs that this process has given back to the store."
)
_LOSSES = Metric(
    "jobqueue_guard_losses_total", (), "Times that this process has found the store wiped or set back."
)

GAUGES = (
    _JOBS, _OLDEST, _WORKERS, _PAUSED, _LIMIT, _UP, _REAPERS, _LEADER, _LAG, _BREAKER, _BUFFERED, _UNWRITTEN,
    _WAITED, _BROUGHT_BACK, _LOSSES,
)  # fmt: skip
"""What is read from the store, or from this process, when it is asked for."""
_known: WeakSet[Metrics] = WeakSet()
"""Weak, as each is held by its registry."""


def instrument(*sources: Source, registry: CollectorRegistry | None = None) -> Metrics:
    """Export metrics of queues, reapers and apps to a registry; default: that of ``prometheus_client``.

    Call it before or after the start, any number of times: what a registry has already is counted once. A
    registry is for one store: of two queues of one name the first is shown.

    Raises `InvalidArgumentError`, also if the registry has other metrics of these names.
    """
    parts = parts_of(sources)
    into = REGISTRY if registry is None else registry
    metrics = next((known for known in _known if known.registry is into), None)
    if metrics is None:
        metrics = Metrics(into)
        _known.add(metrics)
    metrics.add(parts)
    return metrics


class Metrics:
    """The metrics of this process in one registry; made by `instrument`."""

    content_type = CONTENT_TYPE_LATEST
    """The media type of what `render` returns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._sink = _Sink(registry)
        self._labels = QueueLabels()
        self._parts: list[Part] = []
        self._removers: list[Callable[[], None]] = []
        self._looks: dict[int, Look] = {}
        self._collector = _Collector(self)
        registry.register(self._collector)

    def add(self, parts: Iterable[Part]) -> None:
        """Export parts as well, each once."""
        for part in parts:
            if not any(part is known for known in self._parts):
                self._parts.append(part)
                self._removers += watch(part, self._sink, self._labels)

    async def render(self) -> bytes:
        """Ask the store, for two seconds at the most, and return all metrics of the registry as text."""
        await wait_in_loop(self._ask())
        return generate_latest(self.registry)

    def remove(self) -> None:
        """Take the metrics out of the registry, and listen no more."""
        for remove in self._removers:
            remove()
        self._removers.clear()
        self._parts.clear()
        if self in _known:
            _known.discard(self)
            self.registry.unregister(self._collector)
            self._sink.remove()

    def _ask(self) -> list[Future[None]]:
        """Have the stores of what is started asked, unless they were lately."""
        self._looks = looks_at(self._parts, self._looks)
        return [asked for look in self._looks.values() if (asked := look.ask()) is not None]

    def families(self) -> Iterator[Family]:
        """Yield the gauges, as of now or of the last look."""
        wait_for(self._ask())
        looks = list(self._looks.values())
        reapers = [part for part in self._parts if isinstance(part, Reaper) and loop_of(part) is not None]
        if reapers:
            yield _gauge(_LEADER, {(): any(reaper.is_leader for reaper in reapers)})
        found = [gauges for look in looks if (gauges := look.latest()) is not None]
        if found:
            yield _gauge(_UP, {(): all(gauges.up for gauges in found)})
        yield from _store_families(found)
        lags = [lag for look in looks if (lag := look.lag) is not None]
        if lags:
            yield _gauge(_LAG, {(): max(lags)})


def _gauge(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    """Return a gauge, with a value for each of some labels."""
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family


def _store_families(found: Sequence[StoreGauges]) -> Iterator[Family]:
    queues = {queue.name: queue for gauges in reversed(found) for queue in gauges.queues}
    if queues:
        jobs = [(name, queue.counts.items()) for name, queue in queues.items()]
        yield _gauge(_JOBS, {(name, state.value): count for name, counts in jobs for state, count in counts})
        yield _gauge(_OLDEST, {(name,): queue.oldest_age or 0.0 for name, queue in queues.items()})
        yield _gauge(_WORKERS, {(name,): queue.workers for name, queue in queues.items()})
        yield _gauge(_PAUSED, {(name,): queue.paused for name, queue in queues.items()})
        limits: dict[tuple[str, ...], float] = {
            (name, limit): value for name, queue in queues.items() for limit, value in _limits(queue.limits)
        }
        if limits:
            yield _gauge(_LIMIT, limits)
    for gauges in found[:1]:
        if gauges.reapers is not None:
            yield _gauge(_REAPERS, {(): gauges.reapers})
        guard = gauges.guard
        if guard is not None:
            yield _gauge(_BREAKER, {(state,): state == guard.breaker for state in _BREAKER_STATES})
            yield _gauge(_BUFFERED, {(): guard.buffered})
            yield from _counted(guard)


def _counted(guard: GuardGauges) -> Iterator[CounterMetricFamily]:
    """Yield what the guard of this process has counted."""
    for metric, value in (
        (_UNWRITTEN, guard.lost),
        (_WAITED, guard.waited),
        (_BROUGHT_BACK, guard.brought_back),
        (_LOSSES, guard.losses),
    ):
        yield CounterMetricFamily(metric.name, metric.help, value)


def _limits(limits: Limits) -> Iterator[tuple[str, float]]:
    """Yield those limits that there are, by name: numbers of jobs, and starts per second."""
    for name in ("running", "rate", "group_running", "group_rate"):
        limit: int | Rate | None = getattr(limits, name)
        if limit is not None:
            yield name, limit.count / limit.per if isinstance(limit, Rate) else limit


class _Collector(Collector):
    """The gauges, as a registry asks for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Family]:
        """Return nothing: the store is not asked at the registration."""
        return []

    def collect(self) -> Iterable[Family]:
        """Return the gauges."""
        return list(self._metrics.families())


class _Sink:
    """Counts in the metrics of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._counters = {
            each.name: Counter(each.name, each.help, each.labels, registry=None) for each in COUNTERS
        }
        self._times = {
            each.name: Histogram(each.name, each.help, each.labels, buckets=BUCKETS, registry=None)
            for each in TIMES
        }
        registered: list[Collector] = []
        try:
            for metric in (*self._counters.values(), *self._times.values()):
                registry.register(metric)
                registered.append(metric)
        except ValueError as error:
            for mine in registered:
                registry.unregister(mine)
            raise InvalidArgumentError(
                "registry", f"has other metrics of the same names ({error}): use another one"
            ) from error
        self._children: dict[tuple[str, ...], Any] = {}
        """What `labels` returns, by name and labels: that takes five times as long as this."""

    def increment(self, name: str, labels: Mapping[str, str], /) -> None:
        key = (name, *labels.values())
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._counters[name].labels(**labels)
        child.inc()

    def observe(self, name: str, seconds: float, labels: Mapping[str, str], /) -> None:
        key = (name, *labels.values())
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._times[name].labels(**labels)
        child.observe(seconds)

    def remove(self) -> None:
        """Take all out of the registry."""
        for metric in (*self._counters.values(), *self._times.values()):
            self._registry.unregister(metric)
