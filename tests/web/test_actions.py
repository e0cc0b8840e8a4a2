"""What forms do: with one job, with chosen ones, with all that match, with queues and schedules."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from jobqueue import Fatal, Job, MemoryStorage, Queue, Rate
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from jobqueue.web import bulk, dashboard
from tests.support import Lab, until, within
from tests.web.visitor import Html, Visitor


async def state(store: MemoryStorage, id: str, queue: str = "mail") -> str | None:
    (record,) = await store.get(queue, [id], letters=True)
    return None if record is None else record.state.value


async def fail_all(store: MemoryStorage, ids: list[str], **options: Any) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail")

    @queue.execute
    async def _(job: Job[Any]) -> None:
        raise Fatal("no")

    async with queue:
        for id in ids:
            await queue.enqueue(id, {"n": 1}, **options)
        await Lab(store).finish(queue.drain())


async def settled(visitor: Visitor, store: MemoryStorage) -> None:
    """Wait until no action is under way."""
    await until(lambda: not visitor.app._board.bulk.running())


# -- one job --------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_and_the_page_says_so(
    visitor: Visitor, store: MemoryStorage
) -> None:
    await store.insert("mail", [NewJob("a/1", b"1")])
    answer = await visitor.post("/jobs", queue="mail", id="a/1", verb="cancel", back="job")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/job?queue=mail&id=a%2F1&did=cancel&n=1"
    assert await state(store, "a/1") == "cancelled"
    page = Html((await visitor.get(answer.headers["location"])).text)
    assert "1 job was cancelled" in page.text
    assert page.all("div", id="live")[0]["hx-get"] == "/job?id=a%2F1&queue=mail"  # says it once
    again = await visitor.post("/jobs", queue="mail", id="a/1", verb="retry", back="job")
    assert "did=unchanged" in again.headers["location"]


async def test_a_running_job_is_asked_to_end(visitor: Visitor, store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail")
    began = asyncio.Event()

    @queue.execute
    async def _(job: Job[Any]) -> None:
        began.set()
        await asyncio.Event().wait()

    async with queue:
        await queue.enqueue("a", 1)
        await within(began.wait())
        await visitor.post("/jobs", queue="mail", id="a", verb="cancel", back="job")
        with pytest.raises(Exception, match="cancelled"):
            await Lab(store).finish(queue.wait("a"))
    assert await state(store, "a") == "cancelled"


async def test_a_failed_job_runs_again_with_an_edited_payload(visitor: Visitor, store: MemoryStorage) -> None:
    await fail_all(store, ["a"])
    page = await visitor.page("/job", queue="mail", id="a")
    assert page.all("textarea", name="payload")
    answer = await visitor.post(
        "/jobs", queue="mail", id="a", verb="retry", back="job", payload='{\r\n "n": 2, "é": "\u2028"}'
    )
    assert "did=retry&n=1" in answer.headers["location"]
    (record,) = await store.get("mail", ["a"], payload=True)
    assert record is not None
    assert (record.state, json.loads(record.payload or b"")) == ("queued", {"n": 2, "é": "\u2028"})


@pytest.mark.parametrize("payload", ["{", "NaN", "[" * 100_000, "x", "1 2", "{'a': 1}"])
async def test_a_payload_that_is_not_json_changes_nothing(
    visitor: Visitor, store: MemoryStorage, payload: str
) -> None:
    await fail_all(store, ["a"])
    answer = await visitor.post("/jobs", queue="mail", id="a", verb="retry", back="job", payload=payload)
    assert answer.status_code == 400
    assert "not JSON" in Html(answer.text).text
    assert await state(store, "a") == "failed"


async def test_a_payload_that_is_too_large_changes_nothing(visitor: Visitor, store: MemoryStorage) -> None:
    await fail_all(store, ["a"])
    payload = json.dumps("é" * 600_000, ensure_ascii=False)
    answer = await visitor.post("/jobs", queue="mail", id="a", verb="retry", back="job", payload=payload)
    assert answer.status_code == 409
    assert "limit is 1048576" in answer.text
    assert await state(store, "a") == "failed"


async def test_a_job_is_removed(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob("a", b"1")])
    answer = await visitor.post("/jobs", queue="mail", id="a", verb="remove", back="job")
    assert await state(store, "a") is None
    assert (
        "1 job was removed" not in (await visitor.get(answer.headers["location"])).text
    )  # there is no such page
    assert "has no job" in Html((await visitor.get(answer.headers["location"])).text).text


# -- several --------------------------------------------------------------------------------------


async def test_chosen_jobs_are_counted_and_asked_for_first(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob(f"m{n}", b"1") for n in range(5)])
    asked = Html(
        (await visitor.post("/confirm", queue="mail", verb="cancel", id=["m1", "m3"], back="queue")).text
    )
    assert "Cancel 2 jobs?" in asked.text
    assert [each["value"] for each in asked.all("input", name="id")] == ["m1", "m3"]
    assert (await store.counts("mail")).queued == 5
    answer = await visitor.post(
        "/jobs", queue="mail", verb="cancel", id=["m1", "m3"], back="queue", state="queued"
    )
    assert answer.headers["location"] == "/queue?queue=mail&state=queued&did=cancel&n=2"
    assert [await state(store, f"m{n}") for n in range(5)] == [
        "queued",
        "cancelled",
        "queued",
        "cancelled",
        "queued",
    ]
    assert "2 jobs were cancelled" in (await visitor.get(answer.headers["location"])).text


async def test_nothing_chosen_is_said(visitor: Visitor) -> None:
    assert "No job was chosen" in (await visitor.post("/confirm", queue="mail", verb="cancel")).text
    assert (await visitor.post("/jobs", queue="mail", verb="cancel")).status_code == 400
    ids = [str(n) for n in range(51)]
    assert (await visitor.post("/jobs", queue="mail", verb="cancel", id=ids)).status_code == 400
    assert (await visitor.post("/confirm", queue="mail", verb="cancel", id=ids)).status_code == 400
    assert (await visitor.post("/jobs", queue="mail", verb="explode", id="a")).status_code == 400
    assert (await visitor.post("/jobs", queue="mail", id="a")).status_code == 400


async def test_all_jobs_that_match_are_counted_and_then_done_in_the_background(
    visitor: Visitor, store: MemoryStorage
) -> None:
    await store.insert(
        "mail", [NewJob(f"m{n}", b"1", group="acme" if n % 3 else "other") for n in range(1_500)]
    )
    form = {"queue": "mail", "state": "queued", "group": "acme", "back": "queue"}
    asked = Html((await visitor.post("/confirm", all="cancel", **form)).text)
    assert "Cancel 1000 jobs?" in asked.text
    assert "of group acme" in asked.text
    answer = await visitor.post("/jobs", all="1", verb="cancel", **form)
    assert answer.headers["location"] == "/queue?queue=mail&state=queued&group=acme&did=started"
    await settled(visitor, store)
    counts = await store.counts("mail")
    assert (counts.queued, counts.cancelled) == (500, 1_000)
    page = Html((await visitor.get(answer.headers["location"])).text)
    assert "all queued jobs of group acme of mail" in " ".join(page.text.split())
    assert "1000 done, finished" in " ".join(page.text.split())


async def test_all_dead_letters_of_a_queue_run_again(visitor: Visitor, store: MemoryStorage) -> None:
    await fail_all(store, [f"m{n}" for n in range(30)])
    form = {"queue": "mail", "state": "failed", "back": "dead"}
    assert "Retry 30 jobs?" in (await visitor.post("/confirm", all="retry", **form)).text
    answer = await visitor.post("/jobs", all="1", verb="retry", **form)
    assert answer.headers["location"] == "/dead?queue=mail&did=started"
    await settled(visitor, store)
    assert (await store.counts("mail")).queued == 30


@pytest.mark.parametrize("given", ["", "completed", "cancelled"])
async def test_all_that_match_needs_a_state_in_which_it_has_an_effect(
    visitor: Visitor, store: MemoryStorage, given: str
) -> None:
    await store.insert("mail", [NewJob("a", b"1")])
    for path in ("/confirm", "/jobs"):
        answer = await visitor.post(path, queue="mail", verb="cancel", all="1", state=given)
        assert answer.status_code == 400
        assert "choose a state first" in answer.text
    assert await state(store, "a") == "queued"


async def test_only_a_few_actions_go_on_at_once_and_one_that_fails_says_why(
    visitor: Visitor, store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobqueue import StorageUnavailableError

    await store.insert("mail", [NewJob("a", b"1")])
    go = asyncio.Event()

    async def away(*_args: object, **_options: object) -> Any:
        await go.wait()
        raise StorageUnavailableError("the server went away")

    monkeypatch.setattr(store, "scan", away)
    form = {"queue": "mail", "verb": "cancel", "all": "1", "state": "queued"}
    said = [(await visitor.post("/jobs", **form)).headers["location"] for _ in range(bulk.MOST + 1)]
    assert [each.rpartition("did=")[2] for each in said] == ["started"] * bulk.MOST + ["full"]
    go.set()
    await settled(visitor, store)
    monkeypatch.undo()
    page = await visitor.page("/queue", queue="mail", did="full")
    assert "then it failed: the server went away" in page.text
    assert "Too many actions" in page.text
    clock = store.clock
    assert isinstance(clock, FakeClock)
    await clock.advance(200.0)
    assert "went away" not in (await visitor.page("/queue", queue="mail")).text


# -- queues and schedules -------------------------------------------------------------------------


async def test_a_queue_is_paused_and_resumed(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob("a", b"1")])
    await visitor.post("/queue", queue="mail", verb="pause")
    page = await visitor.page("/queue", queue="mail")
    assert "paused" in page.text
    assert page.all("button", name="verb", value="resume")
    assert "paused" in (await visitor.page("/")).text
    await visitor.post("/queue", queue="mail", verb="resume")
    assert not (await store.get_rules("mail")).rules.paused
    assert (await visitor.post("/queue", queue="mail", verb="x")).status_code == 400


async def test_schedules_are_paused_resumed_and_run(visitor: Visitor, store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail")
    async with queue.producer():
        await queue.schedules.add("nightly <b>", {"n": 1}, cron="0 2 * * *")
        form = {"queue": "mail", "name": "nightly <b>"}
        await visitor.post("/schedules", verb="pause", **form)
        assert (await queue.schedules.list())[0].paused
        await visitor.post("/schedules", verb="resume", **form)
        assert not (await queue.schedules.list())[0].paused
        answer = await visitor.post("/schedules", verb="run", **form)
        page = Html((await visitor.get(answer.headers["location"])).text)
        (link,) = [link for link in page.links() if "now-" in link]
        assert Html((await visitor.get(link)).text).all("button", value="cancel")
        assert (await store.counts("mail")).queued == 1
        assert (await visitor.post("/schedules", verb="run", queue="mail", name="nobody")).status_code == 404
        assert (await visitor.post("/schedules", verb="pause", queue="mail", name="")).status_code == 400


async def test_who_did_what_is_in_the_log(
    visitor: Visitor, store: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    await store.insert("mail", [NewJob("a", b"1")])
    with caplog.at_level(logging.INFO, "jobqueue.web"):
        await visitor.post("/jobs", queue="mail", id="a", verb="cancel")
        await visitor.post("/queue", queue="mail", verb="pause")
    assert [record.getMessage() for record in caplog.records] == [
        "dashboard: cancel 1 jobs of queue mail (1 done): a, from 127.0.0.1",
        "dashboard: pause queue mail, from 127.0.0.1",
    ]


async def test_a_redacted_payload_is_not_offered_for_editing(store: MemoryStorage) -> None:
    await fail_all(store, ["a"])

    def redact(field: str, value: Any, job: Any) -> Any:
        assert job.id == "a"
        return {"hidden": True} if field == "payload" else value

    async with Visitor(dashboard(store, redact=redact)) as visitor:
        page = await visitor.page("/job", queue="mail", id="a")
        assert '"hidden": true' in page.text
        assert not page.all("textarea")
        await visitor.post("/jobs", queue="mail", id="a", verb="retry")
    (record,) = await store.get("mail", ["a"], payload=True)
    assert record is not None
    assert (record.state, record.payload) == ("queued", b'{"n":1}')


async def test_limits_are_shown_set_and_given_back(visitor: Visitor, store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob("a", b"1", group="acme")])
    assert (
        "workers start as many jobs as they have room for"
        in (await visitor.page("/queue", queue="mail")).text
    )
    answer = await visitor.post(
        "/limits", queue="mail", verb="set", running="3", count="100", per="60", burst="5", group_running="1"
    )
    assert answer.headers["location"] == "/queue?queue=mail&did=limits"
    rules = (await store.get_rules("mail")).rules
    assert (rules.queue.running, rules.group.running, rules.operator) == (3, 1, True)
    assert rules.queue.rate == Rate(100, per=60.0, burst=5)
    await store.exchange("mail", "w", [], 1, 60_000)
    page = await visitor.page("/queue", queue="mail", group="acme")
    text = " ".join(page.text.split())
    assert "1 of 3" in text
    assert "100 in 60 s, 5 at once" in text
    assert "1 of 1" in text
    assert "set by an operator" in text
    await visitor.post("/limits", queue="mail", verb="reset")
    assert not (await store.get_rules("mail")).rules.operator
    await visitor.post("/limits", queue="mail", verb="none")
    assert (await store.get_rules("mail")).rules.queue.running is None


@pytest.mark.parametrize(
    "form",
    [
        {"running": "0"},
        {"running": "x"},
        {"running": "-1"},
        {"running": "9" * 30},
        {"count": "5", "per": "0"},
        {"count": "5", "per": "nan"},
        {"count": "5", "per": "x"},
        {"count": "5", "burst": "1.5"},
        {"verb": "x"},
        {"group_count": "1", "group_per": "31622400", "group_burst": "1000000"},
    ],
)
async def test_wrong_limits_change_nothing(
    visitor: Visitor, store: MemoryStorage, form: dict[str, str]
) -> None:
    before = await store.get_rules("mail")
    answer = await visitor.post("/limits", **{"queue": "mail", "verb": "set", **form})
    assert answer.status_code == 400
    assert await store.get_rules("mail") == before
