"""The tasks of one queue, by name; ``queue.task`` is one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.model.backoff import Backoff
from jobqueue.model.checks import (
    check_callable,
    check_count,
    check_id,
    check_priority,
    check_seconds,
)
from jobqueue.tasks.options import TaskHost, TaskOptions, Text
from jobqueue.worker.execution import is_async
from jobqueue.worker.job import Job

if TYPE_CHECKING:
    from jobqueue.tasks.task import Task

__all__ = ["TaskDecorator", "Tasks"]

A = ParamSpec("A")
R = TypeVar("R")


class TaskDecorator(Protocol):
    """Makes a function a task of a queue."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Job[Any], A], Coroutine[Any, Any, R]], /
    ) -> Task[A, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Job[Any], A], R], /) -> Task[A, R]: ...
    @overload
    def __call__(self, function: Callable[A, Coroutine[Any, Any, R]], /) -> Task[A, R]: ...
    @overload
    def __call__(self, function: Callable[A, R], /) -> Task[A, R]: ...


class Tasks(Mapping[str, "Task[..., Any]"]):
    """The tasks of a queue: a decorator that adds one, and a mapping from names to tasks."""

    def __init__(self, host: TaskHost, added: Callable[[], None]) -> None:
        self._host = host
        self._added = added
        self._tasks: dict[str, Task[..., Any]] = {}

    def __repr__(self) -> str:
        return f"<tasks {', '.join(map(repr, self._tasks)) or '(none)'}>"

    def __getitem__(self, name: str) -> Task[..., Any]:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __call__(
        self, function: Callable[Concatenate[Job[Any], A], Coroutine[Any, Any, R]], /
    ) -> Task[A, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Job[Any], A], R], /) -> Task[A, R]: ...
    @overload
    def __call__(self, function: Callable[A, Coroutine[Any, Any, R]], /) -> Task[A, R]: ...
    @overload
    def __call__(self, function: Callable[A, R], /) -> Task[A, R]: ...
    @overload
    def __call__(
        self,
        *,
        name: str | None = None,
        id: Text = None,
        group: Text = None,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        timeout: float | None = None,
        priority: int = 0,
        result_ttl: float | None = None,
        expires: float | None = None,
    ) -> TaskDecorator: ...
    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        id: Text = None,
        group: Text = None,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        timeout: float | None = None,
        priority: int = 0,
        result_ttl: float | None = None,
        expires: float | None = None,
    ) -> Any:
        """Make a function a task of this queue; a decorator, with or without arguments.

        Its jobs call the function with the arguments of `Task.enqueue`: an ``async def`` in the event loop,
        a plain function in a thread. Arguments and result may be JSON types, dataclasses, TypedDicts,
        NamedTuples, enums, datetimes, UUID, Decimal, bytes, msgspec Structs and pydantic models, as the
        annotations say. A parameter annotated `Job` gets the job, one whose default is `Depends` its
        dependency; neither is an argument.

        Args:
            name: what workers know it by; default: the function's. A stored job keeps it, so that a new
                name is a new task.
            id: the id of its jobs, as a text or as a function of the task's arguments; default: a unique one.
            group: the group of its jobs, in the same way.
            max_attempts, result_ttl, priority: as for `Queue.enqueue`; default: the queue's.
            backoff: the pause before the next attempt; default: the queue's.
            timeout: seconds that one attempt may take; default: the queue's ``job_timeout``.
            expires: as for `Queue.enqueue`; default: its jobs start whenever a worker has time.

        Raises `InvalidArgumentError`, also for an annotation that cannot be stored, and `JobQueueError` if
        the queue has a task of that name.
        """
        options = _checked(id, group, max_attempts, backoff, timeout, priority, result_ttl, expires)
        if function is None:
            return partial(self._add, name=name, options=options)
        return self._add(function, name, options)

    def _add(self, function: Callable[..., Any], name: str | None, options: TaskOptions) -> Task[..., Any]:
        check_callable("function", function)
        if name is None:
            name = getattr(function, "__name__", None)
            if name is None or name == "<lambda>":
                raise InvalidArgumentError("name", f"{function!r} has none of its own: give one")
        check_id(name, "name")
        if name in self._tasks:
            raise JobQueueError(f"there is a task {name!r} already: give one of the two another name")
        from jobqueue.tasks.task import Task  # noqa: PLC0415 - it loads msgspec, for those who have tasks

        if isinstance(function, Task):
            raise InvalidArgumentError("function", f"is a task already: pass its function, {name}.function")
        task: Task[..., Any] = Task(function, self._host, name, options, threaded=not is_async(function))
        self._tasks[name] = task
        try:
            self._added()
        except BaseException:  # of a started queue in another loop: then nothing was registered
            del self._tasks[name]
            raise
        return task


def _checked(
    id: Text,
    group: Text,
    max_attempts: int | None,
    backoff: Backoff | None,
    timeout: float | None,
    priority: int,
    result_ttl: float | None,
    expires: float | None,
) -> TaskOptions:
    """Refuse what each job would be refused for."""
    for argument, text in (("id", id), ("group", group)):
        if isinstance(text, str):
            check_id(text, argument)
        elif text is not None:
            check_callable(argument, text)
    if backoff is not None and not isinstance(backoff, Backoff):
        raise InvalidArgumentError("backoff", "must be a Backoff, for example Backoff.fixed(1.0)")
    return TaskOptions(
        id=id,
        group=group,
        priority=check_priority(priority),
        max_attempts=None if max_attempts is None else check_count("max_attempts", max_attempts),
        result_ttl=None if result_ttl is None else check_seconds("result_ttl", result_ttl),
        timeout=None if timeout is None else check_seconds("timeout", timeout),
        backoff=backoff,
        expires=None if expires is None else check_seconds("expires", expires),
    )
