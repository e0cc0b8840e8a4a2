"""Several queues and a reaper in one process: started, served, stopped and broken together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobqueue import (
    App,
    ErrorOccurred,
    FileStorage,
    InvalidArgumentError,
    Job,
    JobCompleted,
    JobQueueError,
    JobStalled,
    LeadershipAcquired,
    MemoryStorage,
    Queue,
    Reaper,
    StorageUnavailableError,
)
from jobqueue.testing import FakeClock
from tests.support import Gate, WireStorage, die, echo, left_tasks, until, within


def made(storage: Any, *names: str, **options: Any) -> list[Queue[Any, Any]]:
    queues = [Queue[Any, Any](storage, name, **options) for name in names]
    for queue in queues:
        queue.execute(echo)
    return queues


@pytest.fixture
async def app(wire: WireStorage) -> AsyncIterator[App]:
    app = App(wire, made(wire, "mail", "reports"))
    yield app
    wire.heal()
    await within(app.stop(timeout=0))


# -- what it is made of -------------------------------------------------------------------------------


def test_it_says_what_it_is_made_of() -> None:
    storage = MemoryStorage()
    mail, reports = made(storage, "mail", "reports")
    app = App(storage, [mail, reports])
    assert app.storage is storage
    assert app.queues == (mail, reports)
    assert isinstance(app.reaper, Reaper)
    assert app.reaper.storage is storage
    assert not app.ready
    assert repr(app) == "<App of mail, reports on MemoryStorage(), stopped>"
    own = Reaper(storage, ["mail"], sweep_interval=1.0)
    assert App(storage, [mail], reaper=own).reaper is own
    assert App(storage, [mail], reaper=False).reaper is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"queues": ["mail"]}, "queues: must be Queue objects, not 'mail'"),
        ({"queues": "mail"}, "queues: must be Queue objects, not 'm'"),
        ({"queues": 7}, "queues: must be Queue objects, not int"),
        ({"reaper": "yes"}, "reaper: must be True or False"),
        ({"queues": [], "reaper": False}, "queues: must not be empty without a reaper"),
    ],
)
def test_what_cannot_be_an_app_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        App(MemoryStorage(), **arguments)
    assert problem in str(caught.value)


def test_two_queues_of_one_name_are_refused() -> None:
    storage = MemoryStorage()
    with pytest.raises(InvalidArgumentError, match="two are named 'mail'"):
        App(storage, made(storage, "mail", "mail"))


@pytest.mark.parametrize("part", ["queue", "reaper"])
def test_parts_on_another_store_are_refused_with_the_remedy(part: str) -> None:
    mine, other = MemoryStorage(), MemoryStorage()
    queues = made(other if part == "queue" else mine, "mail")
    reaper = Reaper(other if part == "reaper" else mine)
    with pytest.raises(InvalidArgumentError, match=rf"^{part}s?: .* is on .* make them with one object"):
        App(mine, queues, reaper=reaper)


def test_parts_made_with_the_same_url_get_one_store(tmp_path: Any) -> None:
    url = f"file://{tmp_path}/jobs"
    mail, reports = made(url, "mail", "reports")
    reaper = Reaper(url)
    app = App(url, [mail, reports], reaper=reaper)
    assert mail.storage is reports.storage is reaper.storage is app.storage
    with pytest.raises(InvalidArgumentError, match="queue 'mail' is on"):
        App(FileStorage(tmp_path / "jobs"), [mail])
    with pytest.raises(InvalidArgumentError, match="queue 'mail' is on"):  # each URL makes another one
        App("memory://", made("memory://", "mail"))


async def test_a_started_queue_is_not_moved_to_another_object(tmp_path: Any) -> None:
    url = f"file://{tmp_path}/jobs"
    async with made(url, "mail")[0] as mail:
        with pytest.raises(InvalidArgumentError, match="queue 'mail' is started already"):
            App(url, [mail])


def test_configure_reaches_every_part() -> None:
    storage, other = MemoryStorage(), MemoryStorage()
    app = App(storage, made(storage, "mail", "reports"))
    app.configure(storage=other, concurrency=7, worker_id="w", reaper=False)
    assert {(queue.storage, queue.concurrency, queue.worker_id) for queue in app.queues} == {(other, 7, "w")}
    assert app.storage is other
    assert app.reaper is None
    app.configure(reaper=True)
    assert app.reaper is not None
    assert app.reaper.storage is other
    assert "7" not in repr(App(storage))


async def test_configure_is_refused_once_it_is_started(app: App) -> None:
    await within(app.start())
    with pytest.raises(JobQueueError, match="this app is started"):
        app.configure(concurrency=2)
    assert app.reaper is not None
    with pytest.raises(JobQueueError, match="this reaper is started"):
        app.reaper.configure(storage=MemoryStorage())


# -- life ---------------------------------------------------------------------------------------------


async def test_all_of_it_starts_works_and_stops(clock: FakeClock, wire: WireStorage, app: App) -> None:
    before = left_tasks()
    await die(wire, "lost", queue="reports")
    async with app:
        mail, reports = app.queues
        assert await within(mail.enqueue_and_wait("a", 1)) == 1
        assert await within(reports.enqueue_and_wait("a", 2)) == 2
        await clock.settle()
        assert app.reaper is not None
        assert app.reaper.is_leader
        assert app.ready
        await clock.advance(10)
        assert await within(reports.wait("lost")) == 1
    assert not app.ready
    assert "stopped" in repr(app)
    await until(lambda: left_tasks() == before)
    assert wire.calls("close") + 1 == wire.calls("open") == 4
    await within(app.start())
    assert await within(app.queues[0].enqueue_and_wait("b", 3)) == 3


async def test_a_start_that_fails_stops_what_had_started(wire: WireStorage, clock: FakeClock) -> None:
    app = App(wire, made(wire, "mail", "reports", "third"))
    calls = 0

    async def third_fails() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StorageUnavailableError("no store")

    wire.fault("subscribe", before=third_fails)
    before = left_tasks()
    with pytest.raises(StorageUnavailableError, match="no store"):
        await within(app.start())
    assert not app.ready
    assert not any(queue.ready for queue in app.queues)
    await until(lambda: left_tasks() == before)
    assert wire.calls("close") + 1 == wire.calls("open")
    wire.heal()
    async with app:
        assert await within(app.queues[2].enqueue_and_wait("a", 1)) == 1


async def test_it_is_ready_when_every_queue_is(wire: WireStorage, clock: FakeClock, app: App) -> None:
    await within(app.start())
    await clock.settle()
    assert app.ready
    await within(app.queues[1].stop())
    assert not app.ready


async def test_an_app_of_a_reaper_alone_is_ready_when_that_is(wire: WireStorage, clock: FakeClock) -> None:
    async with App(wire) as app:
        await clock.settle()
        assert app.ready


async def test_all_queues_drain_at_once_within_one_bound(wire: WireStorage, clock: FakeClock) -> None:
    gates = [Gate(), Gate(), Gate()]
    queues = [Queue[Any, Any](wire, f"q{n}") for n in range(3)]
    for queue, gate in zip(queues, gates, strict=True):
        queue.execute(gate)
    app = App(wire, queues)
    await within(app.start())
    for queue, gate in zip(queues, gates, strict=True):
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
    stopping = asyncio.create_task(app.stop(timeout=5))
    await clock.advance(4.9)
    assert not stopping.done()
    await clock.advance(0.2)
    await within(stopping)
    assert [gate.cancelled for gate in gates] == [1, 1, 1]
    assert [(await wire.get(queue.name, ["a"]))[0].state for queue in queues] == ["queued"] * 3


async def test_a_hurried_stop_gives_the_jobs_of_all_queues_back(wire: WireStorage) -> None:
    gates = [Gate(), Gate()]
    queues = [Queue[Any, Any](wire, f"q{n}") for n in range(2)]
    for queue, gate in zip(queues, gates, strict=True):
        queue.execute(gate)
    async with App(wire, queues) as app:
        for queue, gate in zip(queues, gates, strict=True):
            await queue.enqueue("a", 1)
            await within(gate.began.wait())
        stopping = asyncio.create_task(app.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        app.hurry()
        await within(stopping)
    assert [gate.jobs[0].aborted_reason for gate in gates] == ["shutdown"] * 2


async def test_a_stop_that_is_cancelled_gives_every_job_back(wire: WireStorage, clock: FakeClock) -> None:
    gates = [Gate(), Gate()]
    queues = [Queue[Any, Any](wire, f"q{n}") for n in range(2)]
    for queue, gate in zip(queues, gates, strict=True):
        queue.execute(gate)
    app = App(wire, queues)
    await within(app.start())
    for queue, gate in zip(queues, gates, strict=True):
        await queue.enqueue("a", 1)
        await within(gate.began.wait())
    stopping = asyncio.create_task(app.stop())
    await clock.settle()
    stopping.cancel()
    await clock.advance(5)
    with pytest.raises(asyncio.CancelledError):
        await within(stopping)
    assert [(await wire.get(queue.name, ["a"]))[0].state for queue in queues] == ["queued"] * 2
    assert wire.calls("close") + 1 == wire.calls("open")


async def test_every_part_is_stopped_although_one_fails(wire: WireStorage, app: App) -> None:
    await within(app.start())
    failures = iter([StorageUnavailableError("one"), StorageUnavailableError("two")])

    async def fail() -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    wire.fault("close", before=fail)
    with pytest.raises(StorageUnavailableError) as caught:
        await within(app.stop())
    assert caught.value.__notes__
    assert wire.calls("close") == 3
    assert not app.ready
    assert not any(queue.ready for queue in app.queues)


async def test_a_handler_cannot_stop_its_app(wire: WireStorage) -> None:
    queue = Queue[Any, Any](wire, "mail")
    app = App(wire, [queue])

    @queue.execute
    async def handler(job: Job[Any]) -> str:
        try:
            await app.stop()
        except JobQueueError as error:
            return str(error)
        return "stopped"

    async with app:
        assert "would wait for itself" in await within(queue.enqueue_and_wait("a", 1))


# -- serving ------------------------------------------------------------------------------------------


async def test_a_signal_drains_every_queue(wire: WireStorage, clock: FakeClock, app: App) -> None:
    serving = asyncio.create_task(app.run())
    await until(lambda: app.ready)
    os.kill(os.getpid(), signal.SIGTERM)
    await within(serving)
    assert not app.ready
    assert wire.calls("close") + 1 == wire.calls("open")


@pytest.mark.parametrize("place", [0, 1])
async def test_a_queue_that_breaks_ends_the_run(wire: WireStorage, app: App, place: int) -> None:
    serving = asyncio.create_task(app.run())
    await until(lambda: app.ready)
    session = app.queues[place]._session
    assert session is not None
    session._break(ZeroDivisionError("a defect"))
    with pytest.raises(JobQueueError, match=r"broke and must be restarted.*a defect"):
        await within(serving)
    assert wire.calls("close") + 1 == wire.calls("open")


async def test_a_reaper_that_breaks_ends_the_run(wire: WireStorage, app: App) -> None:
    wire.fault("queues", raises=ZeroDivisionError("a defect"))
    with pytest.raises(JobQueueError, match=r"reaper broke.*a defect"):
        await within(app.run())


async def test_a_run_goes_on_while_any_queue_does_and_ends_with_the_last(wire: WireStorage, app: App) -> None:
    serving = asyncio.create_task(app.run())
    await until(lambda: app.ready)
    mail, reports = app.queues
    await within(mail.stop())
    assert await within(reports.enqueue_and_wait("a", 1)) == 1
    assert not serving.done()
    await within(reports.stop())
    await within(serving)
    assert app.reaper is not None
    assert not app.reaper.is_leader
    assert wire.calls("close") + 1 == wire.calls("open")


async def test_a_stop_by_another_task_ends_the_run(wire: WireStorage, app: App) -> None:
    for _ in range(2):
        serving = asyncio.create_task(app.run())
        await until(lambda: app.ready)
        await within(app.stop())
        await within(serving)
    await within(app.until_broken())


def test_an_app_is_of_one_loop() -> None:
    storage = MemoryStorage()
    app, owner = App(storage, made(storage, "mail")), asyncio.new_event_loop()
    try:
        owner.run_until_complete(app.start())
        for call in (app.start, app.stop, app.until_broken):
            with pytest.raises(JobQueueError, match="this app was started in another event loop"):
                asyncio.run(call())
        owner.run_until_complete(app.stop())
    finally:
        owner.close()


# -- events -------------------------------------------------------------------------------------------


async def test_listeners_hear_all_queues_and_the_reaper(
    wire: WireStorage, clock: FakeClock, app: App
) -> None:
    heard: list[Any] = []
    remove = app.on(JobCompleted, heard.append)
    app.on("stalled", heard.append)

    @app.on(LeadershipAcquired)
    async def leads(event: LeadershipAcquired) -> None:
        heard.append(event)

    await die(wire, "lost", queue="mail")
    async with app:
        mail, reports = app.queues
        for queue in (mail, reports):
            await within(queue.enqueue_and_wait("a", 1))
        await clock.advance(10)
        await within(mail.wait("lost"))
        await clock.settle()
        told = {(event.name, getattr(event, "queue", "")) for event in heard}
        assert told == {("completed", "mail"), ("completed", "reports"), ("stalled", "mail"),
                        ("leadership_acquired", "")}  # fmt: skip
        remove()
        heard.clear()
        await within(mail.enqueue_and_wait("b", 1))
        assert heard == []


def test_unknown_events_are_refused() -> None:
    app = App(MemoryStorage())
    app.on(ErrorOccurred, print)
    app.on(JobStalled, print)
    with pytest.raises(InvalidArgumentError, match=r"name: must be one of started, .*leadership_lost"):
        app.on("nonsense", print)
    with pytest.raises(InvalidArgumentError, match="listener"):
        app.on(JobCompleted, 7)  # type: ignore[call-overload]


# -- starts and stops that meet ------------------------------------------------------------------------


async def test_who_watches_a_start_does_not_stop_the_next_one(app: App) -> None:
    await within(app.start())
    watching = asyncio.create_task(app.until_broken())
    await asyncio.sleep(0)
    await within(app.stop())
    await within(app.start())
    await within(watching)
    assert await within(app.queues[0].enqueue_and_wait("a", 1)) == 1
    assert app.ready


async def test_a_start_that_fails_waits_for_no_handler(wire: WireStorage) -> None:
    mail, reports = Queue[Any, Any](wire, "mail"), Queue[Any, Any](wire, "reports")
    running = asyncio.Event()

    @mail.execute
    async def lasts(job: Job[Any]) -> None:
        running.set()
        await asyncio.Event().wait()

    async def refuse() -> None:
        await running.wait()
        raise StorageUnavailableError("not now")

    async with Queue[Any, Any](wire, "mail") as producer:
        await producer.enqueue("a", None)
        reports.start = refuse  # type: ignore[method-assign]
        with pytest.raises(StorageUnavailableError, match="not now"):
            await within(App(wire, [mail, reports]).start())
        status = await producer.get_status("a")
    assert status is not None
    assert (status.state, status.attempts) == ("queued", 0)


async def test_a_start_that_fails_leaves_a_queue_alone_that_runs_already(wire: WireStorage) -> None:
    mail, reports = made(wire, "mail", "reports")

    async def refuse() -> None:
        raise StorageUnavailableError("not now")

    reports.start = refuse  # type: ignore[method-assign]
    async with mail:
        with pytest.raises(StorageUnavailableError):
            await within(App(wire, [mail, reports]).start())
        assert await within(mail.enqueue_and_wait("a", 1)) == 1


async def test_configuring_changes_nothing_if_it_is_refused(wire: WireStorage) -> None:
    mail, reports = made(wire, "mail", "reports")
    app = App(wire, [mail, reports])
    async with reports:
        with pytest.raises(JobQueueError, match="is started"):
            app.configure(storage=MemoryStorage())
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        app.configure(storage=MemoryStorage(), concurrency=0)
    assert {app.storage, mail.storage, reports.storage} == {wire}
