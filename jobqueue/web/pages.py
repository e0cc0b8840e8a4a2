"""From a request for a page to its answer, whatever goes wrong on the way."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from jobqueue.errors import (
    InvalidArgumentError,
    JobNotFoundError,
    JobQueueError,
    StorageError,
    UnsupportedError,
)
from jobqueue.runtime.bounded import within
from jobqueue.runtime.loggers import get_logger
from jobqueue.web.bulk import Bulk
from jobqueue.web.options import Action, Options
from jobqueue.web.params import BadRequestError, Params, read_form, read_query
from jobqueue.web.pulse import Pulse
from jobqueue.web.rendering import base_path, render, url_maker
from jobqueue.web.samples import Samples
from jobqueue.web.source import Source
from jobqueue.web.values import Redactor

__all__ = [
    "FLASH",
    "Board",
    "Go",
    "Page",
    "View",
    "Visit",
    "allows",
    "form_endpoint",
    "page_endpoint",
    "problem",
]

log = get_logger("jobqueue.web")

PAGE_TIME = 8.0
"""Seconds that the store may take for one page."""
FLASH = ("did", "n", "made", "of")
"""Arguments that say what has just been done, and not what is shown."""
_CHANGES = frozenset(Action) - {Action.VIEW}


@dataclass(frozen=True, slots=True)
class Board:
    """The parts of a dashboard that its pages use."""

    source: Source
    options: Options
    redact: Redactor
    samples: Samples
    pulse: Pulse
    bulk: Bulk


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a page or an action."""

    board: Board
    request: Request
    params: Params
    may: frozenset[Action]
    """What this visitor may do."""

    @property
    def source(self) -> Source:
        """The store and its queues."""
        return self.board.source


@dataclass(frozen=True, slots=True)
class Page:
    """What is to be shown."""

    template: str
    title: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    section: str = ""
    """The entry of the navigation that it belongs to."""
    live: str | None = None
    """Name of the facts by which its changes are told; ``None``: it does not change by itself."""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Go:
    """Where a form leads."""

    page: str
    query: Mapping[str, object]


View = Callable[[Visit], Awaitable[Page]]
Endpoint = Callable[[Request], Awaitable[Response]]


async def allows(board: Board, request: Request, action: Action) -> bool:
    """Return whether a request may do something. A hook that raises or returns no bool allows nothing."""
    if action is not Action.VIEW and board.options.read_only:
        return False
    hook = board.options.authorize
    if hook is None:
        return True
    try:
        answer = hook(request, action)
        allowed: object = await answer if inspect.isawaitable(answer) else answer
    except Exception:
        log.exception("the authorize hook of the dashboard raised: it is taken for a no")
        return False
    if not isinstance(allowed, bool):
        log.error("the authorize hook of the dashboard returned %s and no bool", type(allowed).__name__)
        return False
    return allowed


def page_endpoint(board: Board, view: View) -> Endpoint:
    """Return what answers GET with a page."""

    async def endpoint(request: Request) -> Response:
        return await _answered(board, request, lambda: _show(board, request, view))

    return endpoint


def form_endpoint(board: Board, act: Callable[[Visit], Awaitable[Go | Page]]) -> Endpoint:
    """Return what answers POST: by leading to another page, or by one."""

    async def endpoint(request: Request) -> Response:
        async def answer() -> Response:
            may = await _may(board, request)  # before the form is read: it may be large
            visit = Visit(board, request, await read_form(request), may)
            try:
                found = await within(board.source.clock, act(visit), PAGE_TIME)
            except BaseException:
                _count_anew(visit)  # a part of it may be done
                raise
            if isinstance(found, Page):
                return _response(visit, found)
            _count_anew(visit)
            url = url_maker(base_path(request.scope.get("root_path", "")))
            return RedirectResponse(url(found.page, **found.query), 303)

        return await _answered(board, request, answer)

    return endpoint


async def _show(board: Board, request: Request, view: View) -> Response:
    visit = Visit(board, request, read_query(request), await _may(board, request))
    if visit.params.text("did"):  # maybe in another process that serves this dashboard too
        _count_anew(visit)
    return _response(visit, await within(board.source.clock, view(visit), PAGE_TIME))


def _count_anew(visit: Visit) -> None:
    """Have the next pages show what was done with a queue."""
    visit.source.counting.forget(visit.params.text("queue") or None)


async def _may(board: Board, request: Request) -> frozenset[Action]:
    """Return what a visitor may do. Raises `BadRequestError` for one that may not even look."""
    if not await allows(board, request, Action.VIEW):
        raise BadRequestError("you may not see this", 403)
    return frozenset([action for action in _CHANGES if await allows(board, request, action)])


async def _answered(board: Board, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """Return the answer, or the page that says why there is none."""
    try:
        board.pulse.touch()
        return await answer()
    except BadRequestError as error:
        return problem(board, request, error.status, str(error))
    except InvalidArgumentError as error:
        return problem(board, request, 400, str(error))
    except JobNotFoundError as error:
        return problem(board, request, 404, str(error))
    except UnsupportedError as error:
        return problem(board, request, 501, str(error))
    except TimeoutError:
        return problem(board, request, 503, f"The store has not answered within {PAGE_TIME:g} s.")
    except StorageError as error:
        return problem(board, request, 503, str(error))
    except JobQueueError as error:
        return problem(board, request, 409, str(error))
    except Exception:
        log.exception("a page of the dashboard failed")
        return problem(board, request, 500, "This page has failed; the log of this process says why.")


_TITLES = {
    400: "This address is not right",
    403: "Not allowed",
    404: "Not found",
    409: "Not possible now",
    413: "Too large",
    500: "Something went wrong",
    501: "Not with this store",
    503: "The store is away",
}


def problem(board: Board, request: Request, status: int, detail: str) -> Response:
    """Return a page that says what is wrong. That of a store that is away tries again by itself."""
    title = _TITLES.get(status, "Not possible")
    page = Page("problem.html", title, {"detail": detail, "code": status}, status=status)
    try:
        params = read_query(request)
    except BadRequestError:
        params = Params({})
    # It may not even be known what this visitor may see: nothing of the store is on this page.
    response = _response(Visit(board, request, params, frozenset()), page)
    if status == 503:
        response.headers["Retry-After"] = "5"
    return response


def _response(visit: Visit, page: Page) -> Response:
    board, request = visit.board, visit.request
    base = base_path(request.scope.get("root_path", ""))
    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).strip("/")
    query = urlencode(visit.params.pairs(*FLASH), quote_via=quote, errors="replace")
    here = f"{path}?{query}" if query else path
    retries = page.status == 503 and request.method in {"GET", "HEAD"}
    html = render(
        page.template,
        base,
        board.source.clock.time(),
        **page.data,
        title=page.title,
        brand=board.options.title,
        section=page.section,
        may=visit.may,
        Action=Action,
        read_only=board.options.read_only,
        here=f"{base}/{here}" if page.live or retries else "",
        stream=f"{base}/events?page={page.live}&{query}" if page.live else "",
        store="" if page.status >= 400 else board.source.label,
        operations=board.bulk.shown() if page.live else (),
    )
    return HTMLResponse(html, page.status)
