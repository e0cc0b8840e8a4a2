"""Health over HTTP, for probes: ``/healthz`` (alive), ``/readyz`` (able to claim), and ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import click

from jobqueue.cli.exits import Failure
from jobqueue.cli.options import option
from jobqueue.runtime.loggers import get_logger

__all__ = ["Exporter", "health_options", "health_server"]

F = TypeVar("F", bound=Callable[..., Any])
Exporter = Callable[[], Awaitable[bytes]]
"""Returns all metrics of a process, in the text format of Prometheus."""
log = get_logger("jobqueue.cli")

MAX_REQUEST = 8192
"""Largest size of a request's head, in bytes."""
REQUEST_TIME = 5.0
"""Seconds that a client gets to send its request and read the answer."""

_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
            500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
_TEXT = "text/plain; charset=utf-8"
_SCRAPE = "metrics"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


def health_options() -> Callable[[F], F]:
    """``--health-port`` and ``--health-host``."""
    port = option("--health-port", type=click.IntRange(0, 65535), show_default=False,
                  help="Serve /healthz, /readyz, /metrics here; 0: a free port.  [default: off]")  # fmt: skip
    host = option("--health-host", default="127.0.0.1", help="Address for --health-port.")
    return lambda command: port(host(command))


@asynccontextmanager
async def health_server(
    host: str, port: int | None, ready: Callable[[], bool], metrics: Exporter | None = None
) -> AsyncGenerator[None]:
    """Answer probes and scrapes within this context; without a port, do nothing."""
    if port is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(REQUEST_TIME):
                await _answer(reader, writer, ready, metrics)
        writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=MAX_REQUEST)
    except OSError as error:
        text = f"cannot serve health on {host}:{port}: {error.strerror}"
        raise Failure(f"{text}: use another --health-port or --health-host") from error
    bound = server.sockets[0].getsockname()
    log.info("health on http://%s:%d/readyz", bound[0], bound[1])
    try:
        yield
    finally:
        # Not `async with`: that waits for clients that keep their connection, and nobody wants that.
        server.close()


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    ready: Callable[[], bool],
    metrics: Exporter | None,
) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = b""
    status, text = respond(head.split(b"\r\n", 1)[0], ready=ready(), metrics=metrics is not None)
    kind, body = _TEXT, f"{text}\n".encode()
    if text == _SCRAPE and metrics is not None:
        try:
            kind, body = _METRICS, await metrics()
        except Exception:  # a collector of the user's
            log.exception("collecting the metrics failed")
            status, body = 500, b"collecting the metrics failed: see the log\n"
    lines = [
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if status == 405:
        lines.append("Allow: GET, HEAD")
    data = "\r\n".join([*lines, "", ""]).encode()
    writer.write(data if head.startswith(b"HEAD ") else data + body)
    await writer.drain()


def respond(request_line: bytes, *, ready: bool, metrics: bool = False) -> tuple[int, str]:
    """Return status and text for a request line such as ``GET /readyz HTTP/1.1``.

    ``metrics`` says whether there are any; the text of a page that shows them is `_SCRAPE`.
    """
    parts = request_line.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        return 400, "bad request"
    method, target, _ = parts
    if method not in {b"GET", b"HEAD"}:
        return 405, "use GET"
    match target.partition(b"?")[0]:
        case b"/healthz":
            return 200, "alive"
        case b"/readyz":
            return (200, "ready") if ready else (503, "not ready")
        case b"/metrics":
            return (200, _SCRAPE) if metrics else (404, "no metrics: pip install 'jobqueue[prometheus]'")
        case _:
            return 404, "use /healthz, /readyz or /metrics"
