"""Serves an ASGI application with uvicorn, without its signal handlers: those of the command are used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn

from jobqueue.cli.exits import Failure
from jobqueue.errors import BrokenError
from jobqueue.runtime.loggers import get_logger
from jobqueue.web import Dashboard

__all__ = ["WebServer"]

log = get_logger("jobqueue.cli")

MOST_CONNECTIONS = 1_000
"""Connections at the same time; more are answered with 503."""
GRACE = 2
"""Seconds that requests under way get at a stop. Streams are ended by the dashboard."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class WebServer:
    """A dashboard at an address."""

    def __init__(self, app: Dashboard, host: str, port: int, root_path: str) -> None:
        self._app = app
        self._address = (host, port)
        self._server = _Server(
            uvicorn.Config(
                app,
                root_path=root_path,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it accepts requests."""
        return self._server.started and not self._server.should_exit

    async def start(self) -> None:
        """Listen. Raises `Failure` if the address cannot be used."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=512)
        except OSError as error:
            text = f"cannot serve on {host}:{port}: {error.strerror or error}"
            raise Failure(f"{text}: use another --port or --host") from error
        shown = f"[{host}]" if ":" in host else host
        log.info(
            "dashboard on http://%s:%d%s/", shown, listener.getsockname()[1], self._server.config.root_path
        )
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="jobqueue-web-server")

    async def stop(self) -> None:
        """End all streams, answer the requests under way, and stop listening."""
        self._server.should_exit = True
        await self._app.close()
        if self._task is not None:
            await asyncio.wait([self._task])

    def hurry(self) -> None:
        """Answer nothing more."""
        self._server.force_exit = True

    async def until_broken(self) -> None:
        """Wait until the server has ended; raise if it was not told to."""
        if self._task is None:
            return
        await asyncio.wait([self._task])
        if not self._server.should_exit:
            raise BrokenError("the web server has ended by itself")
