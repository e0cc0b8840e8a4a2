"""Traces jobs with OpenTelemetry: from the code that enqueues, through the queue, into the handler.

Spans are those of the semantic conventions for messaging, whose names are here and nowhere else:

* ``send QUEUE`` (producer) around an enqueue. Its context travels in the headers of the jobs.
* ``process QUEUE`` (consumer) around each attempt. The first attempt continues the trace of the producer. A
  retry, which may come hours later, begins a trace of its own with a link to the producer's span.
* ``settle QUEUE`` (client), a child of it, from the end of the handler until the store has the outcome.

Only the API of OpenTelemetry is used: without an SDK in the process all this does next to nothing. Context
travels by its global propagator, as ``OTEL_PROPAGATORS`` says: W3C trace context, and baggage if it is named.

Needs ``pip install 'jobqueue[opentelemetry]'``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any
from weakref import WeakSet

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
)

from jobqueue.client.around import EnqueueNext
from jobqueue.client.results import EnqueueRequest, EnqueueResult
from jobqueue.errors import InvalidArgumentError
from jobqueue.events import (
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobFailing,
    JobRequeued,
    JobStalled,
    QueueEvent,
)
from jobqueue.maintenance.reaper import Reaper
from jobqueue.model.headers import encode_headers
from jobqueue.model.outcomes import AbortedReason
from jobqueue.observe.sources import Source, parts_of
from jobqueue.queue import Queue
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.worker.execution import RunNext
from jobqueue.worker.job import Job

__all__ = ["instrument"]

SCHEMA = "https://opentelemetry.io/schemas/1.27.0"
SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
OPERATION_NAME, OPERATION_TYPE = "messaging.operation.name", "messaging.operation.type"
MESSAGE_ID = "messaging.message.id"
BATCH = "messaging.batch.message_count"
CLIENT = "messaging.client.id"
ERROR_TYPE = "error.type"
TASK, ATTEMPT, STATUS, OUTCOME = (
    "jobqueue.task", "jobqueue.attempt", "jobqueue.enqueue.status", "jobqueue.outcome",
)  # fmt: skip

MOST_ENDED = 10_000
"""Runs that have ended and whose outcome is not stored yet that are remembered."""
_OUTCOMES: dict[type[QueueEvent], str] = {
    JobCompleted: "complete", JobFailing: "retry", JobFailed: "fail", JobCancelled: "cancel",
    JobRequeued: "release", JobStalled: "lost",
}  # fmt: skip
_instrumented: WeakSet[Queue[Any, Any]] = WeakSet()


def instrument(*sources: Source, tracer_provider: TracerProvider | None = None) -> None:
    """Trace what queues, and those of apps, enqueue and run; default: with the global tracer provider.

    Call it before the start, and before the first use of ``queue.sync``: it adds middleware. A queue that is
    traced already stays as it is. Raises `InvalidArgumentError`, and `JobQueueError` for a started queue.
    """
    tracer = trace.get_tracer("jobqueue", version("jobqueue"), tracer_provider, SCHEMA)
    for part in parts_of(sources):
        if isinstance(part, Reaper) or part in _instrumented:
            continue
        spans = _Spans(part.name, tracer)
        part.around_enqueue(spans.send)
        part.around_run(spans.process)
        for kind in _OUTCOMES:
            part.on(kind, spans.settle)
        _instrumented.add(part)


class _Spans:
    """Makes the spans of one queue."""

    def __init__(self, queue: str, tracer: Tracer) -> None:
        self._queue = queue
        self._tracer = tracer
        self._ended: OrderedDict[tuple[str, int], tuple[Span, int]] = OrderedDict()
        """Spans of the runs that await the answer of the store, and when they ended; by id and attempt."""

    def _attributes(self, operation: str) -> dict[str, str | int]:
        named: dict[str, str | int] = {SYSTEM: "jobqueue", DESTINATION: self._queue}
        return named | {OPERATION_NAME: operation, OPERATION_TYPE: operation}

    async def send(
        self, requests: Sequence[EnqueueRequest], call_next: EnqueueNext
    ) -> list[EnqueueResult[Any]]:
        """Send requests within a span, whose context they carry."""
        if not requests:
            return await call_next(requests)
        attributes = self._attributes("send")
        if len(requests) == 1:
            attributes |= {MESSAGE_ID: str(requests[0].id), TASK: requests[0].task}
        else:
            attributes[BATCH] = len(requests)
        name = f"send {self._queue}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
            carried: dict[str, str] = {}
            propagate.inject(carried)
            try:
                answers = await call_next([_carrying(request, carried) for request in requests])
            except Exception as error:
                span.set_attribute(ERROR_TYPE, type(error).__qualname__)
                raise
            if len(answers) == 1:
                span.set_attribute(STATUS, answers[0].status.value)
            return answers

    async def process(self, job: Job[Any], call_next: RunNext[Any, Any]) -> Any:
        """Run an attempt within a span."""
        context = propagate.extract(job.headers, contexts.Context())  # not that in which the worker began
        producer, links = trace.get_current_span(context).get_span_context(), list[Link]()
        if job.attempts > 1:
            links = [Link(producer)] if producer.is_valid else []
            context = trace.set_span_in_context(INVALID_SPAN, context)
        attributes = self._attributes("process")
        attributes |= {MESSAGE_ID: job.id, CLIENT: job.worker_id, TASK: job.task, ATTEMPT: job.attempts}
        span = self._tracer.start_span(
            f"process {self._queue}", context, SpanKind.CONSUMER, attributes, links,
            record_exception=False, set_status_on_exception=False,
        )  # fmt: skip
        token = contexts.attach(trace.set_span_in_context(span, context))
        try:
            return await call_next(job)
        except BaseException as error:
            _fail(span, job, error)
            raise
        finally:
            contexts.detach(token)
            now = _now()
            span.end(now)
            self._ended[job.id, job.attempts] = span, now
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)

    def settle(self, event: Any) -> None:
        """Make the span of an outcome that the store has, if its run had one."""
        attempts = event.attempts if not isinstance(event, JobStalled) else self._last_attempt(event.id)
        ended = self._ended.pop((event.id, attempts or 0), None)
        if ended is None:
            return
        process, since = ended
        attributes = self._attributes("settle")
        attributes |= {MESSAGE_ID: event.id, OUTCOME: _OUTCOMES[type(event)]}
        context = trace.set_span_in_context(process)
        name = f"settle {self._queue}"
        span = self._tracer.start_span(name, context, SpanKind.CLIENT, attributes, start_time=since)
        if isinstance(event, JobStalled):
            span.set_attribute(ERROR_TYPE, "lease_lost")
            span.set_status(Status(StatusCode.ERROR, "the lease was lost: the outcome has no effect"))
        span.end(_now())

    def _last_attempt(self, id: str) -> int | None:
        return next((attempt for known, attempt in self._ended if known == id), None)


def _carrying(request: EnqueueRequest, carried: dict[str, str]) -> EnqueueRequest:
    """Return the request with the context in its headers, as far as there is room. What it has stays."""
    known: Mapping[str, str] = {} if request.headers is None else request.headers
    if isinstance(known, Mapping):  # else it is refused later
        for wanted in (carried, {name: carried[name] for name in carried.keys() & {"traceparent"}}):
            whole = {**wanted, **known}
            with suppress(InvalidArgumentError):
                encode_headers(whole)
                return replace(request, headers=whole)
    return request


def _fail(span: Span, job: Job[Any], error: BaseException) -> None:
    """Note what has ended an attempt. One that was given back at a shutdown has not failed."""
    reason = job.aborted_reason
    if isinstance(error, asyncio.CancelledError) and reason is not None:
        span.set_attribute(ERROR_TYPE, reason.value)
        if reason is not AbortedReason.SHUTDOWN:
            span.set_status(Status(StatusCode.ERROR, reason.value))
        return
    span.record_exception(error)
    span.set_attribute(ERROR_TYPE, type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def _now() -> int:
    return int(SYSTEM_CLOCK.time() * 1e9)
