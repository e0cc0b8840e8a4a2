"""The dashboard served by a process: as a part of an `App`, and alone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobqueue import (
    App,
    BrokenError,
    InvalidArgumentError,
    JobQueueError,
    MemoryStorage,
    Queue,
    StorageUnavailableError,
)
from jobqueue.web import DashboardServer
from tests.cli.processes import Process
from tests.support import WireStorage, echo, left_tasks, until, within


def queues(storage: Any, *names: str) -> list[Queue[Any, Any]]:
    made = [Queue[Any, Any](storage, name) for name in names]
    for queue in made:
        queue.execute(echo)
    return made


async def page(web: DashboardServer) -> str:
    assert web.url is not None
    async with httpx2.AsyncClient() as client:
        answer = await within(client.get(web.url))
    assert answer.status_code == 200
    return answer.text


async def test_it_starts_and_stops_with_its_app() -> None:
    storage, web = MemoryStorage(), DashboardServer(port=0, title="the shop")
    app = App(storage, queues(storage, "mail", "reports"), web=web)
    assert app.web is web
    assert (web.url, web.ready, repr(web)) == (None, False, "<DashboardServer on 127.0.0.1:0, stopped>")
    for _ in range(2):
        async with app:
            for _ in range(1000):
                if app.ready:
                    break
                await asyncio.sleep(0.01)
            shown = await page(web)
            assert "the shop" in shown
            assert 'href="/queue?queue=reports"' in shown
        assert web.url is None
    assert not left_tasks()


async def test_without_queues_and_reaper_it_is_something_to_do() -> None:
    app = App(MemoryStorage(), reaper=False, web=DashboardServer(port=0))
    async with app:
        assert isinstance(app.web, DashboardServer)
        assert "reach" not in await page(app.web)


async def test_an_address_that_is_taken_ends_the_start_before_any_job_runs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        storage = MemoryStorage()
        app = App(storage, queues(storage, "mail"), web=DashboardServer(port=port))
        with pytest.raises(JobQueueError, match=f"cannot serve on 127.0.0.1:{port}: .*another port"):
            await app.start()
        assert not app.queues[0].ready
    assert not left_tasks()
    async with app:  # it is free now
        assert await page(app.web)  # type: ignore[arg-type]


async def test_nothing_is_served_for_an_app_that_has_not_started() -> None:
    wire, web = WireStorage(MemoryStorage()), DashboardServer(port=0)
    app = App(wire, queues(wire, "mail"), web=web)

    async def no_store() -> None:
        raise StorageUnavailableError("no store")

    wire.fault("subscribe", before=no_store)
    with pytest.raises(StorageUnavailableError, match="no store"):
        await within(app.start())
    assert web.url is None
    await until(lambda: not left_tasks())


async def test_a_server_that_ends_by_itself_breaks_its_app() -> None:
    storage, web = MemoryStorage(), DashboardServer(port=0)
    app = App(storage, queues(storage, "mail"), web=web)
    await app.start()
    while not web.ready:
        await asyncio.sleep(0.01)
    assert web._task is not None
    web._task.cancel()
    with pytest.raises(BrokenError, match="web server"):
        await within(app.until_broken())
    await within(app.stop())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "0.0.0.0"}, "host: 0.0.0.0 can be reached from elsewhere"),
        ({"host": 7}, "host: must be an address"),
        ({"port": 70_000}, "port"),
        ({"port": True}, "port"),
        ({"root_path": "jobs"}, "root_path: 'jobs' must begin with /"),
        ({"credentials": "nobody"}, "USER:PASSWORD"),
        ({"title": ""}, "title"),
    ],
)
def test_what_would_be_unsafe_or_is_wrong_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        App(MemoryStorage(), web=DashboardServer(**options))
    assert said in str(caught.value)


def test_who_asks_for_credentials_may_be_reached_from_elsewhere() -> None:
    assert App(MemoryStorage(), web=DashboardServer(host="0.0.0.0", credentials="ops:secret")).web


def test_what_is_no_dashboard_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^web: must be a jobqueue.web.DashboardServer, not int"):
        App(MemoryStorage(), web=8787)  # type: ignore[arg-type]


def test_a_command_line_can_leave_it_out() -> None:
    app = App(MemoryStorage(), web=DashboardServer())
    app.configure(web=True)
    assert app.web is not None
    app.configure(web=False)
    assert app.web is None
    with pytest.raises(InvalidArgumentError, match="web: this app has no dashboard"):
        app.configure(web=True)
    alone = App(MemoryStorage(), reaper=False, web=DashboardServer())
    with pytest.raises(InvalidArgumentError, match="nothing to do"):
        alone.configure(web=False)


def test_of_several_processes_the_first_serves_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import os\n"
        "from jobqueue import App, Queue\n"
        "from jobqueue.web import DashboardServer\n"
        "queue = Queue(os.environ['STORE'])\n"
        "@queue.execute\n"
        "async def work(job): return 1\n"
        "app = App(os.environ['STORE'], [queue], web=DashboardServer(port=int(os.environ['PORT'])))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = Process(
        "worker", "shop:app", "--processes", "2", cwd=tmp_path,
        STORE=(tmp_path / "store").as_uri(), PORT=str(port),
    )  # fmt: skip
    try:
        process.expect(f"dashboard on http://127.0.0.1:{port}/")
        with httpx2.Client() as client:
            assert "default" in client.get(f"http://127.0.0.1:{port}/").text
    finally:
        process.signal(15)
        assert process.wait() == 0
    assert not any("cannot serve" in line or "in 0.5 s" in line for line in process.lines["err"])
