"""Serves a dashboard with uvicorn: alone, as `jobqueue web` does, or as a part of an `App`."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

try:
    import uvicorn
except ImportError as error:  # pragma: no cover - the tests have it
    raise ImportError("serving the dashboard needs uvicorn: pip install 'jobqueue[web]'") from error

from jobqueue.app import App
from jobqueue.errors import BrokenError, InvalidArgumentError, JobQueueError
from jobqueue.model.checks import check_count
from jobqueue.model.serde import Serde
from jobqueue.runtime.loggers import get_logger
from jobqueue.web.application import Dashboard, dashboard
from jobqueue.web.options import Authorize, Redact
from jobqueue.web.source import Given

__all__ = ["DashboardServer", "is_loopback"]

log = get_logger("jobqueue.web")

MOST_CONNECTIONS = 1_000
"""Connections at the same time; more are answered with 503."""
GRACE = 2
"""Seconds that requests under way get at a stop. Streams are ended by the dashboard."""


class _Server(uvicorn.Server):
    """One that leaves signals to the process that it is a part of."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class DashboardServer:
    """The dashboard at an address of this process: ``App(..., web=DashboardServer(port=8787))``.

    It shows the queues of its app, and starts and stops with it.

    Args:
        source: what it shows when it is served without an app, as for `dashboard`.
        host: address to listen on. One that other machines can reach needs ``credentials`` or ``authorize``.
        port: 0: any free one, which the log tells.
        root_path: path under which a proxy serves it, such as ``/jobs``.

    The others are those of `dashboard`. Raises `InvalidArgumentError`.
    """

    def __init__(
        self,
        source: Given = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8787,
        root_path: str = "",
        authorize: Authorize | None = None,
        credentials: str | None = None,
        hosts: Iterable[str] | None = None,
        max_streams: int = 200,
        payload_serde: Serde[Any] | None = None,
        read_only: bool = False,
        redact: Redact | None = None,
        refresh: float = 2.0,
        result_serde: Serde[Any] | None = None,
        title: str = "jobqueue",
    ) -> None:
        if not isinstance(host, str) or not host:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError("host", f"must be an address, such as '127.0.0.1', not {host!r:.100}")
        check_count("port", port, low=0, high=65_535)
        if credentials is None and authorize is None and not is_loopback(host):
            raise InvalidArgumentError(
                "host", f"{host} can be reached from elsewhere: give credentials or authorize, or serve on "
                "127.0.0.1 behind a proxy that asks who it is",
            )  # fmt: skip
        self._address = host, port
        self._root_path = root_path.rstrip("/")
        if self._root_path and not self._root_path.startswith("/"):
            raise InvalidArgumentError("root_path", f"{root_path!r:.100} must begin with /")
        names = None if hosts is None else list(hosts)

        def make(source: Given) -> Dashboard:
            return dashboard(
                source, authorize=authorize, credentials=credentials, hosts=names, max_streams=max_streams,
                payload_serde=payload_serde, read_only=read_only, redact=redact, refresh=refresh,
                result_serde=result_serde, title=title,
            )  # fmt: skip

        self._make = make
        self._source = source
        if source is not None:
            make(source)  # so that what is wrong is told here
        self._url = ""
        self._app: Dashboard | None = None
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    def __repr__(self) -> str:
        host, port = self._address
        return f"<DashboardServer on {host}:{port}, {'stopped' if self._task is None else 'started'}>"

    def show(self, app: App) -> None:
        """Show the queues of an app, which calls it. Raises `InvalidArgumentError` for impossible options."""
        self._make(app)
        self._source = app

    @property
    def url(self) -> str | None:
        """Where it is served, seen from this machine; ``None`` while it is not."""
        return self._url if self._task is not None else None

    @property
    def ready(self) -> bool:
        """Whether it accepts requests."""
        server = self._server
        return server is not None and server.started and not server.should_exit

    async def start(self) -> None:
        """Listen. Does nothing if started. Raises `JobQueueError` if the address cannot be used."""
        if self._task is not None:
            return
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=512)
        except OSError as error:
            text = f"cannot serve on {host}:{port}: {error.strerror or error}"
            raise JobQueueError(f"{text}: use another port or host") from error
        app = self._app = self._make(self._source)
        server = self._server = _Server(
            uvicorn.Config(
                app,
                root_path=self._root_path,
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
        shown = f"[{host}]" if ":" in host else host
        self._url = f"http://{shown}:{listener.getsockname()[1]}{self._root_path}/"
        log.info("dashboard on %s", self._url)
        self._listener = listener
        self._task = asyncio.create_task(server.serve(sockets=[listener]), name="jobqueue-web-server")

    async def stop(self) -> None:
        """End all streams, answer the requests under way, and stop listening. Does nothing if not started."""
        task, app, server = self._task, self._app, self._server
        if task is None or app is None or server is None:
            return
        server.should_exit = True
        await app.close()
        await asyncio.wait([task])
        if self._listener is not None:  # a server that is stopped as it begins leaves it open
            self._listener.close()
        self._task = self._listener = None

    def hurry(self) -> None:
        """Answer nothing more."""
        if self._server is not None:
            self._server.force_exit = True

    async def until_broken(self) -> None:
        """Wait until the server has ended; raise `BrokenError` if it was not told to."""
        task, server = self._task, self._server
        if task is None or server is None:
            return
        await asyncio.wait([task])
        if not server.should_exit:
            raise BrokenError("the web server has ended by itself")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
