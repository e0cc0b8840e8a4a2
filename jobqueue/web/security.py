"""What is refused before any page is made, and the headers of every answer.

Foreign hosts (a page of somebody else can have its own name point to this machine), wrong credentials,
requests that are too long, methods that are not served, and forms that were not sent from a page of this
dashboard. The last is told by what browsers say and scripts cannot forge: ``Sec-Fetch-Site``, or ``Origin``
where a browser leaves that out, as it does over plain HTTP. A request that says neither is refused too.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobqueue.runtime.text import one_line
from jobqueue.web.options import Options

__all__ = ["MAX_FORM", "MAX_QUERY", "Security"]

MAX_QUERY = 4_096
"""Bytes of a query string."""
MAX_PATH = 512
"""Characters of a path below the root path."""
MAX_FORM = 4 * 1024 * 1024
"""Bytes of a form: an edited payload of a megabyte has up to three times as many."""
_FORM = "application/x-www-form-urlencoded"

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PORTS = {"http": 80, "https": 443}


class Security:
    """Stands in front of an ASGI application for HTTP."""

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self._app = app
        self._hosts = options.hosts
        self._credentials = None if options.credentials is None else options.credentials.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(scope)
        await (self._app if refused is None else refused)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = _host_of(headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            shown = one_line(host[:100]) or "without a name"
            return _refused(
                400,
                f"host {shown} is not known here: name it in hosts= of the dashboard, or give authorize=, "
                "or --allow-host to `jobqueue web`",
            )
        if self._credentials is not None and not _has_credentials(headers, self._credentials):
            return _refused(
                401, "give user and password", {"WWW-Authenticate": 'Basic realm="jobqueue", charset="UTF-8"'}
            )
        if len(scope.get("query_string", b"")) > MAX_QUERY:
            return _refused(414, f"the query has more than {MAX_QUERY} bytes")
        if len(scope["path"]) - len(scope.get("root_path", "")) > MAX_PATH:
            return _refused(414, f"the path has more than {MAX_PATH} characters")
        if scope["method"] == "POST":
            return _post_refusal(headers)
        if scope["method"] not in {"GET", "HEAD"}:
            return _refused(405, "use GET or POST", {"Allow": "GET, HEAD, POST"})
        return None


def _post_refusal(headers: Headers) -> Response | None:
    if not _is_of_this_page(headers):
        return _refused(403, "this form was not sent from a page of this dashboard")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return _refused(415, f"send a form as {_FORM}")
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal() or len(length) > 10 or int(length) > MAX_FORM:
        return _refused(413, f"the form has more than {MAX_FORM} bytes")
    return None


def _is_of_this_page(headers: Headers) -> bool:
    """Return whether a browser says that a page of this very origin has sent the request."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _PORTS or not parts.hostname:
        return False
    # The scheme is not compared: behind a proxy that ends TLS only the browser knows it.
    given = {_netloc(parts.hostname, port)} if port else {
        _netloc(parts.hostname, None), _netloc(parts.hostname, _PORTS[parts.scheme]),
    }  # fmt: skip
    return headers.get("host", "").lower() in given


def _netloc(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _host_of(header: str) -> str:
    """Return the host in a ``Host`` header, in lower case and without its port."""
    name = header.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _has_credentials(headers: Headers, wanted: bytes) -> bool:
    kind, _, data = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        given = base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, wanted)


def _refused(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{why}\n", status, dict(headers or {}))
