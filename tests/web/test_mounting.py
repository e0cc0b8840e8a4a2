"""Mounted in other applications, under any path, without a lifespan."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from jobqueue import App, InvalidArgumentError, Job, MemoryStorage, Queue, open_storage
from jobqueue.storage.values import NewJob
from jobqueue.web import Dashboard, dashboard
from tests.support import left_tasks, within
from tests.web.visitor import Html, Visitor


def by_prefix(prefix: str, inner: Any) -> Any:
    """As a page of the docs does it in an ``asgi.py`` of Django: by the path alone."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        root = scope.get("root_path", "")
        assert scope["path"].startswith(root + prefix)
        await inner({**scope, "root_path": root + prefix}, receive, send)

    return application


def stripped(prefix: str, inner: Any) -> Any:
    """As a proxy that strips the prefix, and a server that is told of it, do it."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": prefix, "path": scope["path"].removeprefix(prefix)}, receive, send)

    return application


def fastapi(prefix: str, inner: Any) -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount(prefix, inner)
    return app


def starlette(prefix: str, inner: Any) -> Any:
    return Starlette(routes=[Mount(prefix, inner)])


@pytest.mark.parametrize("mount", [fastapi, starlette, by_prefix, stripped])
@pytest.mark.parametrize("prefix", ["/jobs", "/admin/team a/jobs"])
async def test_links_forms_and_streams_stay_below_the_prefix(
    store: MemoryStorage, mount: Any, prefix: str
) -> None:
    await store.insert("mail", [NewJob("a", b"1")])
    made = dashboard(store)
    quoted = prefix.replace(" ", "%20")
    async with Visitor(mount(prefix, made)) as visitor:
        for path in ("/", "/queue?queue=mail", "/job?queue=mail&id=a", "/system"):
            answer = await visitor.get(quoted + path)
            assert answer.status_code == 200
            page = Html(answer.text)
            for tag, attributes in page.elements:
                for name in ("href", "src", "action", "hx-get", "data-stream"):
                    value = attributes.get(name)
                    assert value is None or value.startswith((f"{quoted}/", "#")), (tag, attributes)
            for each in page.all("link") + page.all("script"):
                assert (await visitor.get(each.get("href") or each["src"] or "")).status_code == 200
            assert page.all("div", id="live")[0]["hx-get"] == quoted + "/".join(
                ["", *path.split("/")[1:]]
            ).replace("queue=mail&id=a", "id=a&queue=mail")
        answer = await visitor.post(f"{quoted}/queue", queue="mail", verb="pause")
        assert answer.headers["location"] == f"{quoted}/queue?queue=mail&did=paused"
    await made.close()


async def test_a_root_path_makes_no_link_to_another_host(store: MemoryStorage) -> None:
    made = dashboard(store)
    for root in ("//evil.example", "/", "///", "//evil.example/x"):

        async def rooted(scope: Any, receive: Any, send: Any, root: str = root) -> None:
            await made({**scope, "root_path": root}, receive, send)

        async with Visitor(rooted) as visitor:
            page = Html((await visitor.get("/")).text)
            links = [each.get("href") or each.get("src") or "/" for _, each in page.elements]
            assert not [link for link in links if link.startswith("//")]
    await made.close()


async def test_it_answers_a_lifespan_where_it_gets_one_and_closes_its_store_then(
    store: MemoryStorage,
) -> None:
    made, sent = dashboard(store), []
    messages: asyncio.Queue[Any] = asyncio.Queue()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    alive = asyncio.create_task(made({"type": "lifespan"}, messages.get, send))
    messages.put_nowait({"type": "lifespan.startup"})
    async with Visitor(made) as visitor:
        assert (await visitor.get("/")).status_code == 200
        messages.put_nowait({"type": "lifespan.shutdown"})
        await within(alive)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not [name for name in left_tasks() if "web" in name]


async def test_the_queues_of_an_app_are_shown_before_they_have_jobs_and_are_not_started() -> None:
    storage = open_storage("memory://")
    mail: Queue[Any, Any] = Queue(storage, "mail")
    mail.execute(_run)
    app = App(storage, [mail, Queue(storage, "reports")])
    for source in (app, mail, [mail]):
        async with Visitor(dashboard(source)) as visitor:
            assert [link for link in (await visitor.page("/")).links() if link == "/queue?queue=mail"]
            assert not app.ready
            assert not mail.ready


async def _run(job: Job[Any]) -> None:
    """Do nothing."""


async def test_an_app_that_runs_in_another_loop_is_shown_all_the_same(store: MemoryStorage) -> None:
    storage = MemoryStorage()
    mail: Queue[Any, Any] = Queue(storage, "mail")
    began, go = threading.Event(), threading.Event()

    async def work() -> None:
        async with mail.producer():
            await mail.enqueue("a", 1)
            began.set()
            await asyncio.to_thread(go.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        await asyncio.to_thread(began.wait)
        async with Visitor(dashboard(mail)) as visitor:
            assert (await visitor.get("/job", queue="mail", id="a")).status_code == 200
    finally:
        go.set()
        thread.join()


def test_a_dashboard_serves_one_loop_after_the_other() -> None:
    made: Dashboard = dashboard(MemoryStorage())

    async def look(*, close: bool) -> int:
        visitor = Visitor(made)
        answer = await visitor.get("/")
        if close:
            await made.close()
        await visitor.client.aclose()
        return answer.status_code

    assert [asyncio.run(look(close=close)) for close in (False, True, False)] == [200, 200, 200]


@pytest.mark.parametrize("source", [5, [], [5], ["memory://"], object(), MemoryStorage])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        dashboard(source)


def test_queues_of_several_stores_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="several stores"):
        dashboard([Queue("memory://", "a"), Queue("memory://", "b")])
