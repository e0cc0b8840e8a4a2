"""Event streams: what they tell, how many there may be, and what happens when the store is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqueue import MemoryStorage, StorageUnavailableError
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from jobqueue.web import Dashboard, dashboard
from tests.support import left_tasks, within
from tests.web.visitor import Html, Stream, Visitor


def clock_of(store: MemoryStorage) -> FakeClock:
    assert isinstance(store.clock, FakeClock)
    return store.clock


async def heard(stream: Stream, clock: FakeClock) -> tuple[str, Any]:
    """Let time pass until the stream says something."""
    for _ in range(40):
        await clock.advance(1.0)
        if not stream.events.empty():
            return stream.events.get_nowait()
    raise AssertionError("it said nothing")


async def silence(stream: Stream, clock: FakeClock, seconds: float = 10.0) -> None:
    await clock.advance(seconds)
    assert stream.events.empty(), stream.events.get_nowait()


@pytest.mark.parametrize(
    "query",
    [
        "page=overview",
        "page=queue&queue=mail",
        "page=queue&queue=mail&state=queued",
        "page=letters&queue=mail",
    ],
)
async def test_a_stream_tells_that_a_page_has_changed(
    visitor: Visitor, store: MemoryStorage, query: str
) -> None:
    clock = clock_of(store)
    await store.insert("mail", [NewJob("a", b"1")])
    async with Stream(visitor.app, query) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert (await heard(stream, clock))[1]["parts"] == ["page"]
        await silence(stream, clock)
        await store.insert("mail", [NewJob("b", b"1")])
        kind, data = await heard(stream, clock)
        assert (kind, data["page"]) == ("changed", query.partition("=")[2].partition("&")[0])
        await silence(stream, clock)


async def test_the_stream_of_a_job_tells_its_progress_and_its_end(
    visitor: Visitor, store: MemoryStorage
) -> None:
    from jobqueue.storage.values import Renewal

    clock = clock_of(store)
    await store.insert("mail", [NewJob("a", b"1"), NewJob("other", b"1")])
    async with Stream(visitor.app, "page=job&queue=mail&id=a") as stream:
        assert (await heard(stream, clock))[1]["parts"] == ["page"]
        (claimed,) = (await store.exchange("mail", "w", [], 1, 600_000)).jobs
        assert "job" in (await heard(stream, clock))[1]["parts"]
        await store.extend("mail", "w", [Renewal("a", claimed.fence, b"0.5")], 600_000)
        assert "progress" in (await heard(stream, clock))[1]["parts"]
        await store.cancel("mail", ["other"])
        await silence(stream, clock)


@pytest.mark.parametrize("page", ["schedules", "workers", "system"])
async def test_the_other_pages_are_told_of_too(visitor: Visitor, store: MemoryStorage, page: str) -> None:
    from jobqueue import Queue

    clock = clock_of(store)
    await store.insert("mail", [NewJob("a", b"1")])
    async with Stream(visitor.app, f"page={page}") as stream:
        assert (await heard(stream, clock))[1]["parts"] == ["page"]
        queue: Queue[Any, Any] = Queue(store, "mail")
        async with queue.producer():
            await queue.schedules.add("x", 1, every=3_000.0)
        await store.exchange("mail", "w", [], 1, 600_000)
        await store.lock_acquire("reaper", "r", 600_000)
        assert (await heard(stream, clock))[0] == "changed"


async def test_streams_are_bounded_and_a_page_without_one_is_served_all_the_same(
    store: MemoryStorage,
) -> None:
    made = dashboard(store, max_streams=20)
    tasks_before = len(left_tasks())
    async with Visitor(made) as visitor:
        streams = [Stream(made, "page=overview") for _ in range(10_000)]
        await within(asyncio.gather(*(stream.answered() for stream in streams)), 60.0)
        assert sum(stream.status == 200 for stream in streams) == 20
        refused = [stream for stream in streams if stream.status == 503]
        assert len(refused) == 9_980
        assert refused[0].headers["retry-after"] == "60"
        assert (await visitor.get("/")).status_code == 200
        assert len(left_tasks()) - tasks_before < 60
        for stream in streams:
            stream.leave()
        await within(asyncio.gather(*(stream.task for stream in streams)))
        async with Stream(made, "page=overview") as again:
            assert again.status == 200
    assert len(left_tasks()) == tasks_before


async def test_the_same_page_is_looked_at_once_for_all_that_have_it_open(
    store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = clock_of(store), 0
    counts = store.counts

    async def counted(queue: str) -> Any:
        nonlocal asked
        asked += 1
        return await counts(queue)

    await store.insert("mail", [NewJob("a", b"1")])
    made = dashboard(store)
    async with (
        Visitor(made),
        Stream(made, "page=queue&queue=mail") as one,
        Stream(made, "page=queue&queue=mail&n=3") as two,
    ):
        await heard(one, clock)
        await heard(two, clock)
        monkeypatch.setattr(store, "counts", counted)
        await clock.advance(10.0)
        assert 0 < asked <= 6


async def test_a_stream_ends_in_time_and_when_the_dashboard_is_closed(
    visitor: Visitor, store: MemoryStorage
) -> None:
    clock = clock_of(store)
    async with Stream(visitor.app, "page=overview") as stream:
        await clock.advance(700.0)
        await within(stream.task)
    async with Stream(visitor.app, "page=overview") as stream:
        await within(visitor.app.close())
        await within(stream.task)
    assert (await visitor.get("/")).status_code == 200, "the next request opens it again"


async def test_a_reader_that_takes_nothing_loses_its_stream(visitor: Visitor, store: MemoryStorage) -> None:
    clock = clock_of(store)
    stuck = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/events",
        "query_string": b"page=overview",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
    }
    task = asyncio.create_task(visitor.app(scope, receive, send))
    await within(stuck.wait())
    assert visitor.app._board.pulse.streams == 1
    await clock.advance(11.0)
    await within(task)
    assert visitor.app._board.pulse.streams == 0


async def test_a_store_that_is_away_is_said_and_the_page_comes_back(
    visitor: Visitor, store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = clock_of(store)
    await store.insert("mail", [NewJob("a", b"1")])
    async with Stream(visitor.app, "page=overview") as stream:
        await heard(stream, clock)
        with monkeypatch.context() as patch:

            async def away(*_args: object, **_options: object) -> Any:
                raise StorageUnavailableError("redis://***: no answer within 1 s")

            for name in ("counts", "queues", "scan", "get", "workers", "lock_holder", "list_documents"):
                patch.setattr(store, name, away)
            assert await heard(stream, clock) == ("away", {"page": "overview", "parts": ["away"]})
            for path in (
                "/",
                "/queue?queue=mail",
                "/job?queue=mail&id=a",
                "/dead",
                "/workers",
                "/schedules",
                "/system",
            ):
                answer = await visitor.get(path)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                page = Html(answer.text)
                assert "The store is away" in page.text
                assert "no answer within 1 s" in page.text
                assert (page.all("div", id="live")[0]["hx-get"] or "").startswith(path.partition("?")[0])
        kind, data = await heard(stream, clock)
        assert kind == "changed"
        assert "mail" in data["parts"]
    assert (await visitor.get("/")).status_code == 200


async def test_a_store_that_hangs_does_not_hang_the_page(
    visitor: Visitor, store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_args: object, **_options: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "queues", hang)
    asked = asyncio.create_task(visitor.get("/"))
    while not asked.done():
        await clock_of(store).advance(1.0)
    answer = await asked
    assert answer.status_code == 503
    assert "has not answered within 8 s" in answer.text


async def test_a_store_that_does_not_open_is_tried_again_by_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStorage(clock=FakeClock())
    opened, fails = store.open, True

    async def open_() -> None:
        if fails:
            raise StorageUnavailableError("nobody there")
        await opened()

    monkeypatch.setattr(store, "open", open_)
    async with Visitor(dashboard(store)) as visitor:
        for _ in range(2):
            answer = await visitor.get("/")
            assert answer.status_code == 503
            assert "nobody there" in answer.text
        fails = False
        assert (await visitor.get("/")).status_code == 200


async def test_a_dashboard_that_nobody_looks_at_closes_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStorage(clock=FakeClock())
    closed = asyncio.Event()
    close = store.close

    async def close_() -> None:
        await close()
        closed.set()

    monkeypatch.setattr(store, "close", close_)
    async with Visitor(dashboard(store)) as visitor:
        await visitor.get("/")
        await clock_of(store).advance(500.0)
        assert not closed.is_set()
        await clock_of(store).advance(300.0)
        assert closed.is_set()
        assert (await visitor.get("/")).status_code == 200


async def test_a_failure_of_its_own_is_logged_and_no_more_than_a_page(
    visitor: Visitor, store: MemoryStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_args: object) -> Any:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(store, "queues", broken)
    answer = await visitor.get("/")
    assert answer.status_code == 500
    assert "a secret detail" not in answer.text
    assert "a secret detail" in caplog.text
    async with Stream(visitor.app, "page=overview") as stream:
        await clock_of(store).advance(5.0)
        await within(stream.task)  # its browser opens another one
    monkeypatch.undo()
    async with Stream(visitor.app, "page=overview") as stream:
        assert (await heard(stream, clock_of(store)))[0] == "changed"


async def test_the_head_of_a_stream_holds_none(visitor: Visitor) -> None:
    async with Stream(visitor.app, "page=overview", method="HEAD") as stream:
        await within(stream.task)
        assert stream.headers["content-type"].startswith("text/event-stream")
    assert visitor.app._board.pulse.streams == 0


async def test_other_kinds_of_connections_are_refused(store: MemoryStorage) -> None:
    made: Dashboard = dashboard(store)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await made({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
