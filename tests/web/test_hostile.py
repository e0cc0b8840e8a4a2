"""Ids, payloads, errors and names that want to be more than text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobqueue import Fatal, Job, MemoryStorage, Queue
from jobqueue.storage.values import NewJob
from jobqueue.web import dashboard
from jobqueue.web.text import finalized
from jobqueue.web.values import preview
from tests.support import Lab
from tests.web.visitor import Html, Visitor

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "../../../etc/passwd",
    "%3Cscript%3E",
    "&lt;b&gt;",
    "\u202egnp.exe",
    "a\u2066b\u2069",
    "-->",
    "]]>",
    "</title></textarea></style>",
    "\u200e\u061c",
    "\U0001d54f" * 60,
    "?queue=other&id=b#c",
]
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def check_clean(text: str) -> Html:
    """Nothing foreign has become markup, or steers the text around it."""
    page = Html(text)
    assert len(page.all("script")) == 2
    assert not page.all("img")
    assert not CONTROL.search(text)
    for tag, attributes in page.elements:
        assert tag not in {"b>", "style"}
        assert not [name for name in attributes if name.startswith("on")]
        assert not (attributes.get("href") or "").lower().startswith("javascript")
    assert "49{%" not in page.text
    return page


@pytest.mark.parametrize("nasty", NASTY)
async def test_texts_of_jobs_stay_texts_on_every_page(
    visitor: Visitor, store: MemoryStorage, nasty: str
) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail", max_attempts=1, tracebacks=True, worker_id=nasty)

    async def fail(_job: Job[Any]) -> None:
        error = type(nasty, (Fatal,), {"__module__": nasty})
        raise error(nasty)

    queue.execute(fail)
    async with queue:
        await queue.enqueue(nasty, {nasty: [nasty]}, group=nasty)
        await Lab(store).finish(queue.drain())
        await queue.schedules.add(nasty[:50], {nasty: 1}, every=60.0, group=nasty)
        await store.insert("mail", [NewJob(f"{nasty}-", b"\xff", task=nasty, group=nasty)])
        for path, query in (
            ("/queue", {"queue": "mail"}),
            ("/queue", {"queue": "mail", "task": nasty, "group": nasty}),
            ("/job", {"queue": "mail", "id": nasty}),
            ("/job", {"queue": "mail", "id": f"{nasty}-"}),
            ("/dead", {}),
            ("/dead", {"group": nasty}),
            ("/schedules", {}),
            ("/schedules", {"queue": "mail", "of": nasty, "made": nasty, "did": "run"}),
            ("/workers", {}),
            ("/system", {}),
            ("/", {"q": nasty}),
        ):
            answer = await visitor.get(path, **query)
            assert answer.status_code == 200, answer.text
            check_clean(answer.text)
        absent = await visitor.get("/job", queue="mail", id=f"{nasty}?")
        assert absent.status_code == 404
        check_clean(absent.text)
        confirm = await visitor.post(
            "/confirm", queue="mail", verb="retry", id=nasty, task=nasty, group=nasty
        )
        check_clean(confirm.text)
        for path in ("/queue", "/schedules", "/dead"):
            check_clean((await visitor.get(path, queue=nasty)).text)
    # What a page shows of an id may be cut and escaped; its links and forms mean the very job.
    page = Html((await visitor.get("/queue", queue="mail", state="failed")).text)
    (value,) = [each["value"] for each in page.all("input", name="id", type="checkbox")]
    (link,) = [link for link in page.links() if link.startswith("/job?")]
    linked = await visitor.get(link)
    assert linked.status_code == 200
    if not CONTROL.search(nasty):
        assert value == nasty
        await visitor.post("/jobs", queue="mail", verb="remove", id=str(value))
        (record,) = await store.get("mail", [nasty], letters=True)
        assert record is None


async def test_a_megabyte_is_cut_with_a_word_about_it(visitor: Visitor, store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail", max_attempts=1, tracebacks=True)

    @queue.execute
    async def _(job: Job[Any]) -> Any:
        if job.id == "fails":
            raise Fatal("e" * 1_000_000)
        return "r" * 1_000_000

    async with queue:
        await queue.enqueue("fails", "p" * 1_000_000)
        await queue.enqueue("ends", 1)
        await Lab(store).finish(queue.drain())
    answer = await visitor.get("/job", queue="mail", id="fails")
    assert "of 1\u202f000\u202f002 characters" in answer.text
    assert len(answer.text) < 150_000
    assert not Html(answer.text).all("textarea")
    assert len((await visitor.get("/job", queue="mail", id="ends")).text) < 150_000
    assert len((await visitor.get("/queue", queue="mail")).text) < 30_000
    assert len((await visitor.get("/dead")).text) < 30_000


async def test_long_ids_and_names_are_cut_in_titles_and_lists(visitor: Visitor, store: MemoryStorage) -> None:
    id = "i" * 256
    await store.insert("mail", [NewJob(id, b"1", task="t" * 256, group="g" * 256)])
    page = await visitor.page("/job", queue="mail", id=id)
    (title,) = re.findall(r"i{20,}… · jobqueue", page.text)
    assert len(title) < 100
    assert "i" * 256 not in page.text
    listing = await visitor.page("/queue", queue="mail")
    assert "i" * 100 not in listing.text
    assert [each["value"] for each in listing.all("input", name="id", type="checkbox")] == [id]


async def test_what_the_hook_hides_is_nowhere(store: MemoryStorage) -> None:
    queue: Queue[Any, Any] = Queue(store, "mail", max_attempts=2, tracebacks=True)

    @queue.execute
    async def _(job: Job[Any]) -> Any:
        await job.progress("SECRET progress")
        if job.id == "fails":
            raise Fatal("SECRET error")
        return "SECRET result"

    async with queue:
        await queue.enqueue("fails", "SECRET payload")
        await queue.enqueue("ends", "SECRET payload")
        await Lab(store).finish(queue.drain())

    def redact(field: str, value: Any, job: Any) -> Any:
        if job.id == "ends":
            raise RuntimeError("SECRET bug")
        return f"hidden {field}"

    async with Visitor(dashboard(store, redact=redact)) as visitor:
        for path, query in (
            ("/job", {"id": "fails"}),
            ("/job", {"id": "ends"}),
            ("/queue", {}),
            ("/queue", {"state": "failed"}),
            ("/dead", {}),
        ):
            text = (await visitor.get(path, queue="mail", **query)).text
            assert "SECRET" not in text
            assert "hidden" in text or "redact hook raised" in text or query == {}


@pytest.mark.parametrize(
    ("value", "editable"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, True),
        (None, True),
        ("text", True),
        ((1, 2), False),
        ({1: 2}, False),
        (b"x", False),
        (float("nan"), False),
        ({"a": {"b": (1,)}}, False),
    ],
)
def test_only_what_json_gives_back_can_be_edited(value: object, editable: bool) -> None:
    assert preview(value).editable is editable


def test_values_that_cannot_be_shown_are_survived() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    assert "Bad that cannot be shown" in preview(Bad()).text
    assert "list that cannot be shown" in preview(deep).text
    assert preview(circle).text
    assert not preview(circle).editable


def test_no_text_of_a_template_is_longer_than_a_page_can_bear() -> None:
    assert len(finalized("x" * 10**6)) < 101_000
    assert finalized(None) == ""
    assert finalized("\u202ex") == "\\u202ex"


async def test_an_address_puts_no_words_into_the_mouth_of_a_page(visitor: Visitor) -> None:
    for query in ("did=run&made=call+555-1234&of=mail", "did=cancel&n=999999999999", "did=evil"):
        text = (await visitor.get(f"/schedules?{query}")).text
        assert "555" not in text
        assert "999999999999" not in text
        assert "evil" not in text.replace("did=evil", "")
