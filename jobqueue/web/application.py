"""The application, made of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from jobqueue.model.serde import Serde
from jobqueue.runtime.text import one_line
from jobqueue.web import actions
from jobqueue.web.assets import asset
from jobqueue.web.bulk import Bulk
from jobqueue.web.events import Stream
from jobqueue.web.options import Action, Authorize, Redact, checked_options
from jobqueue.web.pages import FLASH, Board, View, allows, form_endpoint, page_endpoint, problem
from jobqueue.web.params import BadRequestError, read_query
from jobqueue.web.pulse import Facts, Pulse, Topic
from jobqueue.web.samples import Samples
from jobqueue.web.security import Security
from jobqueue.web.source import Given, given
from jobqueue.web.values import Redactor
from jobqueue.web.views import job, letters, overview, queue, schedules, system, workers

__all__ = ["Dashboard", "dashboard"]

_PAGES: Mapping[str, tuple[str, View, Facts]] = {
    "overview": ("/", overview.overview, overview.facts),
    "queue": ("/queue", queue.queue, queue.facts),
    "job": ("/job", job.job, job.facts),
    "letters": ("/dead", letters.letters, letters.facts),
    "schedules": ("/schedules", schedules.schedules, schedules.facts),
    "workers": ("/workers", workers.workers, workers.facts),
    "system": ("/system", system.system, system.facts),
}


class Dashboard:
    """The dashboard of a store: an ASGI application. Make it with `dashboard`."""

    def __init__(self, board: Board) -> None:
        self._board = board
        pages = [
            Route(path, page_endpoint(board, view), methods=["GET"]) for path, view, _ in _PAGES.values()
        ]
        forms = [
            Route("/confirm", form_endpoint(board, actions.confirm), methods=["POST"]),
            Route("/jobs", form_endpoint(board, actions.jobs_action), methods=["POST"]),
            Route("/queue", form_endpoint(board, actions.queue_action), methods=["POST"]),
            Route("/limits", form_endpoint(board, actions.limits_action), methods=["POST"]),
            Route("/schedules", form_endpoint(board, actions.schedule_action), methods=["POST"]),
        ]
        others = [
            Route("/events", self._events, methods=["GET"]),
            Route("/static/{version}/{name}", asset, methods=["GET"]),
        ]
        self._app = Security(
            Router([*pages, *forms, *others], redirect_slashes=False, default=self._nothing_there),
            board.options,
        )

    def __repr__(self) -> str:
        return f"<Dashboard of {self._board.source.label}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. It needs no lifespan; where it gets one, it closes the store at its end."""
        match scope["type"]:
            case "http":
                await self._app(scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1008})

    async def close(self) -> None:
        """End all streams and close the store. The next request opens it again."""
        await self._board.pulse.close()
        await self._board.bulk.close()
        await self._board.source.close()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _events(self, request: Request) -> Response:
        board = self._board
        try:
            params = read_query(request)
            page = params.one_of("page", tuple(_PAGES))
            if page is None:
                raise BadRequestError("page is missing")
        except BadRequestError as error:
            return problem(board, request, error.status, str(error))
        if not await allows(board, request, Action.VIEW):
            return problem(board, request, 403, "you may not see this")
        return Stream(board.pulse, Topic(page, params.pairs("page", *FLASH)), board.source.clock)

    async def _nothing_there(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        shown = one_line(scope["path"][:100])
        await problem(self._board, request, 404, f"there is no page {shown}")(scope, receive, send)


def dashboard(
    source: Given = None,
    *,
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
) -> Dashboard:
    """Make the dashboard of a store: an ASGI application, to be served alone or mounted under any path.

    Args:
        source: an `App`, a `Queue` or several, whose serdes it then knows; a store; or a URL for
            `open_storage`. ``None``: the URL in ``JOBQUEUE_STORAGE``. Nothing of it needs to be started.
        authorize: called as ``authorize(request, action)`` with a Starlette request and an `Action`; returns
            whether that is allowed. May be asynchronous. One that raises allows nothing.
        credentials: ``USER:PASSWORD`` that every request must have (HTTP Basic).
        hosts: names of hosts under which it is served, without ports; ``["*"]``: any. Without it, any with
            ``authorize`` or ``credentials``, and else only ``localhost``, ``127.0.0.1`` and ``[::1]``.
        max_streams: open event streams; more are refused, and their pages poll instead.
        payload_serde, result_serde: those of queues that ``source`` does not have; default: JSON.
        read_only: allow no action that changes anything.
        redact: called as ``redact(field, value, job)`` for each payload, result, progress, error and
            traceback that is to be shown; returns what to show instead.
        refresh: seconds between two looks at what is shown.
        title: name on each page.

    Raises `InvalidArgumentError`.
    """
    options = checked_options(
        authorize, credentials, hosts, redact, refresh, max_streams, title, read_only=read_only
    )
    known = given(source, payload_serde, result_serde)
    samples, bulk = Samples(), Bulk(known.clock.monotonic)
    facts = {name: _with_bulk(read, bulk) for name, (_, _, read) in _PAGES.items()}
    pulse = Pulse(known, samples, facts, options.refresh, options.max_streams, bulk.running)
    return Dashboard(Board(known, options, Redactor(redact), samples, pulse, bulk))


def _with_bulk(read: Facts, bulk: Bulk) -> Facts:
    """Have the operations under way be a part of every page."""

    async def facts(source: Any, query: Mapping[str, str]) -> Mapping[str, Any]:
        return {**await read(source, query), " operations": bulk.facts()}

    return facts
