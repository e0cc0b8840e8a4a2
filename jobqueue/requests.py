"""Validates the arguments of `enqueue` and builds the `NewJob` to store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobqueue.errors import InvalidArgumentError
from jobqueue.options import (
    check_count,
    check_id,
    check_instant,
    check_member,
    check_priority,
    check_seconds,
    millis,
)
from jobqueue.records import EnqueueRequest
from jobqueue.runtime import make_tuple, unique_id
from jobqueue.serde import Serde, TooLargeError, dump
from jobqueue.storage.base import CheckedJob, NewJob, Reuse

__all__ = ["Requests"]


_RETURN = Reuse.RETURN


@dataclass(frozen=True, slots=True)
class Requests:
    """Builds jobs with the defaults of one queue."""

    max_attempts: int
    max_stalls: int
    ttl: int
    """Milliseconds."""
    serde: Serde[Any]
    max_bytes: int

    def one(
        self,
        id: str | None,
        payload: Any,
        max_attempts: int | None,
        result_ttl: float | None,
        delay: float | None,
        run_at: datetime | None,
        priority: int,
        reuse: Reuse | str,
        *,
        wait: bool = False,
    ) -> NewJob:
        """Build the job of one `enqueue`. Raises `InvalidArgumentError` or `SerializationError`."""
        try:
            if (
                priority.__class__ is int
                and not priority
                and reuse is _RETURN
                and max_attempts is None
                and result_ttl is None
                and delay is None
                and run_at is None
            ):  # what most calls are: a third of the time
                fields = (
                    unique_id() if id is None else check_id(id),
                    dump(self.serde, payload, "the payload", self.max_bytes),
                    0, 0, None, self.max_attempts, self.max_stalls, self.ttl, _RETURN, wait,
                )  # fmt: skip
                return make_tuple(CheckedJob, fields)
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
            )
        except TooLargeError as error:
            raise InvalidArgumentError("payload", str(error).removeprefix("the payload ")) from None

    def several(self, request: tuple[str | None, Any] | EnqueueRequest, place: int) -> NewJob:
        """Build the job of the request at index ``place`` of a list; errors name the index."""
        if isinstance(request, tuple) and len(request) == 2:  # pyright: ignore[reportUnnecessaryIsInstance]
            request = EnqueueRequest(*request)
        if not isinstance(request, EnqueueRequest):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError(f"requests[{place}]", "must be (id, payload) or an EnqueueRequest")
        try:
            return self.one(
                request.id, request.payload, request.max_attempts, request.result_ttl,
                request.delay, request.run_at, request.priority, request.reuse,
            )  # fmt: skip
        except InvalidArgumentError as error:
            raise error.within(f"requests[{place}]") from None


def _check_run_at(run_at: object, delay: float | None) -> int:
    if delay is not None:
        raise InvalidArgumentError("run_at", "give either delay or run_at, not both")
    return check_instant("run_at", run_at)
