"""`Task`: a function of a queue whose calls can be jobs."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from jobqueue.client.results import EnqueueRequest, EnqueueResult, SyncEnqueueResult
from jobqueue.errors import InvalidArgumentError
from jobqueue.model.backoff import Backoff
from jobqueue.tasks.depends import Resolver
from jobqueue.tasks.options import OPTIONS, OPTIONS_OF_A_REQUEST, Options, TaskHost, TaskOptions
from jobqueue.tasks.signature import TaskSignature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from jobqueue.worker.job import Arguments, Job

__all__ = ["BoundTask", "SyncTask", "Task"]

A = ParamSpec("A")
R = TypeVar("R")


class Task(Generic[A, R]):
    """A function of a queue, called as it is or through jobs; made by `Queue.task`.

    Called directly it runs here and now, for tests and for other code. `enqueue`, `enqueue_and_wait` and
    `request` take the same arguments, checked against the signature before anything is stored.
    """

    def __init__(
        self, function: Callable[..., Any], host: TaskHost, name: str, options: TaskOptions, *, threaded: bool
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.name = name
        self.function = function
        self.threaded = threaded
        """Whether its jobs run in threads: the function is not asynchronous."""
        self.options = options
        self.signature = TaskSignature(function, name)
        self._host = host

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"

    async def __call__(self, *args: A.args, **kwargs: A.kwargs) -> R:
        """Run the function here, without a job; a plain one runs in a thread.

        Dependencies are passed like any argument; one that is left out raises `TypeError`.
        """
        self.signature.check_called_directly(args, kwargs)
        if self.threaded:
            value: Any = await asyncio.to_thread(self.function, *args, **kwargs)
        else:
            value = self.function(*args, **kwargs)
        result: R = await value if inspect.isawaitable(value) else value
        return result

    async def enqueue(self, *args: A.args, **kwargs: A.kwargs) -> EnqueueResult[R]:
        """Create a job that calls the function with these arguments, or find the one that has its id.

        Raises `TypeError` for arguments that do not fit the parameters, `InvalidArgumentError` for a value
        that does not fit its annotation, and what `Queue.enqueue` raises.
        """
        return await self._host.send(self.requested(args, kwargs, {}), None)

    async def enqueue_and_wait(self, *args: A.args, **kwargs: A.kwargs) -> R:
        """Create the job, join the live one or replay the ended one; return the result.

        Waits 30 seconds, or ``using(wait_timeout=...)``. Raises what `Queue.enqueue_and_wait` raises, and
        as `enqueue` for the arguments.
        """
        result: R = await self._host.send_and_wait(self.requested(args, kwargs, {}), 30.0)
        return result

    def request(self, *args: A.args, **kwargs: A.kwargs) -> EnqueueRequest:
        """Return the request for `Queue.enqueue_many`. Raises as `enqueue` does for the arguments."""
        return self.requested(args, kwargs, {})

    def using(self, **options: Unpack[Options]) -> BoundTask[A, R]:
        """Return the task with options for its next calls: ``send.using(delay=5.0).enqueue("a@b")``.

        The options of `Queue.enqueue`, and ``wait_timeout``, the seconds that `enqueue_and_wait` waits.
        They go before those of the declaration. Raises `InvalidArgumentError` for an unknown one.
        """
        return BoundTask(self, self._host, _checked(options))

    @property
    def sync(self) -> SyncTask[A, R]:
        """The calls of this task for code that is not asyncio: see `SyncTask`."""
        return SyncTask(self, self._host, {})

    def requested(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> EnqueueRequest:
        """Make the request of a call."""
        declared, signature = self.options, self.signature
        request = EnqueueRequest(
            None,
            signature.written(args, kwargs),
            declared.max_attempts,
            declared.result_ttl,
            priority=declared.priority,
            task=self.name,
            expires=declared.expires,
        )
        if declared.id is not None and options.get("id") is None:
            request = replace(request, id=signature.text(declared.id, args, kwargs))
        if declared.group is not None and "group" not in options:
            request = replace(request, group=signature.text(declared.group, args, kwargs))
        if options:
            given: dict[str, Any] = {name: options[name] for name in OPTIONS_OF_A_REQUEST if name in options}  # type: ignore[literal-required]
            if given.get("id", 0) is None:
                del given["id"]
            request = replace(request, **given)
        return request

    # -- running: see `jobqueue.worker.execution.Routine` -----------------------------------------

    @property
    def timeout(self) -> float | None:
        """Seconds that one attempt may take; ``None``: the queue's ``job_timeout``."""
        return self.options.timeout

    @property
    def backoff(self) -> Backoff | None:
        """The pause before the next attempt; ``None``: the queue's."""
        return self.options.backoff

    def read(self, payload: Any) -> Arguments:
        """Make the arguments of a job. Raises `SerializationError`."""
        return self.signature.read(payload)

    def written(self, result: Any) -> Any:
        """Return a result as the serde writes it. Raises `InvalidArgumentError`."""
        return self.signature.result.written(result)

    def read_result(self, plain: Any) -> Any:
        """Make the result that a serde has read. Raises `SerializationError`."""
        return self.signature.result.read(plain)

    @asynccontextmanager
    async def calling(self, job: Job[Any]) -> AsyncGenerator[Callable[[], Any]]:
        """Make the dependencies of a job, and give its call, which takes nothing."""
        async with Resolver(job) as resolver:
            injected = await resolver.injected(self.signature.maker)
            args, kwargs = self.signature.call(job.args, job.kwargs, injected)
            yield functools.partial(self.function, *args, **kwargs)


class BoundTask(Generic[A, R]):
    """A task with options for its calls; made by `Task.using`."""

    def __init__(self, task: Task[A, R], host: TaskHost, options: Options) -> None:
        self._task = task
        self._host = host
        self._options = options

    def __repr__(self) -> str:
        return f"<Task {self._task.name!r} using {', '.join(self._options)}>"

    async def enqueue(self, *args: A.args, **kwargs: A.kwargs) -> EnqueueResult[R]:
        """Create a job or find the one that has its id; see `Task.enqueue`."""
        request = self._task.requested(args, kwargs, self._options)
        return await self._host.send(request, self._options.get("connection"))

    async def enqueue_and_wait(self, *args: A.args, **kwargs: A.kwargs) -> R:
        """Create the job, join the live one or replay the ended one; see `Task.enqueue_and_wait`."""
        _check_unconnected(self._options, "commit first, then wait for what enqueue() returned")
        request = self._task.requested(args, kwargs, self._options)
        result: R = await self._host.send_and_wait(request, self._options.get("wait_timeout", 30.0))
        return result

    def request(self, *args: A.args, **kwargs: A.kwargs) -> EnqueueRequest:
        """Return the request for `Queue.enqueue_many`; see `Task.request`."""
        _check_unconnected(self._options, "give it to enqueue_many()")
        return self._task.requested(args, kwargs, self._options)

    def using(self, **options: Unpack[Options]) -> BoundTask[A, R]:
        """Return the task with more options."""
        return BoundTask(self._task, self._host, {**self._options, **_checked(options)})

    @property
    def sync(self) -> SyncTask[A, R]:
        """The calls of this task, with its options, for code that is not asyncio: see `SyncTask`."""
        return SyncTask(self._task, self._host, self._options)


class SyncTask(Generic[A, R]):
    """The calls of a task for code that is not asyncio; ``task.sync``.

    They are made as those of `SyncQueue` are, and raise the same.
    """

    def __init__(self, task: Task[A, R], host: TaskHost, options: Options) -> None:
        self._task = task
        self._host = host
        self._options = options

    def __repr__(self) -> str:
        return f"<SyncTask {self._task.name!r}>"

    def enqueue(self, *args: A.args, **kwargs: A.kwargs) -> SyncEnqueueResult[R]:
        """Create a job or find the one that has its id; see `Task.enqueue`."""
        request = self._task.requested(args, kwargs, self._options)
        return self._host.sync_send(request, self._options.get("connection"))

    def enqueue_and_wait(self, *args: A.args, **kwargs: A.kwargs) -> R:
        """Create the job, join the live one or replay the ended one; see `Task.enqueue_and_wait`."""
        _check_unconnected(self._options, "commit first, then wait for what enqueue() returned")
        request = self._task.requested(args, kwargs, self._options)
        result: R = self._host.sync_send_and_wait(request, self._options.get("wait_timeout", 30.0))
        return result

    def using(self, **options: Unpack[Options]) -> SyncTask[A, R]:
        """Return the task with more options; see `Task.using`."""
        return SyncTask(self._task, self._host, {**self._options, **_checked(options)})


def _checked(options: Options) -> Options:
    for name in options:
        if name not in OPTIONS:
            raise InvalidArgumentError(name, f"is no option of a task: {', '.join(sorted(OPTIONS))}")
    return options


def _check_unconnected(options: Options, remedy: str) -> None:
    if options.get("connection") is not None:
        raise InvalidArgumentError("connection", f"is an option of enqueue() only: {remedy}")
