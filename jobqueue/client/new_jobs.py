"""Validates the arguments of `enqueue` and builds the `NewJob` to store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobqueue.client.group_weight import GroupWeight, weight_of
from jobqueue.client.results import EnqueueRequest
from jobqueue.client.room import OnFull, check_on_full
from jobqueue.errors import InvalidArgumentError, TooLargeError
from jobqueue.model.checks import (
    check_count,
    check_id,
    check_instant,
    check_label,
    check_member,
    check_priority,
    check_seconds,
    millis,
)
from jobqueue.model.fast import make_tuple
from jobqueue.model.headers import encode_headers
from jobqueue.model.serde import Serde, dump
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.values import CheckedJob, Conflict, NewJob, Reuse

__all__ = ["JobBuilder"]


_RETURN, _JOIN = Reuse.RETURN, Conflict.JOIN
_NORMAL = 0
"""The default priority. Compared by identity: ``False`` and ``0.0`` are refused."""


@dataclass(frozen=True, slots=True)
class JobBuilder:
    """Builds jobs with the defaults of one queue."""

    max_attempts: int
    max_stalls: int
    ttl: int
    """Milliseconds."""
    serde: Serde[Any]
    max_bytes: int
    dead_letter_ttl: int | None = None
    """Milliseconds; ``None``: as stores do by themselves."""
    group_weight: GroupWeight | None = None
    _rest: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    _rest_waiting: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    """All but id and payload of a job with the defaults; the latter for one that somebody waits for."""

    def __post_init__(self) -> None:
        for name, wait in (("_rest", False), ("_rest_waiting", True)):
            job = CheckedJob(
                "", b"", 0, 0, None, self.max_attempts, self.max_stalls, self.ttl, _RETURN, wait,
                dead_letter_ttl=self.dead_letter_ttl,
            )  # fmt: skip
            object.__setattr__(self, name, tuple(job[2:]))

    def build(
        self,
        id: str | None,
        payload: Any,
        max_attempts: int | None,
        result_ttl: float | None,
        delay: float | None,
        run_at: datetime | None,
        priority: int,
        reuse: Reuse | str,
        group: str = "",
        conflict: Conflict | str = Conflict.JOIN,
        expires: float | None = None,
        wait: bool = False,  # noqa: FBT001, FBT002 - by its name it would take 2 % of an enqueue
    ) -> NewJob:
        """Build the job of one `enqueue`. Raises `InvalidArgumentError` or `SerializationError`."""
        try:
            if (
                priority is _NORMAL
                and not group
                and reuse is _RETURN
                and conflict is _JOIN
                and max_attempts is None
                and result_ttl is None
                and delay is None
                and run_at is None
                and expires is None
            ):  # what most calls are: a third of the time
                checked = unique_id() if id is None else check_id(id)
                data = dump(self.serde, payload, "the payload", self.max_bytes)
                rest = self._rest_waiting if wait else self._rest
                return make_tuple(CheckedJob, (checked, data) + rest)  # noqa: RUF005 - to unpack takes longer
            return CheckedJob(
                unique_id() if id is None else check_id(id),
                dump(self.serde, payload, "the payload", self.max_bytes),
                check_priority(priority),
                0 if delay is None else millis(check_seconds("delay", delay, zero=True)),
                None if run_at is None else _check_run_at(run_at, delay),
                self.max_attempts if max_attempts is None else check_count("max_attempts", max_attempts),
                self.max_stalls,
                self.ttl if result_ttl is None else millis(check_seconds("result_ttl", result_ttl)),
                reuse if type(reuse) is Reuse else check_member("reuse", Reuse, reuse),
                wait,
                group=check_label("group", group),
                weight=weight_of(group, self.group_weight),
                dead_letter_ttl=self.dead_letter_ttl,
                conflict=_JOIN if conflict is _JOIN else _check_conflict(conflict, delay),
                expires=None if expires is None else millis(check_seconds("expires", expires)),
            )
        except TooLargeError as error:
            raise InvalidArgumentError("payload", str(error).removeprefix("the payload ")) from None

    def build_requested(
        self,
        request: tuple[str | None, Any] | EnqueueRequest,
        place: int | None = None,
        *,
        wait: bool = False,
    ) -> NewJob:
        """Build the job of one request, at index ``place`` of a list if errors are to name that."""
        if not isinstance(request, tuple) or len(request) != 2:
            request = self.request(request, place)
        try:
            if isinstance(request, tuple):  # to make an `EnqueueRequest` of it would take half of the time
                id, payload = request
                return self.build(
                    id, payload, None, None, None, None, _NORMAL, _RETURN, "", _JOIN, None, wait
                )
            new = self.build(
                request.id, request.payload, request.max_attempts, request.result_ttl,
                request.delay, request.run_at, request.priority, request.reuse, request.group,
                request.conflict, request.expires, wait,
            )  # fmt: skip
            if request.on_full is not OnFull.RAISE:
                check_on_full(request.on_full)
            if request.headers is not None:
                new = new._replace(headers=encode_headers(request.headers))
            return new._replace(task=check_label("task", request.task)) if request.task else new
        except InvalidArgumentError as error:
            raise (error if place is None else error.within(f"requests[{place}]")) from None

    def request(self, given: tuple[str | None, Any] | EnqueueRequest, place: int | None) -> EnqueueRequest:
        """Return the request that a pair means, or the request itself."""
        if isinstance(given, tuple) and len(given) == 2:
            return EnqueueRequest(*given)
        if not isinstance(given, EnqueueRequest):
            raise InvalidArgumentError(f"requests[{place}]", "must be (id, payload) or an EnqueueRequest")
        return given


def _check_run_at(run_at: object, delay: float | None) -> int:
    if delay is not None:
        raise InvalidArgumentError("run_at", "give either delay or run_at, not both")
    return check_instant("run_at", run_at)


def _check_conflict(conflict: Conflict | str, delay: float | None) -> Conflict:
    checked = check_member("conflict", Conflict, conflict)
    if checked is Conflict.DEBOUNCE and not delay:
        raise InvalidArgumentError("delay", 'conflict="debounce" needs one: how far to put the job off')
    return checked
