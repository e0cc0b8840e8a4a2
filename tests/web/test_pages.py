"""What each page shows."""

from __future__ import annotations

from typing import Any

import pytest

from jobqueue import (
    Backoff,
    Fatal,
    GuardStats,
    Job,
    LeaderElection,
    MemoryStorage,
    MsgpackSerde,
    Queue,
    Reaper,
    StorageUnavailableError,
)
from jobqueue.model.checks import instant
from jobqueue.storage.values import Change, NewJob
from jobqueue.testing import FakeClock
from jobqueue.web import dashboard
from tests.support import Lab, die, until
from tests.web.visitor import Html, Visitor


async def failed(store: MemoryStorage, *ids: str, name: str = "mail", error: str = "boom") -> None:
    """Leave dead letters."""
    queue: Queue[Any, Any] = Queue(store, name, max_attempts=1)

    @queue.execute
    async def _(job: Job[Any]) -> None:
        raise Fatal(error)

    async with queue:
        await queue.enqueue_many([(id, {"n": id}) for id in ids])
        await Lab(store).finish(queue.drain())


async def test_an_empty_store_says_so(visitor: Visitor) -> None:
    assert "This store holds no job yet" in (await visitor.page("/")).text
    assert "No job has failed for good" in (await visitor.page("/dead")).text
    assert "No schedules" in (await visitor.page("/schedules")).text
    assert "No worker was seen" in (await visitor.page("/workers")).text
    assert "MemoryStorage()" in (await visitor.page("/system")).text


async def test_the_first_page_counts_the_jobs_of_each_queue(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob(f"m{n}", b"1") for n in range(1234)])
    await store.insert("later", [NewJob("x", b"1", delay=60_000)])
    await failed(store, "a", "b", name="broken")
    page = await visitor.page("/")
    assert [link for link in page.links() if "queue=" in link] == [
        "/queue?queue=broken",
        "/queue?queue=later",
        "/queue?queue=mail",
    ]
    assert page.all("span", title="1234")
    assert page.all("svg", **{"aria-label": "1234 queued"})
    assert page.all("svg", **{"aria-label": "2 failed"})
    assert [link for link in page.links() if link == "/dead"]


async def test_many_queues_come_in_pages_and_are_found_by_a_part_of_their_names(
    visitor: Visitor, store: MemoryStorage
) -> None:
    for n in range(60):
        await store.insert(f"queue-{n:02}", [NewJob("x", b"1")])
    first, last = await visitor.page("/"), await visitor.page("/", p=3)
    shown = [link for link in first.links() if link.startswith("/queue?")]
    assert (len(shown), shown[0]) == (25, "/queue?queue=queue-00")
    assert [link for link in last.links() if link.startswith("/queue?")][-1] == "/queue?queue=queue-59"
    assert "/?p=2" in first.links()
    assert "Page 3 of 3, 60 queues" in last.text
    assert [link for link in (await visitor.page("/", q="E-07")).links() if "queue=" in link] == [
        "/queue?queue=queue-07"
    ]
    assert "No queue has" in (await visitor.page("/", q="nobody")).text
    assert (await visitor.get("/", p="999")).status_code == 200


async def test_a_queue_lists_its_jobs_by_state_task_and_group(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert(
        "mail",
        [
            NewJob("plain", b"1"),
            NewJob("due", b"1", delay=90_000),
            NewJob("welcome", b"1", task="send", group="acme"),
            NewJob("bye", b"1", task="send", group="globex", priority=7),
        ],
    )

    async def listed(**query: str) -> set[str]:
        page = await visitor.page("/queue", queue="mail", **query)
        return {
            each["value"] or "" for each in page.all("input", name="id") if each.get("type") == "checkbox"
        }

    assert await listed() == {"plain", "due", "welcome", "bye"}
    assert await listed(state="queued") == {"plain", "welcome", "bye"}
    assert await listed(state="scheduled") == {"due"}
    assert await listed(task="send") == {"welcome", "bye"}
    assert await listed(task="send", group="acme") == {"welcome"}
    assert await listed(state="failed") == set()
    text = (await visitor.page("/queue", queue="mail", group="globex")).text
    assert "+7" in text
    assert "No job matches" in (await visitor.page("/queue", queue="mail", task="nobody")).text
    assert "in 89 s" in (await visitor.page("/queue", queue="mail", state="scheduled")).text


async def test_the_jobs_of_a_queue_come_in_pages_and_each_comes_once(
    visitor: Visitor, store: MemoryStorage
) -> None:
    await store.insert("mail", [NewJob(f"m{n}", b"1") for n in range(120)])
    seen: list[str | None] = []
    path = "/queue?queue=mail&state=queued"
    while True:
        page = Html((await visitor.get(path)).text)
        seen += [each["value"] for each in page.all("input", name="id", type="checkbox")]
        following = page.all("a", rel="next")
        if not following:
            break
        path = following[0]["href"] or ""
    assert (len(seen), len(set(seen))) == (120, 120)
    assert [link for link in page.links() if link == "/queue?queue=mail&state=queued"]


async def test_a_job_shows_its_payload_why_it_waits_and_when_it_was_enqueued(
    visitor: Visitor, store: MemoryStorage
) -> None:
    await store.insert(
        "mail", [NewJob("in front", b"1", group="acme"), NewJob("a/b?c=d&e", b'{"to": "a@b"}', group="acme")]
    )
    page = await visitor.page("/job", queue="mail", id="a/b?c=d&e")
    assert '"to": "a@b"' in page.text
    assert "no worker of queue 'mail' has been seen" in page.text
    assert "1 job is in front of it" in page.text
    assert "acme" in page.text
    assert page.all("time")[0]["datetime"] == instant(int(store.clock.time() * 1000)).isoformat(
        timespec="milliseconds"
    )


async def test_a_failed_job_shows_its_attempts_as_a_time_line(visitor: Visitor, store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail", max_attempts=3, backoff=Backoff.fixed(0.0), tracebacks=True)

    @queue.execute
    async def _(job: Job[Any]) -> None:
        raise ValueError(f"number {job.attempts}")

    async with queue:
        await queue.enqueue("a", 1)
        await Lab(store).finish(queue.drain())
    page = await visitor.page("/job", queue="mail", id="a")
    parts = [
        page.text.index(part) for part in ("Enqueued", "Attempt 1 failed", "number 1", "Attempt 3 failed")
    ]
    assert parts == sorted(parts)
    assert "number 3" in page.text
    assert "Traceback (most recent call last)" in page.text
    assert "3 of 3" in page.text
    assert {each["value"] for each in page.all("button", name="verb")} == {"retry", "remove"}


async def test_a_completed_job_shows_its_result_and_can_only_be_removed(
    visitor: Visitor, store: MemoryStorage
) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail")

    @queue.execute
    async def _(job: Job[Any]) -> Any:
        return {"sent": None}

    async with queue:
        await queue.enqueue_and_wait("a", 1)
    page = await visitor.page("/job", queue="mail", id="a")
    assert '"sent": null' in page.text
    assert "keeps no payload" in page.text
    assert {each["value"] for each in page.all("button", name="verb")} == {"remove"}


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        (0.25, "0.2500"),
        (40, "0.4000"),
        ({"done": 3, "total": 4, "file": "x"}, "0.7500"),
        ("half", None),
        (True, None),
        ({"done": 3}, None),
        (700, None),
    ],
)
async def test_progress_that_is_a_share_is_drawn(
    visitor: Visitor, store: MemoryStorage, reported: object, shown: str | None
) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail")
    began: list[bool] = []

    @queue.execute
    async def _(job: Job[Any]) -> None:
        await job.progress(reported)
        began.append(True)
        await store.clock.sleep(5.0)

    async with queue:
        await queue.enqueue("a", 1)
        await until(lambda: bool(began))
        page = await visitor.page("/job", queue="mail", id="a")
        bars = [each["value"] for each in page.all("progress")]
        assert bars == ([] if shown is None else [shown])
        assert "Progress" in page.text
        assert "Attempt 1 runs" in page.text
        await queue.stop(timeout=0)


async def test_a_job_that_is_not_there(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob("a", b"1")])
    answer = await visitor.get("/job", queue="mail", id="nobody")
    assert answer.status_code == 404
    assert "has no job" in Html(answer.text).text
    assert 'hx-get="/job?id=nobody&amp;queue=mail"' in answer.text  # it may come


async def test_dead_letters_of_the_first_queue_that_has_some_are_shown(
    visitor: Visitor, store: MemoryStorage
) -> None:
    await store.insert("fine", [NewJob("a", b"1")])
    await failed(store, "one", "two", name="mail", error="card declined")
    await failed(store, "three", name="zebra")
    page = await visitor.page("/dead")
    assert {each["value"] for each in page.all("input", name="id", type="checkbox")} == {"one", "two"}
    assert "3 jobs have failed for good" in page.text
    assert "card declined" in page.text
    assert [link for link in page.links() if link == "/dead?queue=zebra"]
    assert "three" in (await visitor.page("/dead", queue="zebra")).text


async def test_schedules_show_their_next_ticks_and_one_that_is_broken_hides_no_other(
    visitor: Visitor, store: MemoryStorage
) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail")
    async with queue.producer():
        await queue.schedules.add(
            "nightly", {"n": 1}, cron="0 2 * * *", timezone="Europe/Berlin", catch_up="skip"
        )
        await queue.schedules.add("often", {"n": 1}, every=90.0, jitter=3.0, paused=True)
    await store.write_documents("schedules:mail", [Change("broken", 0, b"\x00")])
    page = await visitor.page("/schedules")
    assert "0 2 * * *" in page.text
    assert "Europe/Berlin" in page.text
    assert "then" in page.text
    assert "left out" in page.text
    assert "every 90 s" in page.text
    assert "This release cannot read it" in page.text
    assert len(page.all("button", value="run")) == 2
    assert len(page.all("button", value="resume")) == 1


async def test_workers_show_where_they_run_and_what(visitor: Visitor, store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail", worker_id="worker-1")
    began: list[bool] = []

    @queue.execute
    async def _(job: Job[Any]) -> None:
        began.append(True)
        await store.clock.sleep(60.0)

    async with queue:
        await queue.enqueue("long one", 1)
        await until(lambda: bool(began))
        await die(store, "orphan", queue="other")
        page = await visitor.page("/workers")
        assert "worker-1" in page.text
        assert [link for link in page.links() if link == "/job?queue=mail&id=long%20one"]
        assert "orphan" in page.text
        await queue.stop(timeout=0)


async def test_the_system_page_shows_reapers_and_their_leader(visitor: Visitor, store: MemoryStorage) -> None:
    async with Reaper(store, leader_election=LeaderElection()) as reaper:
        await until(lambda: reaper.is_leader)
        page = await visitor.page("/system")
        assert "leader" in page.text
        assert "not guarded" in page.text


async def test_a_queue_is_read_with_its_own_serde(store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail", payload_serde=MsgpackSerde())
    async with queue.producer():
        await queue.enqueue("a", {"data": b"\x00\xff"})
        await queue.enqueue("b", {"n": 5})
    async with Visitor(dashboard(queue)) as visitor:
        assert "b'\\\\x00\\\\xff'" in (await visitor.page("/job", queue="mail", id="a")).text
        assert '"n": 5' in (await visitor.page("/job", queue="mail", id="b")).text
    async with Visitor(dashboard(store)) as visitor:
        text = (await visitor.page("/job", queue="mail", id="b")).text
        assert "4 bytes that the serde of this queue cannot read" in text


async def test_charts_are_drawn_from_what_was_seen_while_somebody_looked(
    visitor: Visitor, store: MemoryStorage
) -> None:
    clock = store.clock
    assert isinstance(clock, FakeClock)
    await store.insert("mail", [NewJob(f"m{n}", b"1") for n in range(3)])
    assert not (await visitor.page("/queue", queue="mail")).all("path")
    for _ in range(8):
        await clock.advance(2.5)
    page = await visitor.page("/queue", queue="mail")
    assert page.all("svg", **{"aria-label": "waiting jobs, at most 3"})
    assert page.all("path")
    assert (await visitor.page("/")).all("svg", **{"class": "spark"})


class FakeGuard:
    """What the page asks of a guard."""

    breaker = "half_open"
    buffered = 3
    away = False

    async def stats(self) -> GuardStats:
        if self.away:
            raise StorageUnavailableError("the ledger is away")
        return GuardStats(5, 1, 20, 2, 0, 4, 32, 3, "closed")


async def test_the_guard_of_a_store_is_shown_and_one_whose_ledger_is_away_too(
    visitor: Visitor, store: MemoryStorage
) -> None:
    store.guard = FakeGuard()  # type: ignore[attr-defined]
    text = " ".join((await visitor.page("/system")).text.split())
    assert "Pending 5" in text.replace("Pending5", "Pending 5")
    assert "closed" in text
    store.guard.away = True  # type: ignore[attr-defined]
    page = await visitor.page("/system")
    assert "the ledger is away" in page.text
    assert "half open" in page.text
