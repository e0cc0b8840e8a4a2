"""Those who wait, one by one: replies that come early, late, twice or for another."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

import pytest

from jobqueue.client.waiter import Waiter
from jobqueue.client.waiters import REREAD_INTERVAL, Waiters
from jobqueue.errors import JobNotFoundError
from jobqueue.model.states import JobState
from jobqueue.runtime.timers import Timers
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import Record, Reply
from jobqueue.testing import FakeClock
from tests.support import DeafStorage, Lab, echo, opened

DONE, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


def reply(seq: int, data: bytes | None = b"1", state: JobState = DONE) -> Reply:
    return Reply("q", "a", seq, state, data, 1)


def record(seq: int, state: JobState, result: bytes | None = None, error: bytes | None = None) -> Record:
    fields: dict[str, Any] = dict.fromkeys(Record._fields, 0) | dict.fromkeys(
        ("worker", "progress", "payload")
    )
    return Record(**(fields | {"id": "a", "seq": seq, "state": state, "result": result, "error": error}))


async def waiter(seq: int = 0) -> Waiter:
    made = Waiter("a", asyncio.get_running_loop().create_future())
    if seq:
        made.bind(seq)
    return made


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2])))
async def test_of_early_replies_that_of_the_incarnation_counts(order: tuple[int, int]) -> None:
    one = await waiter()
    for seq in order:
        assert not one.hear(reply(seq, b"%d" % seq))
    assert not one.future.done()
    assert not one.bind(2)
    assert one.future.result() == reply(2, b"2")


async def test_an_early_reply_of_another_incarnation_is_dropped() -> None:
    one = await waiter()
    one.hear(reply(1))
    assert not one.bind(2)
    assert not one.future.done()


async def test_an_early_reply_of_a_later_incarnation_has_the_store_read() -> None:
    one = await waiter()
    one.hear(reply(3))
    assert one.bind(2)
    assert not one.future.done()
    both = await waiter()
    both.hear(reply(3))
    both.hear(reply(2))
    both.bind(2)
    assert both.future.result() == reply(2)


async def test_a_reply_without_its_result_asks_for_it() -> None:
    one = await waiter(2)
    assert not one.hear(reply(1, None))
    assert one.hear(reply(2, None))
    assert not one.future.done()
    early = await waiter()
    assert not early.hear(reply(2, None))
    assert early.bind(2)
    cancelled = await waiter(2)
    assert not cancelled.hear(reply(2, None, CANCELLED))
    assert cancelled.future.result() == reply(2, None, CANCELLED)


async def test_the_first_answer_stands() -> None:
    one = await waiter(1)
    one.hear(reply(1, b"first"))
    one.hear(reply(1, b"second"))
    one.read("q", None)
    one.expire()
    assert one.future.result().data == b"first"


async def test_an_error_too_large_to_push_is_asked_for_like_a_result() -> None:
    one = await waiter(2)
    assert one.hear(reply(2, None, FAILED))
    assert not one.future.done()
    one.read("q", record(2, FAILED, error=b"e"))
    assert one.future.result() == Reply("q", "a", 2, FAILED, b"e", 0)


@pytest.mark.parametrize("state", [DONE, FAILED])
@pytest.mark.parametrize("found", [None, 3])
async def test_of_an_outcome_that_expired_before_it_was_read_the_end_is_known(
    state: JobState, found: int | None
) -> None:
    one = await waiter(2)
    one.hear(reply(2, None, state))
    one.read("q", None if found is None else record(found, DONE, b"of another"))
    assert one.future.result() == reply(2, None, state)


async def test_news_of_a_later_job_has_the_store_read_and_is_no_outcome() -> None:
    one = await waiter(2)
    assert one.hear(reply(3, b"of another"))
    assert not one.future.done()
    one.read("q", record(3, DONE, b"of another"))
    with pytest.raises(JobNotFoundError, match="another job has its id"):
        one.future.result()


async def test_what_the_store_says() -> None:
    gone, live, ended, failed = [await waiter(5) for _ in range(4)]
    gone.read("q", None)
    with pytest.raises(JobNotFoundError, match="expired"):
        gone.future.result()
    live.read("q", record(5, JobState.PROCESSING))
    assert not live.future.done()
    ended.read("q", record(5, DONE, b"r"))
    assert ended.future.result() == Reply("q", "a", 5, DONE, b"r", 0)
    failed.read("q", record(5, FAILED, error=b"e"))
    assert failed.future.result() == Reply("q", "a", 5, FAILED, b"e", 0)


@pytest.mark.parametrize("seq", [4, 6])
@pytest.mark.parametrize("state", list(JobState))
async def test_another_incarnation_is_never_an_answer(seq: int, state: JobState) -> None:
    one = await waiter(5)
    one.read("q", record(seq, state, b"of another", b"of another"))
    with pytest.raises(JobNotFoundError):
        one.future.result()


async def test_who_knows_no_incarnation_yet_takes_the_one_that_is_there() -> None:
    ended, never = await waiter(), await waiter()
    ended.read("q", record(4, DONE, b"r"))
    assert ended.future.result() == Reply("q", "a", 4, DONE, b"r", 0)
    never.read("q", None)
    with pytest.raises(JobNotFoundError, match="never was"):
        never.future.result()


def make_waiters(storage: MemoryStorage) -> Waiters:
    return Waiters(storage, "q", "me", Timers(storage.clock), lambda fence: None, lambda error: None)


@pytest.mark.parametrize("leavers", list(itertools.permutations(range(4), 2)))
async def test_of_those_who_wait_for_one_job_any_may_leave(leavers: tuple[int, int]) -> None:
    waiters = make_waiters(MemoryStorage(clock=FakeClock()))
    standing = [waiters.add("a", 5) for _ in range(4)]
    other = waiters.add("b", 5)
    for one in standing:
        one.bind(1)
    for place in leavers:
        waiters.remove(standing[place])
    waiters.deliver([reply(1)])
    assert [one.future.done() for one in standing] == [place not in leavers for place in range(4)]
    assert not other.future.done()
    for place, one in enumerate(standing):
        if place not in leavers:
            waiters.remove(one)
    waiters.remove(other)
    assert len(waiters) == 0


@pytest.mark.parametrize("order", [1, -1], ids=["oldest first", "newest first"])
async def test_a_crowd_that_waits_for_one_job_leaves_in_linear_time(order: int) -> None:
    waiters = make_waiters(MemoryStorage(clock=FakeClock()))
    crowd = [waiters.add("a", 5) for _ in range(30_000)]
    began = time.monotonic()
    for one in crowd[::order]:
        waiters.remove(one)
    assert time.monotonic() - began < 5
    assert len(waiters) == 0


async def test_time_is_up_for_each_by_its_own_timeout() -> None:
    clock = FakeClock()
    waiters = make_waiters(MemoryStorage(clock=clock))
    short, long = waiters.add("a", 1), waiters.add("a", 3)
    await clock.advance(1.1)
    assert short.future.done()
    assert not long.future.done()
    await clock.advance(2)
    assert long.future.done()


async def test_a_poll_reads_nothing_that_nobody_waits_for_any_more() -> None:
    class Counting(MemoryStorage):
        read = 0

        async def get(self, *args: Any, **options: Any) -> Any:
            self.read += 1
            return await super().get(*args, **options)

    storage = Counting(clock=FakeClock())
    waiters = make_waiters(storage)
    gone = waiters.add("a", 5)
    gone.bind(1)
    waiters.resync()
    waiters.remove(gone)
    polling = asyncio.create_task(waiters.poll())
    for _ in range(5):
        await asyncio.sleep(0)
    polling.cancel()
    assert storage.read == 0


class SlowStorage(DeafStorage):
    """Takes its time to read jobs."""

    takes = 0.0

    async def get(self, queue: str, ids: Sequence[str], **options: Any) -> list[Record | None]:
        if self.takes:
            await self.clock.sleep(self.takes)
        return await super().get(queue, ids, **options)


@pytest.mark.parametrize("takes", [0.0, 0.35, 2.0])
async def test_reads_of_single_jobs_do_not_put_off_the_reading_of_all(clock: FakeClock, takes: float) -> None:
    """Each reply without an outcome, such as that of a large result, has its job read."""
    async with opened(SlowStorage(clock=clock)) as storage:
        lab = Lab(storage)
        queue = await lab.start(echo, name="q", block_timeout=0.5)
        await clock.settle()
        busy = asyncio.create_task(queue.enqueue_and_wait("busy", 1, delay=600, timeout=900))
        lost = asyncio.create_task(queue.enqueue_and_wait("lost", 2))
        await clock.settle()
        session = queue._session
        assert session is not None
        storage.takes = takes
        for _ in range(10 * round(REREAD_INTERVAL + 2 * takes)):
            session.waiters.fetch(session.waiters._waiting["busy"])
            await clock.advance(0.1)
        assert lost.done()
        assert await lost == 2
        storage.takes = 0.0
        busy.cancel()
        await asyncio.wait([busy])
        await lab.close()
