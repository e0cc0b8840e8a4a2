"""`Queue.schedules` and the scheduler, on every store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import (
    CatchUp,
    EnqueueRequest,
    InvalidArgumentError,
    JobNotFoundError,
    JobQueueError,
    MsgpackSerde,
    Queue,
    QueueFullError,
    Reaper,
    SerializationError,
    Storage,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from jobqueue.model.ticks import tick_id
from jobqueue.schedules.scheduler import FOLLOW, LOAD_ALL
from jobqueue.schedules.store_time import StoreTime
from jobqueue.schedules.stored import KEPT, MAX_NAME, STAMPS, space_of
from jobqueue.storage.capabilities import Documents, Revival
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Change
from jobqueue.testing import FakeClock
from tests.schedules.support import HOUR, QUEUE, Steps, ids, made, producing, set_mark
from tests.support import within

HOURLY = {"cron": "0 * * * *"}


def hours_back(now: int, count: int) -> list[str]:
    """Return the ids of the last ticks of an hourly schedule named ``s``, oldest first."""
    last = now // HOUR * HOUR
    return [tick_id("s", last - back * HOUR) for back in reversed(range(count))]


# -- the calls -----------------------------------------------------------------------------------


async def test_a_schedule_is_added_read_and_removed(storage: Storage) -> None:
    async with producing(storage) as queue:
        assert await queue.schedules.list() == []
        assert await queue.schedules.get("nightly") is None
        before = await StoreTime(storage).now()
        added = await queue.schedules.add(
            "nightly", queue.task["report"], args=("monday",), cron="@daily", timezone="Europe/Berlin",
            jitter=30.0, catch_up="all", priority=3,
        )  # fmt: skip
        assert (added.name, added.task, added.cron, added.every) == ("nightly", "report", "@daily", None)
        assert (added.timezone, added.jitter, added.catch_up) == ("Europe/Berlin", 30.0, CatchUp.ALL)
        assert (added.last_at, added.paused, added.origin, added.orphaned) == (None, False, "call", False)
        assert added.next_at is not None
        assert (
            timedelta(0) < added.next_at - datetime.fromtimestamp(before / 1000, UTC) <= timedelta(hours=25)
        )
        other = await queue.schedules.add("beat", {"any": "payload"}, every=1.5)
        assert (other.task, other.cron, other.every) == ("", None, 1.5)
        assert await queue.schedules.list() == [other, added]
        assert await queue.schedules.get("nightly") == added
        assert await queue.schedules.remove("nightly") is True
        assert await queue.schedules.remove("nightly") is False
        assert [schedule.name for schedule in await queue.schedules.list()] == ["beat"]
    async with Queue[Any, Any](storage, "another") as another:
        assert await another.schedules.list() == []


async def test_a_tick_is_one_job_with_its_options(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add(
            "s", queue.task["report"], kwargs={"day": "friday"}, **HOURLY, priority=3, max_attempts=7,
            result_ttl=9000.0, group="tenant",
        )  # fmt: skip
        await set_mark(storage, "s", back=HOUR)
        now = await StoreTime(storage).now()
        steps = [Steps(storage), Steps(storage, QUEUE, "another")]
        await asyncio.gather(*(each.look() for each in steps))
        (id,) = hours_back(now, 1)
        assert await ids(storage) == [id]
        (record,) = await storage.get(QUEUE, [id], payload=True)
        assert record is not None
        assert (record.task, record.priority, record.max_attempts) == ("report", 3, 7)
        assert (record.ttl, record.group) == (9_000_000, "tenant")
        assert record.run_at == now // HOUR * HOUR
        assert record.payload == b'{"args":["friday"],"kwargs":{}}'
        found = await queue.schedules.get("s")
        assert found is not None
        assert found.last_at == datetime.fromtimestamp(now // HOUR * 3600, UTC)
        for each in steps:
            await each.look()
            assert each.errors == []
        assert await ids(storage) == [id]
        await Steps(storage, "another").look()


@pytest.mark.parametrize(("catch_up", "count"), [("skip", 0), ("last", 1), ("all", 3)])
async def test_missed_ticks_are_caught_up_as_the_schedule_says(
    storage: Storage, catch_up: str, count: int
) -> None:
    async with producing(storage) as queue:
        now = await StoreTime(storage).now()
        minutes = (now - 120_000) // 60_000 % 60  # two minutes ago: late, but not by an hour
        await queue.schedules.add("s", None, cron=f"{minutes} * * * *", catch_up=catch_up)
        await set_mark(storage, "s", back=3 * HOUR)
        await Steps(storage).look()
        last = now // HOUR * HOUR + minutes * 60_000
        last -= HOUR if last > now else 0
        wanted = [tick_id("s", last - back * HOUR) for back in range(count)]
        assert await ids(storage) == sorted(wanted)
        assert (await Steps(storage).look()) <= 1.0
        assert await ids(storage) == sorted(wanted)


async def test_a_tick_that_is_a_little_late_is_enqueued_whatever_catch_up_says(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, every=1.0, catch_up="skip")
        await set_mark(storage, "s", back=30_000)
        await Steps(storage).look()
        assert 30 <= len(await ids(storage)) <= 45


async def test_thousands_of_missed_ticks_are_enqueued_in_parts(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, every=60.0, catch_up="all")
        await set_mark(storage, "s", back=1200 * 60_000)
        await Steps(storage).look()
        assert len(await ids(storage)) in {1200, 1201}


async def test_what_is_paused_has_no_ticks_and_catches_nothing_up(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, **HOURLY, catch_up="all")
        paused = await queue.schedules.pause("s")
        assert (paused.paused, paused.next_at) == (True, None)
        assert await queue.schedules.pause("s") == paused
        await set_mark(storage, "s", back=5 * HOUR)
        steps = Steps(storage)
        await steps.look()
        assert await ids(storage) == []
        resumed = await queue.schedules.resume("s")
        assert not resumed.paused
        assert resumed.next_at is not None
        await steps.look()
        assert await ids(storage) == []
        assert await queue.schedules.resume("s") == resumed
        born = await queue.schedules.add("t", None, **HOURLY, paused=True)
        assert (born.paused, born.next_at) == (True, None)


async def test_a_pause_counts_for_a_scheduler_that_has_not_heard_of_it(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, **HOURLY)
        await set_mark(storage, "s", back=HOUR)
        steps = Steps(storage)
        await steps.scheduler._load(QUEUE)  # it knows of a tick that is due
        await queue.schedules.pause("s")
        await steps.scheduler._enqueue_due()
        assert await ids(storage) == []
        await queue.schedules.resume("s")
        await queue.schedules.remove("s")
        await steps.look()
        assert await ids(storage) == []


async def test_a_request_says_which_job_it_is(storage: Storage) -> None:
    async with producing(storage) as queue:
        request = queue.task["report"].using(priority=4, id="unused").request("monday")
        added = await queue.schedules.add("s", request, **HOURLY)
        assert added.task == "report"
        made = await queue.schedules.run_now("s")
        found = await queue.jobs.get(made.id)
        assert found is not None
        assert (found.task, found.priority, found.payload["args"]) == ("report", 4, ["monday"])


async def test_run_now_is_beside_the_ticks(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", queue.task["report"], **HOURLY, paused=True)
        first, second = [await queue.schedules.run_now("s") for _ in range(2)]
        assert first.status == second.status == "queued"
        assert first.id != second.id
        assert first.id.startswith("s@now-")
        assert await ids(storage) == sorted([first.id, second.id])
        found = await queue.schedules.get("s")
        assert found is not None
        assert (found.last_at, found.paused) == (None, True)


async def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    async with producing(storage) as queue:
        for call in (queue.schedules.pause, queue.schedules.resume, queue.schedules.run_now):
            with pytest.raises(JobNotFoundError, match="no schedule 'nobody' in queue 'q'"):
                await call("nobody")


REFUSED: list[tuple[str, type[Exception], dict[str, Any]]] = [
    ("name", InvalidArgumentError, {"name": ""}),
    ("name", InvalidArgumentError, {"name": "x" * (MAX_NAME + 1)}),
    ("name", InvalidArgumentError, {"name": "a\nb"}),
    ("name", InvalidArgumentError, {"name": 5}),
    ("cron", InvalidArgumentError, {"cron": None}),
    ("cron", InvalidArgumentError, {"every": 60}),
    ("cron", InvalidArgumentError, {"cron": "61 * * * *"}),
    ("every", InvalidArgumentError, {"cron": None, "every": 0.9}),
    ("timezone", InvalidArgumentError, {"timezone": "Mars/Olympus"}),
    ("jitter", InvalidArgumentError, {"jitter": -1.0}),
    ("catch_up", InvalidArgumentError, {"catch_up": "some"}),
    ("paused", InvalidArgumentError, {"paused": 1}),
    ("priority", InvalidArgumentError, {"priority": 5000}),
    ("max_attempts", InvalidArgumentError, {"max_attempts": 0}),
    ("result_ttl", InvalidArgumentError, {"result_ttl": -1.0}),
    ("group", InvalidArgumentError, {"group": "a\nb"}),
    ("id", InvalidArgumentError, {"id": "mine"}),
    ("delay", InvalidArgumentError, {"delay": 5.0}),
    ("on_full", InvalidArgumentError, {"on_full": "wait"}),
    ("nonsense", InvalidArgumentError, {"nonsense": 5}),
    ("args", InvalidArgumentError, {"args": (1,)}),
    ("kwargs", InvalidArgumentError, {"kwargs": {"a": 1}}),
    ("what", InvalidArgumentError, {"what": "x" * 70_000}),
    ("the payload", SerializationError, {"what": object()}),
    ("report()", TypeError, {"what": "the task", "args": (1, 2, 3)}),
    ("report(day)", InvalidArgumentError, {"what": "the task", "args": (5,)}),
    ("what", InvalidArgumentError, {"what": "another's task"}),
    ("what", InvalidArgumentError, {"what": "a bound task"}),
    ("delay", InvalidArgumentError, {"what": EnqueueRequest("a", None, delay=5.0)}),
    ("run_at", InvalidArgumentError, {"what": EnqueueRequest("a", None, run_at=datetime.now(UTC))}),
    ("priority", InvalidArgumentError, {"what": EnqueueRequest("a", None), "priority": 5}),
    ("args", InvalidArgumentError, {"what": EnqueueRequest("a", None), "args": (5,)}),
]


@pytest.mark.parametrize(("argument", "error", "given"), REFUSED)
async def test_wrong_arguments_are_refused_by_name_before_anything_is_stored(
    storage: Storage, argument: str, error: type[Exception], given: dict[str, Any]
) -> None:
    if not isinstance(storage, MemoryStorage):
        pytest.skip("checked before the store is asked")
    async with producing(storage) as queue:
        call = {"name": "s", "what": None, "cron": "* * * * *", **given}
        tasks = {
            "the task": queue.task["report"],
            "another's task": made(storage).task["report"],
            "a bound task": queue.task["report"].using(priority=1),
        }
        if isinstance(call["what"], str):
            call["what"] = tasks.get(call["what"], call["what"])
        with pytest.raises(error) as raised:
            await queue.schedules.add(**call)
        assert str(raised.value).startswith(argument)
        assert await queue.schedules.list() == []
        assert await ids(storage) == []


async def test_a_store_without_documents_is_named() -> None:
    class Bare(MemoryStorage):
        list_documents = None  # type: ignore[assignment]

    queue = made(Bare())
    async with queue, Reaper(queue.storage, sweep_interval=0.01) as reaper:
        with pytest.raises(UnsupportedError, match="schedules"):
            await queue.schedules.list()
        assert reaper.is_leader
    declared = made(Bare())
    declared.schedule(every=60.0)(declared.task["report"])
    with pytest.raises(UnsupportedError, match="schedules"):
        await declared.start()


# -- adding again --------------------------------------------------------------------------------


async def test_adding_again_loses_no_tick_and_makes_none_twice(storage: Storage) -> None:
    async with producing(storage) as queue:
        now = await StoreTime(storage).now()
        await queue.schedules.add("s", 1, **HOURLY, catch_up="all")
        await set_mark(storage, "s", back=2 * HOUR)
        again = await queue.schedules.add("s", 2, **HOURLY, catch_up="all")
        await Steps(storage).look()
        assert await ids(storage) == hours_back(now, 2)
        again = await queue.schedules.add("s", 2, **HOURLY, catch_up="all")
        assert again.last_at == datetime.fromtimestamp(now // HOUR * 3600, UTC)
        await Steps(storage).look()
        assert await ids(storage) == hours_back(now, 2)
        # Other times begin now.
        await set_mark(storage, "s", back=2 * HOUR)
        other = await queue.schedules.add("s", 2, cron="0 */2 * * *", catch_up="all")
        assert other.next_at is not None
        assert other.next_at.timestamp() * 1000 > now
        await Steps(storage).look()
        assert await ids(storage) == hours_back(now, 2)


async def test_adding_again_what_was_paused_begins_now(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", 1, **HOURLY, catch_up="all", paused=True)
        await set_mark(storage, "s", back=2 * HOUR)
        await queue.schedules.add("s", 1, **HOURLY, catch_up="all")
        await Steps(storage).look()
        assert await ids(storage) == []


# -- of code -------------------------------------------------------------------------------------


def declaring(storage: Storage, *names: str, **times: Any) -> Queue[Any, Any]:
    queue: Queue[Any, Any] = Queue(storage, QUEUE)
    for name in ("report", "other"):
        task = queue.task(name=name)(lambda: None)
        if name in names:
            assert queue.schedule(**times)(task) is task
    return queue


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of schedules: a store tells of its server at any time."""
    return [message for message in caplog.messages if message.startswith("schedule ")]


async def test_the_code_wins_at_the_start_and_says_so(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="jobqueue")
    async with declaring(storage, "report", "other", cron="0 * * * *") as queue:
        report, other = sorted(await queue.schedules.list(), key=lambda found: found.name, reverse=True)
        assert (report.name, report.task, report.origin, report.orphaned) == (
            "report",
            "report",
            "code",
            False,
        )
        assert other.name == "other"
    assert isinstance(storage, Documents)
    (first,) = await storage.read_documents(space_of(QUEUE), ["report"])
    async with declaring(storage, "report", "other", cron="0 * * * *") as queue:
        await queue.schedules.pause("other")
    assert await storage.read_documents(space_of(QUEUE), ["report"]) == [first], "nothing was to be written"
    assert said(caplog) == []
    async with declaring(storage, "report", "other", cron="5 * * * *") as queue:
        found = await queue.schedules.get("other")
        assert found is not None
        assert (found.cron, found.paused) == ("5 * * * *", True)
        await queue.schedules.add("report", None, every=5.0)
    assert sorted(said(caplog)) == [
        f"schedule {name!r} of queue 'q': the code replaces what is stored (0 * * * * UTC by 5 * * * * UTC)"
        for name in ("other", "report")
    ]
    caplog.clear()
    async with declaring(storage, "report", cron="5 * * * *") as queue:
        found = await queue.schedules.get("report")
        assert found is not None
        assert (found.cron, found.origin, found.orphaned) == ("5 * * * *", "code", False)
        lost = await queue.schedules.get("other")
        assert lost is not None
        assert lost.orphaned, "it was removed from the code, and goes on"
    assert [message.partition(":")[0] for message in said(caplog)] == [
        "schedule 'other' of queue 'q' is no longer in the code",
        "schedule 'report' of queue 'q'",
    ]
    async with Queue[Any, Any](storage, QUEUE) as plain:  # without tasks it cannot know
        assert [found.orphaned for found in await plain.schedules.list()] == [False, False]


async def test_a_declaration_is_checked_where_it_stands(storage: Storage) -> None:
    queue = made(storage)
    task = queue.task["report"]
    with pytest.raises(InvalidArgumentError, match="cron: "):
        queue.schedule(cron="nonsense")(task)
    with pytest.raises(TypeError, match="report"):
        queue.schedule(every=5.0, args=(1, 2))(task)
    with pytest.raises(InvalidArgumentError, match=r"task: .*@queue\.task below"):
        queue.schedule(every=5.0)(lambda: None)
    queue.schedule(every=5.0, kwargs={"day": "monday"}, priority=2)(task)
    with pytest.raises(JobQueueError, match="has a schedule already"):
        queue.schedule(every=6.0)(task)
    async with queue:
        with pytest.raises(JobQueueError, match="started"):
            queue.schedule(every=6.0)(task)


# -- schedulers ----------------------------------------------------------------------------------


async def test_a_reaper_runs_what_is_due(storage: Storage) -> None:
    queue = made(storage)
    async with queue, Reaper(storage, [QUEUE]):
        added = await queue.schedules.add("s", queue.task["report"], args=("now",), every=1.0)
        assert added.next_at is not None
        id = tick_id("s", round(added.next_at.timestamp()) * 1000)

        async def ended() -> str:
            while True:
                with suppress(JobNotFoundError):
                    result: str = await queue.wait(id, timeout=60.0)
                    return result
                await asyncio.sleep(0.05)

        assert await within(ended(), 60.0) == "the report of now"


async def test_a_late_scheduler_repeats_no_tick_whose_record_is_gone(storage: Storage) -> None:
    """It was frozen with a tick in mind; meanwhile another enqueued it, it ran, and its record expired."""
    assert isinstance(storage, Revival)
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, **HOURLY)
        await set_mark(storage, "s", back=HOUR)
        frozen = Steps(storage)
        await frozen.scheduler._load(QUEUE)
        assert len(frozen.scheduler._heap) == 1
        await Steps(storage).look()
        (id,) = await ids(storage)
        assert await storage.forget(QUEUE, [id]) == [True]
        await frozen.scheduler._enqueue_due()
        await frozen.look()
        assert await ids(storage) == []


async def test_the_record_of_a_tick_outlives_a_scheduler_that_is_held_up(storage: Storage) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, **HOURLY, result_ttl=0.001)
        await set_mark(storage, "s", back=HOUR)
        await Steps(storage).look()
        (record,) = await storage.get(QUEUE, await ids(storage))
        assert record is not None
        assert record.ttl == KEPT


class Halfway(Exception):
    """The process dies here."""


@pytest.mark.parametrize("step", ["insert", "write_documents"])
async def test_dying_between_two_steps_neither_loses_nor_doubles(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with producing(storage) as queue:
        now = await StoreTime(storage).now()
        await queue.schedules.add("s", None, **HOURLY, catch_up="all")
        await set_mark(storage, "s", back=3 * HOUR)
        dying = Steps(storage)
        call: Callable[..., Any] = getattr(storage, step)

        async def dies(*given: Any, **named: Any) -> Any:
            if step == "insert":
                await call(*given, **named)
            raise Halfway

        with monkeypatch.context() as patch:
            patch.setattr(storage, step, dies)
            with pytest.raises(Halfway):
                await dying.look()
        assert await ids(storage) == hours_back(now, 3)
        steps = Steps(storage)
        await steps.look()
        assert await ids(storage) == hours_back(now, 3)
        found = await queue.schedules.get("s")
        assert found is not None
        assert found.last_at == datetime.fromtimestamp(now // HOUR * 3600, UTC)


async def test_a_document_that_cannot_be_read_stops_no_other(storage: Storage) -> None:
    assert isinstance(storage, Documents)
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, **HOURLY)
        await set_mark(storage, "s", back=HOUR)
        garbage = {"bad": b"\xc1", "worse": b"\x80", "newer": b"\x81\xa6format\xcd\x03\xe7"}
        (good,) = await storage.read_documents(space_of(QUEUE), ["s"])
        assert good is not None
        wild = MsgpackSerde().loads(good.data)
        for number, change in enumerate(
            ({"job": {"payload": b"", "priority": 10**6}}, {"mark": -1}, {"jitter": "much"}, {"paused": None})
        ):
            garbage[f"wild {number}"] = MsgpackSerde().dumps({**wild, **change})
        await storage.write_documents(space_of(QUEUE), [Change(n, 0, data) for n, data in garbage.items()])
        steps = Steps(storage)
        await steps.look()
        assert len(await ids(storage)) == 1
        assert len(steps.errors) == 7
        await steps.look()
        assert len(steps.errors) == 7, "told once"
        for name in garbage:
            with pytest.raises(StorageError, match="format 999" if name == "newer" else "cannot be read"):
                await queue.schedules.get(name)
            assert await queue.schedules.remove(name)
        assert [found.name for found in await queue.schedules.list()] == ["s"]


async def test_ticks_pass_by_a_full_queue(storage: Storage) -> None:
    """Who schedules does not know of ``max_length``, which is that of each producer."""
    queue: Queue[Any, Any] = Queue(storage, QUEUE, max_length=1)
    async with queue:
        await queue.enqueue("a", None)
        await queue.schedules.add("s", None, **HOURLY)
        await set_mark(storage, "s", back=HOUR)
        await Steps(storage).look()
        assert len(await ids(storage)) == 2
        with pytest.raises(QueueFullError):
            await queue.schedules.run_now("s")


# -- time: on the memory store alone -------------------------------------------------------------


async def test_ticks_come_in_time_and_never_before(storage: Storage, clock: FakeClock) -> None:
    async with producing(storage) as queue, Reaper(storage):
        await queue.schedules.add("s", None, every=7.0)
        start = clock.now_ms()
        for _ in range(4):
            upcoming = (await queue.schedules.get("s")).next_at
            await clock.advance(upcoming.timestamp() - clock.time() - 0.01)
            assert (await queue.schedules.get("s")).next_at == upcoming
            await clock.advance(0.02)
            assert (await queue.schedules.get("s")).last_at == upcoming
        wanted = [tick_id("s", tick) for tick in range(start // 7000 * 7000 + 7000, clock.now_ms(), 7000)]
        assert await ids(storage) == wanted


async def test_jitter_delays_the_start_and_not_the_id(storage: Storage, clock: FakeClock) -> None:
    async with producing(storage) as queue, Reaper(storage):
        await queue.schedules.add("s", None, every=60.0, jitter=50.0)
        await clock.advance(600)
        starts = []
        for id in await ids(storage):
            (record,) = await storage.get(QUEUE, [id])
            assert record is not None
            tick = round(datetime.fromisoformat(id.partition("@")[2]).timestamp()) * 1000
            assert tick % 60_000 == 0
            starts.append(record.run_at - tick)
        assert len(starts) == 10
        assert all(0 <= start <= 50_000 for start in starts)
        assert len(set(starts)) > 5


async def test_a_follower_leaves_the_tick_to_the_leader(storage: Storage, clock: FakeClock) -> None:
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, every=10.0)
        follower = Steps(storage, leads=False)
        await follower.look()
        await clock.advance((10_000 - clock.now_ms() % 10_000) / 1000)
        await follower.look()
        assert await ids(storage) == []
        await clock.advance(FOLLOW / 1000)
        await follower.look()
        assert len(await ids(storage)) == 1, "there was no leader"


async def test_a_change_without_its_stamp_is_found_within_a_minute(
    storage: Storage, clock: FakeClock
) -> None:
    assert isinstance(storage, Documents)
    async with producing(storage) as queue:
        await queue.schedules.add("s", None, every=2.0)
        steps = Steps(storage)
        await steps.look()
        (document,) = await storage.read_documents(space_of(QUEUE), ["s"])
        assert document is not None
        await storage.write_documents(space_of(QUEUE), [Change("t", 0, document.data)])
        await clock.advance(5)
        await steps.look()
        assert not any(id.startswith("t@") for id in await ids(storage))
        await clock.advance(LOAD_ALL)
        await steps.look()
        assert any(id.startswith("t@") for id in await ids(storage))
        await queue.schedules.remove("s")
        await storage.write_documents(space_of(QUEUE), [Change("t", None, None)])
        await storage.write_documents(STAMPS, [Change(QUEUE, None, None)])
        await steps.look()
        assert steps.scheduler._known == {}


async def test_a_clock_that_is_set_repeats_nothing(storage: Storage, clock: FakeClock) -> None:
    async with producing(storage) as queue, Reaper(storage):
        await queue.schedules.add("s", None, every=60.0, catch_up="all")
        await clock.advance(180)
        assert len(await ids(storage)) == 3
        clock.step(-3600)
        await clock.advance(600)
        assert len(await ids(storage)) == 3
        clock.step(3600)
        await clock.advance(60)
        assert len(await ids(storage)) == 3 + 10 + 1


async def test_the_storms_of_an_outage_are_told_once(
    storage: Storage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StorageUnavailableError("away")

    async with producing(storage) as queue:
        await queue.schedules.add("s", None, every=10.0, catch_up="all")
        steps = Steps(storage)
        task = asyncio.create_task(steps.scheduler.run())
        await clock.advance(10)
        assert len(await ids(storage)) == 1
        for name in ("insert", "list_documents"):
            with monkeypatch.context() as patch:
                patch.setattr(storage, name, away)
                await clock.advance(100)
            assert len(steps.errors) == 1
            steps.errors.clear()
            await clock.advance(10)
            assert steps.errors == []
        assert len(await ids(storage)) == 1 + 2 * 11
        task.cancel()
        await asyncio.wait({task})


def test_the_loads_of_ids_fit() -> None:
    assert len(tick_id("x" * MAX_NAME, 0)) <= 256
