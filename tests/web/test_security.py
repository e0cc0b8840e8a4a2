"""What is refused, and what every answer says to browsers."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from jobqueue import InvalidArgumentError, MemoryStorage
from jobqueue.storage.values import NewJob
from jobqueue.web import Action, dashboard
from jobqueue.web.security import MAX_FORM
from tests.web.visitor import FORM, Html, Visitor

PAGES = ["/", "/queue?queue=mail", "/job?queue=mail&id=a", "/dead", "/schedules", "/workers", "/system"]
PAUSE = {"queue": "mail", "verb": "pause"}


@pytest.fixture
async def _job(store: MemoryStorage) -> None:
    await store.insert("mail", [NewJob("a", b"1")])


async def is_paused(store: MemoryStorage) -> bool:
    return (await store.get_rules("mail")).rules.paused


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io", "[::2]", "x" * 5000]
)
async def test_a_foreign_host_is_refused_where_nothing_asks_who_calls(visitor: Visitor, host: str) -> None:
    for path in ("/", "/events?page=overview", "/static/x/app.css"):
        answer = await visitor.client.get(path, headers={"Host": host})
        assert answer.status_code == 400
        assert "hosts=" in answer.text
        assert len(answer.text) < 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"])
async def test_names_of_this_machine_are_served(visitor: Visitor, host: str) -> None:
    assert (await visitor.client.get("/", headers={"Host": host})).status_code == 200


async def test_hosts_are_those_that_are_named_and_any_where_callers_are_checked(store: MemoryStorage) -> None:
    async def status(host: str, **options: Any) -> int:
        async with Visitor(dashboard(store, **options)) as visitor:
            return (await visitor.client.get("/", headers={"Host": host})).status_code

    assert await status("jobs.example", hosts=["Jobs.Example"]) == 200
    assert await status("localhost", hosts=["jobs.example"]) == 400
    assert await status("any.example", hosts=["*"]) == 200
    assert await status("any.example", authorize=lambda _request, _action: True) == 200
    assert await status("any.example", authorize=lambda _request, _action: True, hosts=["a"]) == 400


# -- forms ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_job")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:81"},
        {"Origin": "null"},
        {"Origin": "file://localhost"},
        {"Origin": "http://[localhost"},
        {"Origin": "http://evil@localhost:x"},
        {"Referer": "http://localhost/"},
    ],
)
async def test_a_form_from_elsewhere_is_refused(
    visitor: Visitor, store: MemoryStorage, headers: dict[str, str]
) -> None:
    for path in ("/queue", "/jobs", "/confirm", "/schedules"):
        assert (await visitor.post(path, headers, **PAUSE)).status_code == 403
    assert not await is_paused(store)


@pytest.mark.usefixtures("_job")
@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("localhost", {"Sec-Fetch-Site": "same-origin"}),
        ("localhost", {"Origin": "http://localhost"}),
        ("localhost:8080", {"Origin": "http://localhost:8080"}),
        ("localhost", {"Origin": "https://LOCALHOST"}),
        ("[::1]:80", {"Origin": "http://[::1]"}),
    ],
)
async def test_a_form_of_this_page_is_taken(
    visitor: Visitor, store: MemoryStorage, host: str, headers: dict[str, str]
) -> None:
    answer = await visitor.post("/queue", {"Host": host, **headers}, **PAUSE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue?queue=mail&did=paused")
    assert await is_paused(store)


@pytest.mark.usefixtures("_job")
async def test_nothing_changes_by_looking(visitor: Visitor, store: MemoryStorage) -> None:
    same = {"Sec-Fetch-Site": "same-origin"}
    for path in ("/jobs", "/confirm"):
        assert (await visitor.get(path, **PAUSE)).status_code == 405
    assert (await visitor.get("/queue", **PAUSE)).status_code == 200
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"):
        assert (await visitor.client.request(method, "/queue?queue=mail", headers=same)).status_code == 405
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x", ""):
        answer = await visitor.client.post(
            "/queue", content="queue=mail&verb=pause", headers={**same, "Content-Type": kind}
        )
        assert answer.status_code == 415
    assert not await is_paused(store)


# -- sizes and forged values ----------------------------------------------------------------------


async def test_long_requests_are_refused(visitor: Visitor) -> None:
    assert (await visitor.get("/", q="x" * 5_000)).status_code == 414
    assert (await visitor.get("/" + "x" * 1_000)).status_code == 414
    assert (await visitor.client.get("/?" + "&".join(f"a{n}=" for n in range(500)))).status_code == 400
    same = {**FORM, "Sec-Fetch-Site": "same-origin"}
    for length in (str(MAX_FORM + 1), "9" * 50, "-1", "²", "x"):
        answer = await visitor.client.post(
            "/queue",
            content=b"a",
            headers={**same, "Content-Length": length.encode()},  # type: ignore[dict-item]
        )
        assert answer.status_code == 413

    async def endless() -> Any:
        for _ in range(1_000):
            yield b"a" * 65_536

    assert (await visitor.client.post("/queue", content=endless(), headers=same)).status_code == 413


@pytest.mark.usefixtures("_job")
@pytest.mark.parametrize(
    "path",
    [
        "/queue?queue=mail&cursor=forged",
        "/queue?queue=mail&state=queued&cursor=queued:forged",
        "/queue?queue=mail&cursor=" + "9" * 3_000,
        "/queue?queue=mail&cursor=%00",
        "/queue?queue=mail&state=x",
        "/queue?queue=mail&did=x",
        "/queue?queue=mail&n=-1",
        "/queue?queue=mail&n=%C2%B2",
        "/queue",
        "/queue?queue=",
        "/queue?queue=../x",
        "/queue?queue=a%20b",
        "/queue?queue=" + "q" * 65,
        "/queue?queue=mail&task=" + "x" * 257,
        "/queue?queue=mail&task=%00",
        "/queue?queue=mail&group=%FF",
        "/job?queue=mail&id=",
        "/job?queue=mail&id=%0A",
        "/job?queue=mail&id=" + "x" * 257,
        "/?p=1e9",
        "/schedules?queue=..%2F",
        "/schedules?after=forged%00",
        "/events?page=nothing",
        "/events",
        "/dead?queue=mail&cursor=failed:forged",
    ],
)
async def test_forged_arguments_are_refused_with_a_page_that_says_so(visitor: Visitor, path: str) -> None:
    answer = await visitor.get(path)
    assert answer.status_code == 400, answer.text
    assert "This address is not right" in Html(answer.text).text


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/static/x/../../options.py",
        "/static/x/%2e%2e%2foptions.py",
        "/static/x/..%5coptions.py",
        "/static/x/options.py",
        "/static/../app.css",
        "/static/",
        "//evil.example/",
        "/templates/base.html",
        "/static/x/app.css%00.html",
        "/job/a",
        "/queue/",
    ],
)
async def test_there_is_nothing_beside_the_pages(visitor: Visitor, path: str) -> None:
    answer = await visitor.app_get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


# -- credentials and hook -------------------------------------------------------------------------


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


async def test_credentials_are_asked_for_everything(store: MemoryStorage) -> None:
    async with Visitor(dashboard(store, credentials="ops:se:cret")) as visitor:
        for path in [*PAGES, "/events?page=overview", "/static/x/app.css", "/nothing"]:
            for given in (
                None,
                basic("ops:wrong"),
                basic("ops"),
                basic(""),
                "Basic ###",
                "Basic é",
                "Bearer x",
                "basic",
            ):
                headers = {} if given is None else {"Authorization": given.encode()}
                answer = await visitor.client.get(path, headers=headers)  # type: ignore[arg-type]
                assert answer.status_code == 401
                assert "Basic" in answer.headers["www-authenticate"]
        assert (
            await visitor.client.get("/", headers={"Authorization": basic("ops:se:cret")})
        ).status_code == 200
        assert "se:cret" not in repr(visitor.app)


@pytest.mark.usefixtures("_job")
async def test_the_hook_decides_who_sees_and_who_does(store: MemoryStorage) -> None:
    asked: list[Action] = []

    async def authorize(request: Any, action: Action) -> bool:
        asked.append(action)
        role = request.headers.get("x-role", "")
        return role == "admin" or (role == "viewer" and action is Action.VIEW)

    async with Visitor(dashboard(store, authorize=authorize)) as visitor:
        for path in [*PAGES, "/events?page=overview"]:
            answer = await visitor.get(path)
            assert answer.status_code == 403
            assert ">mail<" not in answer.text
            assert "MemoryStorage" not in answer.text
        assert not await is_paused(store)

        async def form() -> Any:
            yield b"queue=mail&verb=pause"

        headers = {**FORM, "Sec-Fetch-Site": "same-origin"}
        assert (await visitor.client.post("/queue", content=form(), headers=headers)).status_code == 403
        viewer, admin = {"X-Role": "viewer"}, {"X-Role": "admin"}
        seen = Html((await visitor.client.get("/queue?queue=mail", headers=viewer)).text)
        assert not seen.all("button", name="verb")
        assert not seen.all("input", type="checkbox")
        page = Html((await visitor.client.get("/queue?queue=mail", headers=admin)).text)
        assert page.all("button", name="verb", value="pause")
        same = {"Sec-Fetch-Site": "same-origin"}
        assert (await visitor.post("/queue", {**same, **viewer}, **PAUSE)).status_code == 403
        assert not await is_paused(store)
        assert (await visitor.post("/queue", {**same, **admin}, **PAUSE)).status_code == 303
        assert await is_paused(store)
        assert set(asked) == set(Action)


@pytest.mark.parametrize("answer", [None, 1, "yes", ValueError("x")])
async def test_a_hook_that_does_not_say_yes_says_no(store: MemoryStorage, answer: object) -> None:
    def authorize(_request: Any, _action: Action) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with Visitor(dashboard(store, authorize=authorize)) as visitor:
        assert (await visitor.get("/")).status_code == 403


@pytest.mark.usefixtures("_job")
async def test_a_read_only_dashboard_changes_nothing_and_offers_nothing(store: MemoryStorage) -> None:
    async with Visitor(dashboard(store, read_only=True, authorize=lambda _request, _action: True)) as visitor:
        for path in PAGES:
            page = Html((await visitor.get(path)).text)
            assert not page.all("form", method="post")
            assert "read-only" in page.text
        for path, form in (
            ("/queue", PAUSE),
            ("/jobs", {"queue": "mail", "verb": "cancel", "id": "a"}),
            ("/confirm", {"queue": "mail", "verb": "cancel", "id": "a"}),
            ("/schedules", {"queue": "mail", "verb": "run", "name": "a"}),
        ):
            answer = await visitor.post(path, **form)
            assert answer.status_code == 403
            assert "read-only" in answer.text
    assert not await is_paused(store)
    assert (await store.counts("mail")).queued == 1


@pytest.mark.parametrize(
    "options",
    [
        {"credentials": "nopassword"},
        {"credentials": ":"},
        {"credentials": "a:"},
        {"credentials": b"a:b"},
        {"credentials": "a:\n"},
        {"hosts": "localhost"},
        {"hosts": ["http://x"]},
        {"hosts": [1]},
        {"hosts": 5},
        {"authorize": 5},
        {"redact": "x"},
        {"read_only": 1},
        {"title": ""},
        {"title": "x" * 100},
        {"refresh": 0},
        {"max_streams": -1},
        {"max_streams": True},
        {"payload_serde": object()},
        {"result_serde": dict},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        dashboard(MemoryStorage(), **options)
    assert next(iter(options)) in str(caught.value)


# -- headers and markup ---------------------------------------------------------------------------


@pytest.mark.usefixtures("_job")
async def test_every_answer_has_the_headers(visitor: Visitor) -> None:
    for path in [*PAGES, "/nothing", "/queue?queue=mail&cursor=x", "/static/x/app.css"]:
        headers = (await visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        if not path.startswith("/static"):
            assert headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("_job")
async def test_pages_keep_to_the_policy_and_ask_nobody_else(visitor: Visitor) -> None:
    for path in PAGES:
        page = Html((await visitor.get(path)).text)
        for tag, attributes in page.elements:
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith(("on", "hx-on"))]
            assert tag not in {"style", "iframe", "object", "embed", "base"}
            for name in ("src", "href", "action", "formaction", "hx-get"):
                assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
                assert not (attributes.get(name) or "").startswith("//")
        assert all("src" in script for script in page.all("script"))


async def test_files_of_the_pages_are_kept_by_their_content(visitor: Visitor) -> None:
    page = await visitor.page("/")
    sources = [each["src"] or "" for each in page.all("script")] + [
        each["href"] or "" for each in page.all("link")
    ]
    assert len(sources) == 4
    for source in sources:
        answer = await visitor.get(source)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    other = await visitor.get(re.sub(r"static/\w+/", "static/old/", sources[0]))
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")


def test_the_licence_of_the_script_of_others_is_beside_it() -> None:
    import jobqueue.web

    static = Path(jobqueue.web.__file__).parent / "static"
    assert "Zero-Clause BSD" in (static / "htmx.LICENSE").read_text()
    assert 'version:"2.' in (static / "htmx.min.js").read_text()
