"""Makes a schedule from what a program says: all is checked before anything is stored."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from jobqueue.client.new_jobs import JobBuilder
from jobqueue.client.results import EnqueueRequest, EnqueueResult
from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import MAX_INSTANT, check_bool, check_member, check_seconds, millis
from jobqueue.model.ticks import CatchUp
from jobqueue.model.timetable import make_timetable
from jobqueue.schedules.stored import StoredSchedule, check_name
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import NewJob

if TYPE_CHECKING:
    from jobqueue.tasks.task import Task

__all__ = ["ScheduleHost", "ScheduleOptions", "Times", "made_of", "task_name"]


class ScheduleOptions(TypedDict, total=False):
    """Options of the jobs of a schedule, as `Queue.enqueue` has them."""

    priority: int
    max_attempts: int | None
    result_ttl: float | None
    group: str
    expires: float | None


_OPTIONS = frozenset(ScheduleOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class ScheduleHost:
    """The part of a queue that its schedules use."""

    name: str
    store: Callable[[], Storage]
    """Return the open store; raise if the queue is not started."""
    builder: JobBuilder
    tasks: Mapping[str, Task[..., Any]]
    insert: Callable[[NewJob], Awaitable[EnqueueResult[Any]]]
    check_unstarted: Callable[[], None]
    """Raise if the queue is started."""


class Times(NamedTuple):
    """When a schedule has its ticks, as it was given."""

    cron: str | None
    every: float | None
    timezone: str
    jitter: float
    catch_up: CatchUp | str


def made_of(
    host: ScheduleHost,
    name: str,
    what: Any,
    args: Iterable[Any],
    kwargs: Mapping[str, Any] | None,
    times: Times,
    origin: str,
    options: Mapping[str, Any],
    *,
    paused: bool,
) -> StoredSchedule:
    """Check everything, and make the schedule without its mark."""
    made = StoredSchedule(
        name=check_name(name),
        cron=times.cron,
        every=times.every,
        timezone=times.timezone,
        jitter=millis(check_seconds("jitter", times.jitter, zero=True)),
        catch_up=check_member("catch_up", CatchUp, times.catch_up),
        paused=check_bool("paused", paused),
        origin=origin,
        job=_job(host, name, what, args, kwargs, options),
        mark=0,
        last=None,
        table=make_timetable(times.cron, times.every, times.timezone),
    )
    replace(made, mark=MAX_INSTANT, last=MAX_INSTANT).data()  # raises if it is, or may become, too large
    return made


def task_name(host: ScheduleHost, what: object) -> str | None:
    """Return the name of a task of this queue; ``None`` for anything else."""
    name: object = getattr(what, "name", None)
    return name if isinstance(name, str) and host.tasks.get(name) is what else None


def _job(
    host: ScheduleHost,
    name: str,
    what: Any,
    args: Iterable[Any],
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> NewJob:
    for option in options:
        if option not in _OPTIONS:
            raise InvalidArgumentError(option, f"is no option of a schedule: {', '.join(sorted(_OPTIONS))}")
    if isinstance(what, EnqueueRequest):
        request = _refuse_times(what)
        for argument, given in (("args", args), ("kwargs", kwargs), *options.items()):
            if given:
                raise InvalidArgumentError(argument, "is that of the request")
    elif task_name(host, what) is not None:
        request = what.requested(tuple(args), dict(kwargs or {}), options)
    else:
        _refuse_other_task(what, host.name)
        for argument, given in (("args", args), ("kwargs", kwargs)):
            if given:
                raise InvalidArgumentError(argument, "goes with a task: a payload has none")
        request = EnqueueRequest(None, what, **options)
    return NewJob(*host.builder.build_requested(replace(request, id=name)))


def _refuse_times(request: EnqueueRequest) -> EnqueueRequest:
    for argument in ("delay", "run_at"):
        if getattr(request, argument) is not None:
            raise InvalidArgumentError(argument, "is decided by the ticks of a schedule")
    return request


def _refuse_other_task(what: object, queue: str) -> None:
    module = sys.modules.get("jobqueue.tasks.task")  # not loaded: then there are no tasks
    if module is not None and isinstance(what, (module.Task, module.BoundTask)):
        raise InvalidArgumentError(
            "what", f"must be a task of queue {queue!r} itself, a request, or a payload"
        )
