"""Traces: one tree from a web request through the queue into the handler, and what breaks none of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jobqueue import (
    App,
    Backoff,
    EnqueueRequest,
    InvalidArgumentError,
    Job,
    JobFailedError,
    JobQueueError,
    Queue,
    Reaper,
    Retry,
)
from jobqueue.observe.opentelemetry import instrument
from tests.support import until, within


class Traces:
    """The finished spans of one provider."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    async def of(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Return the spans of a name, as soon as there are so many."""
        await until(lambda: len(self.named(name)) >= count)
        return self.named(name)


@pytest.fixture
def traces() -> Traces:
    return Traces()


async def work(job: Job[Any]) -> Any:
    match job.payload:
        case "raise":
            raise ValueError("no route")
        case "once" if job.attempts == 1:
            raise Retry(0.001)
    return job.payload


def made(traces: Traces, **options: Any) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue("memory://", "mail", **options)
    queue.execute(work)
    instrument(queue, tracer_provider=traces.provider)
    return queue


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


async def test_from_a_web_request_through_the_queue_into_the_handler_it_is_one_tree(traces: Traces) -> None:
    fastapi, httpx = pytest.importorskip("fastapi"), pytest.importorskip("httpx2")
    queue: Queue[Any, Any] = Queue("memory://", "mail")

    @queue.task
    async def send(to: str) -> str:
        with traces.tracer.start_as_current_span("smtp"):
            return to

    instrument(queue, tracer_provider=traces.provider)
    web = fastapi.FastAPI()

    @web.post("/send")
    async def post(to: str) -> str:
        with traces.tracer.start_as_current_span("POST /send", kind=SpanKind.SERVER):
            return await send.enqueue_and_wait(to)

    async with queue, httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://x") as client:
        assert (await within(client.post("/send?to=ann"))).json() == "ann"
        await traces.of("settle mail")
    by_name = {span.name: span for span in traces.spans}
    tree = ("POST /send", "send mail", "process mail", "settle mail")
    for upper, lower in itertools.pairwise(tree):
        assert parent(by_name[lower]) == id_of(by_name[upper]), lower
    assert parent(by_name["smtp"]) == id_of(by_name["process mail"])
    assert len({span.context.trace_id for span in traces.spans if span.context}) == 1
    assert by_name["send mail"].kind is SpanKind.PRODUCER
    assert by_name["process mail"].kind is SpanKind.CONSUMER
    assert by_name["settle mail"].kind is SpanKind.CLIENT


async def test_spans_say_what_the_conventions_name(traces: Traces) -> None:
    queue = made(traces, worker_id="w1")
    async with queue:
        await within(queue.enqueue_and_wait("a", 1))
        (settled,) = await traces.of("settle mail")
    (sent,), (processed,) = traces.named("send mail"), traces.named("process mail")
    common = {
        "messaging.system": "jobqueue",
        "messaging.destination.name": "mail",
        "messaging.message.id": "a",
    }

    def operation(name: str) -> dict[str, str]:
        return {**common, "messaging.operation.name": name, "messaging.operation.type": name}

    assert dict(sent.attributes or {}) == {
        **operation("send"), "jobqueue.task": "", "jobqueue.enqueue.status": "queued",
    }  # fmt: skip
    assert dict(processed.attributes or {}) == {
        **operation("process"), "messaging.client.id": "w1", "jobqueue.task": "", "jobqueue.attempt": 1,
    }  # fmt: skip
    assert dict(settled.attributes or {}) == {**operation("settle"), "jobqueue.outcome": "complete"}
    assert settled.start_time == processed.end_time
    assert settled.end_time is not None
    assert settled.start_time is not None
    assert settled.end_time >= settled.start_time
    assert all(span.status.status_code is StatusCode.UNSET for span in traces.spans)


async def test_a_retry_is_a_trace_of_its_own_with_a_link_to_the_producer(traces: Traces) -> None:
    queue = made(traces)
    async with queue:
        await within(queue.enqueue_and_wait("a", "once"))
        await traces.of("settle mail", 2)
    (sent,), (first, second) = traces.named("send mail"), traces.named("process mail")
    assert parent(first) == id_of(sent)
    assert first.links == ()
    assert second.parent is None
    assert [link.context.span_id for link in second.links] == [id_of(sent)]
    outcomes = [(span.attributes or {})["jobqueue.outcome"] for span in traces.named("settle mail")]
    assert outcomes == ["retry", "complete"]


async def test_a_failure_is_in_its_span(traces: Traces) -> None:
    queue = made(traces, max_attempts=1)
    async with queue:
        with pytest.raises(JobFailedError):
            await within(queue.enqueue_and_wait("a", "raise"))
        (settled,) = await traces.of("settle mail")
    (processed,) = traces.named("process mail")
    assert processed.status.status_code is StatusCode.ERROR
    assert (processed.attributes or {})["error.type"] == "ValueError"
    (event,) = processed.events
    assert (event.attributes or {})["exception.message"] == "no route"
    assert (settled.attributes or {})["jobqueue.outcome"] == "fail"


@pytest.mark.parametrize(("options", "reason", "failed"), [
    ({"job_timeout": 0.02, "max_attempts": 1}, "timeout", True), ({}, "shutdown", False),
])  # fmt: skip
async def test_an_aborted_attempt_says_why(
    traces: Traces, options: dict[str, Any], reason: str, failed: bool
) -> None:
    queue: Queue[Any, Any] = Queue("memory://", "mail", **options)
    began = asyncio.Event()

    @queue.execute
    async def hang(job: Job[Any]) -> None:
        began.set()
        await asyncio.Event().wait()

    instrument(queue, tracer_provider=traces.provider)
    async with queue:
        await queue.enqueue("a", 1)
        await within(began.wait())
        if not failed:
            await queue.stop(0.0)
        (processed,) = await traces.of("process mail")
    assert (processed.attributes or {})["error.type"] == reason
    assert (processed.status.status_code is StatusCode.ERROR) == failed


async def test_a_batch_is_one_span_and_all_its_jobs_continue_it(traces: Traces) -> None:
    queue = made(traces)
    async with queue:
        assert await queue.enqueue_many([]) == []
        await queue.enqueue_many([("a", 1), ("b", 2)])
        processed = await traces.of("process mail", 2)
    (sent,) = traces.named("send mail")
    assert (sent.attributes or {})["messaging.batch.message_count"] == 2
    assert {parent(span) for span in processed} == {id_of(sent)}


async def test_a_refused_enqueue_is_in_its_span(traces: Traces) -> None:
    queue = made(traces, max_payload_bytes=10)
    async with queue.producer():
        with pytest.raises(InvalidArgumentError):
            await queue.enqueue("a", "x" * 100)
    (sent,) = traces.named("send mail")
    assert sent.status.status_code is StatusCode.ERROR
    assert (sent.attributes or {})["error.type"] == "InvalidArgumentError"


@contextmanager
def carrying(name: str, value: str) -> Iterator[None]:
    token = context.attach(baggage.set_baggage(name, value))
    try:
        yield
    finally:
        context.detach(token)


async def test_baggage_travels_if_there_is_room(traces: Traces) -> None:
    queue = made(traces)
    seen: list[object] = []

    @queue.task
    async def look() -> None:
        seen.append(baggage.get_baggage("tenant"))

    async with queue:
        with carrying("tenant", "7"):
            await within(look.enqueue_and_wait())
            full = EnqueueRequest("a", "fine", headers={"own": "x" * 16_250})
            await queue.enqueue_many([full])
        _, processed = await traces.of("process mail", 2)
        known = await queue.jobs.get("a")
        assert known is not None
    assert seen == ["7"]
    assert parent(processed) == id_of(traces.named("send mail")[1]), "the trace found room, baggage did not"


@pytest.mark.parametrize("headers", [
    {"own": "x" * 16_370}, {"traceparent": "nonsense"}, {"traceparent": "00-" + "f" * 32 + "-zz-01"},
])  # fmt: skip
async def test_headers_of_the_user_stay_and_wrong_ones_harm_nobody(
    traces: Traces, headers: dict[str, str]
) -> None:
    queue = made(traces)
    seen: list[Any] = []

    @queue.around_run
    async def look(job: Job[Any], call_next: Any) -> Any:
        seen.append(dict(job.headers))
        return await call_next(job)

    async with queue:
        await queue.enqueue_many([EnqueueRequest("a", 1, headers=headers)])
        (processed,) = await traces.of("process mail")
    assert headers.items() <= seen[0].items()
    assert processed.parent is None


@pytest.mark.parametrize("headers", [{"a": 5}, "text", [1]])
async def test_headers_that_are_none_are_refused_as_without_tracing(traces: Traces, headers: Any) -> None:
    async with made(traces).producer() as queue:
        with pytest.raises(InvalidArgumentError, match="headers"):
            await queue.enqueue_many([EnqueueRequest("a", 1, headers=headers)])


async def test_the_context_in_which_a_worker_was_started_is_not_that_of_its_jobs(traces: Traces) -> None:
    queue = made(traces)
    with traces.tracer.start_as_current_span("startup"):
        await queue.start()
    producer: Queue[Any, Any] = Queue(queue.storage, "mail")
    async with producer.producer():
        await producer.enqueue("a", 1)  # without a trace
        (processed,) = await traces.of("process mail")
    await queue.stop()
    assert processed.parent is None


async def test_synchronous_code_is_traced_in_its_own_context(traces: Traces) -> None:
    queue = made(traces)

    def call() -> Any:
        with traces.tracer.start_as_current_span("view"):
            queue.sync.enqueue("a", 1)
        queue.sync.close()

    await asyncio.to_thread(call)
    (sent,) = traces.named("send mail")
    assert parent(sent) == id_of(*traces.named("view"))


async def test_a_queue_is_traced_once_and_a_reaper_not_at_all(traces: Traces) -> None:
    queue = made(traces)
    app = App(queue.storage, [queue])
    instrument(app, queue, Reaper(queue.storage), tracer_provider=traces.provider)
    async with app:
        await within(queue.enqueue_and_wait("a", 1))
        await traces.of("settle mail")
    assert sorted(span.name for span in traces.spans) == ["process mail", "send mail", "settle mail"]


async def test_a_started_queue_cannot_be_traced(traces: Traces) -> None:
    async with Queue("memory://") as queue:
        with pytest.raises(JobQueueError, match="is started"):
            instrument(queue, tracer_provider=traces.provider)


async def test_without_an_sdk_jobs_run_as_before() -> None:
    queue: Queue[Any, Any] = Queue("memory://", "mail", backoff=Backoff.fixed(0.001))
    queue.execute(work)
    instrument(queue, tracer_provider=trace.NoOpTracerProvider())
    async with queue:
        assert await within(queue.enqueue_and_wait("a", "once")) == "once"
