"""Somebody who looks at a dashboard, without a browser."""

from __future__ import annotations

import asyncio
import json
from html.parser import HTMLParser
from typing import Any, Self
from urllib.parse import urlencode

import httpx2

from jobqueue.web import Dashboard
from tests.support import within

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Html(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skipped = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]

    def links(self) -> list[str]:
        return [found["href"] or "" for found in self.all("a") if "href" in found]


class Visitor:
    """Asks a dashboard for pages, and sends its forms as a browser does."""

    def __init__(self, app: Any, base: str = "http://localhost", **headers: str) -> None:
        self.app = app
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url=base, headers=headers
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.client.aclose()
        if isinstance(self.app, Dashboard):
            await within(self.app.close())

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await within(self.client.get(f"{path}?{urlencode(query)}" if query else path))

    async def app_get(self, path: str) -> httpx2.Response:
        """Ask for a path as it stands, which the client would tidy."""
        url = httpx2.URL(str(self.client.base_url)).copy_with(raw_path=path.encode())
        return await within(self.client.send(httpx2.Request("GET", url)))

    async def page(self, path: str, **query: Any) -> Html:
        answer = await self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return Html(answer.text)

    async def post(self, path: str, headers: dict[str, str] | None = None, **form: Any) -> httpx2.Response:
        sent = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return await within(
            self.client.post(path, content=urlencode(form, doseq=True), headers={**FORM, **sent})
        )


class Stream:
    """An event stream, read as it comes."""

    def __init__(self, app: Any, query: str, **scope: Any) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._leave = asyncio.Event()
        self._text = ""
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/events",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            **scope,
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))
        self._started = asyncio.Event()

    async def __aenter__(self) -> Self:
        await within(self._started.wait())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.leave()
        await within(self.task)

    async def answered(self) -> None:
        await self._started.wait()

    def leave(self) -> None:
        self._leave.set()

    async def _receive(self) -> dict[str, Any]:
        await self._leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self._started.set()
            return
        self._text += message["body"].decode()
        while "\n\n" in self._text:
            event, _, self._text = self._text.partition("\n\n")
            lines = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
            if "event" in lines:
                self.events.put_nowait((lines["event"], json.loads(lines["data"])))
