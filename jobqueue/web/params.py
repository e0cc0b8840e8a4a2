"""The arguments of a request, checked: nothing of them is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import check_id, check_label, check_queue_name
from jobqueue.model.states import JobState
from jobqueue.web.security import MAX_FORM

__all__ = ["BadRequestError", "Params", "read_form", "read_query"]

T = TypeVar("T", bound=str)

MAX_CURSOR = 2_000
MAX_FIELDS = 300


class BadRequestError(Exception):
    """A request that this application's pages do not make."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Params:
    """Named texts."""

    def __init__(self, given: Mapping[str, Sequence[str]]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        """Return one text, stripped; empty if it is not given. Of several the last counts."""
        values = self._given.get(name)
        return values[-1].strip() if values else ""

    def exact(self, name: str) -> str:
        """Return one text as it was sent."""
        values = self._given.get(name)
        return values[-1] if values else ""

    def all(self, name: str) -> list[str]:
        """Return all texts of a name."""
        return list(self._given.get(name, ()))

    def pairs(self, *without: str) -> tuple[tuple[str, str], ...]:
        """Return the last text of each other name, sorted."""
        return tuple(
            sorted((name, values[-1]) for name, values in self._given.items() if name not in without)
        )

    def queue(self) -> str:
        """Return the name of a queue."""
        return check_queue_name(self.text("queue"), "queue")

    def id(self) -> str:
        """Return the id of a job."""
        return check_id(self.exact("id"))

    def ids(self) -> list[str]:
        """Return ids of jobs."""
        return [check_id(id) for id in self.all("id")]

    def label(self, name: str) -> str | None:
        """Return a task or group; ``None`` if it is not given."""
        return check_label(name, self.text(name)) or None

    def state(self) -> JobState | None:
        """Return a state; ``None`` if it is not given."""
        return self.one_of("state", tuple(JobState))

    def one_of(self, name: str, known: Sequence[T]) -> T | None:
        """Return one of the known texts; ``None`` if it is not given."""
        given = self.text(name)
        if not given:
            return None
        for each in known:
            if given == each:
                return each
        raise BadRequestError(f"{name} must be one of {', '.join(known)}")

    def cursor(self, name: str = "cursor") -> str | None:
        """Return the cursor of a page. Whether the store has given it, the store says."""
        given = self.exact(name)
        if len(given) > MAX_CURSOR or not given.isprintable():
            raise InvalidArgumentError(name, "is not one that a page of this dashboard has")
        return given or None

    def whole(self, name: str) -> int | None:
        """Return a whole number; ``None`` if it is not given."""
        given = self.text(name)
        if not given:
            return None
        if not (given.isascii() and given.isdecimal() and len(given) < 12):
            raise BadRequestError(f"{name.replace('_', ' ')} must be a whole number")
        return int(given)

    def seconds(self, name: str, otherwise: float) -> float:
        """Return a number of seconds, ``otherwise`` if it is not given."""
        given = self.text(name)
        try:
            return float(given[:20]) if given else otherwise
        except ValueError:
            raise BadRequestError(f"{name.replace('_', ' ')} must be a number of seconds") from None

    def number(self, name: str, high: int = 10**9) -> int:
        """Return a number; 0 if it is not given."""
        return min(high, self.whole(name) or 0)


def parsed(data: str) -> Params:
    """Return the arguments in a query or form. Raises `BadRequestError`."""
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(data, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadRequestError("the arguments cannot be read, or are too many") from None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return Params(found)


def read_query(request: Request) -> Params:
    """Return the arguments in the address. Raises `BadRequestError`."""
    return parsed(request.scope.get("query_string", b"").decode("latin-1"))


async def read_form(request: Request) -> Params:
    """Read a form, up to the size that `Security` lets through. Raises `BadRequestError`."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_FORM:
                raise BadRequestError(f"the form has more than {MAX_FORM} bytes", 413)
    except ClientDisconnect:
        raise BadRequestError("the client has left") from None
    return parsed(data.decode("latin-1"))
