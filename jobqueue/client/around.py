"""Enqueues through the middleware of `Queue.around_enqueue`, and checks its requests and results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from jobqueue.client.explain import stored_or_not
from jobqueue.client.new_jobs import JobBuilder
from jobqueue.client.results import EnqueueRequest, EnqueueResult, EnqueueStatus
from jobqueue.client.room import OnFull
from jobqueue.client.session import Insert, QueueSession
from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.middleware import Chain
from jobqueue.model.checks import check_id
from jobqueue.model.states import ENDED
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.values import Inserted, InsertStatus, NewJob, Reply

__all__ = ["AroundEnqueue", "EnqueueNext", "Sender"]

EnqueueNext = Callable[[Sequence[EnqueueRequest]], Awaitable[list[EnqueueResult[Any]]]]
"""The ``call_next`` of a middleware around enqueueing."""
AroundEnqueue = Callable[[Sequence[EnqueueRequest], EnqueueNext], Awaitable[list[EnqueueResult[Any]]]]
"""A middleware around enqueueing."""

Inserting = Callable[[Sequence[OnFull | str]], Insert]
"""Makes what inserts jobs, given what to do for each when there is no room."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends the requests of one queue through its middleware.

    The ids are drawn before, so that a middleware knows them and may send twice. It may change everything
    but them, send a part, or send nothing and answer itself.
    """

    chain: Chain[Sequence[EnqueueRequest], list[EnqueueResult[Any]]]
    builder: JobBuilder
    answer: Callable[[NewJob, Inserted], EnqueueResult[Any]]
    """Turns the store's answer into that of an enqueue, or raises `QueueFullError`."""
    outcome: Callable[[str, Reply | Inserted, str], Any]
    """Returns the result of an ended job, or raises its error."""

    async def send_one(self, inserting: Inserting, request: EnqueueRequest) -> EnqueueResult[Any]:
        """Send the request of an `enqueue`."""
        (answer,) = await self._through((self._with_id(request),), self._inserting(inserting))
        return answer

    async def send_all(
        self, inserting: Inserting, requests: Iterable[tuple[str | None, Any] | EnqueueRequest]
    ) -> list[EnqueueResult[Any]]:
        """Send the requests of an `enqueue_many`."""
        known = [
            self._with_id(self.builder.request(given, place), place) for place, given in enumerate(requests)
        ]
        return await self._through(known, self._inserting(inserting, listed=True))

    async def send_and_wait(self, session: QueueSession, request: EnqueueRequest, timeout: float) -> Any:
        """Send the request of an `enqueue_and_wait`; return the job's result."""
        request = self._with_id(request)
        id, waiters = str(request.id), session.waiters
        passage = _Passage(id)
        with waiters.waiting(id, timeout, passage.why_late) as waiter:
            passage.bind = partial(waiters.bind, waiter)
            if not waiters.subscribed:
                await waiters.subscribe()
            waiter.held = True
            inserting = partial(session.inserting, None, until=session.now() + timeout)
            (answer,) = await self._through((request,), self._inserting(inserting, passage=passage))
            waiter.held = False
            if answer.status is EnqueueStatus.COMPLETED:
                return answer.result
            if passage.inserted is None:
                raise JobQueueError(
                    f"a middleware of around_enqueue did not send job {id!r}: then enqueue_and_wait needs "
                    "an EnqueueResult with the status completed and a result"
                )
            if passage.inserted.state in ENDED:
                return self.outcome(id, passage.inserted, request.task)
            return self.outcome(id, await waiters.reply(waiter), request.task)

    @staticmethod
    def _with_id(request: EnqueueRequest, place: int | None = None) -> EnqueueRequest:
        if request.id is None:
            return replace(request, id=unique_id())
        check_id(request.id, "id" if place is None else f"requests[{place}].id")
        return request

    def _inserting(
        self, inserting: Inserting, *, listed: bool = False, passage: _Passage | None = None
    ) -> EnqueueNext:
        """Return the last call: check, store, answer. With ``passage``, the caller waits for the job."""

        async def insert(requests: Sequence[EnqueueRequest]) -> list[EnqueueResult[Any]]:
            jobs = [
                self.builder.build_requested(request, place if listed else None, wait=passage is not None)
                for place, request in enumerate(requests)
            ]
            if passage is not None:
                passage.sent = True
            store = inserting([request.on_full for request in requests])
            inserted = await store(jobs)
            if passage is not None and inserted:
                passage.answered(inserted[-1])
            return [self.answer(job, found) for job, found in zip(jobs, inserted, strict=True)]

        return insert

    async def _through(
        self, requests: Sequence[EnqueueRequest], send: EnqueueNext
    ) -> list[EnqueueResult[Any]]:
        ids = {request.id for request in requests}

        async def checked(changed: Sequence[EnqueueRequest]) -> list[EnqueueResult[Any]]:
            _check_requests(changed, ids)
            return await send(changed)

        answers = await self.chain.around(checked)(requests)
        _check_answers(answers, requests)
        return list(answers)


@dataclass(slots=True)
class _Passage:
    """The way of one `enqueue_and_wait` through the middleware: how far its job has come."""

    id: str
    sent: bool = False
    inserted: Inserted | None = None
    """The store's last answer."""
    bind: Callable[[int], None] | None = None
    """Sets the incarnation to wait for."""

    def answered(self, inserted: Inserted) -> None:
        """Note the store's answer, and expect the outcome from now on: it may come, and expire, any time."""
        self.inserted = inserted
        if self.bind is not None and inserted.status is not InsertStatus.FULL:
            self.bind(inserted.seq)

    def why_late(self) -> str:
        """Describe what the timeout has interrupted."""
        if not self.sent:
            return f"a middleware of around_enqueue has not sent job {self.id!r} in time"
        if self.inserted is None:
            return stored_or_not(self.id)
        return (
            f"job {self.id!r} is stored, but a middleware of around_enqueue has not returned in time: "
            "wait for the job with this id"
        )


def _check_requests(requests: object, ids: set[str | None]) -> None:
    if not isinstance(requests, (list, tuple)):
        kind = type(requests).__name__
        raise InvalidArgumentError("requests", f"call_next takes a list of EnqueueRequest, not {kind}")
    items = cast("Sequence[object]", requests)
    for place, request in enumerate(items):
        if not isinstance(request, EnqueueRequest):
            kind = type(request).__name__
            raise InvalidArgumentError(f"requests[{place}]", f"must be an EnqueueRequest, not {kind}")
        if request.id not in ids:
            problem = "is not one that was enqueued: a middleware may change anything but the id"
            raise InvalidArgumentError(f"requests[{place}].id", problem)


def _check_answers(answers: object, requests: Sequence[EnqueueRequest]) -> None:
    given = cast("Sequence[object]", answers) if isinstance(answers, (list, tuple)) else ()
    ids: list[str | None] = [_id(answer) for answer in given]
    if ids != [request.id for request in requests]:
        raise JobQueueError(
            "a middleware of around_enqueue must return what call_next returned: a list with one "
            "EnqueueResult for each request, in their order. The jobs may be stored"
        )


def _id(answer: EnqueueResult[Any] | object) -> str | None:
    return answer.id if isinstance(answer, EnqueueResult) else None
