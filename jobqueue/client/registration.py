"""The functions that users register with a queue: its handler, middleware, listeners."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Generic, TypeVar, overload

from jobqueue.client.around import AroundEnqueue, Sender
from jobqueue.client.asking import Asking
from jobqueue.client.session import QueueSession
from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.events import Listener, QueueEvent, QueueEventName
from jobqueue.middleware import Chain, extended
from jobqueue.model.checks import check_names
from jobqueue.model.generics import P, R
from jobqueue.runtime.identity import Identity
from jobqueue.worker.execution import AroundRun, Execution, Handler, Routine, is_async
from jobqueue.worker.job import Job
from jobqueue.worker.options import WorkerOptions

__all__ = ["Registration"]

H = TypeVar("H", bound=Callable[..., Any])
E = TypeVar("E", bound=QueueEvent)
Answer = TypeVar("Answer", bound=Awaitable[None] | None)


class Registration(Asking[R], Generic[P, R]):
    """A part of `Queue`, which sets what is declared here."""

    _identity: Identity
    _options: WorkerOptions
    _handler: Handler[P, R] | None = None
    _threaded = False
    _tasks: Mapping[str, Routine]
    _produces_only = False
    _only: frozenset[str] | None = None
    """The tasks that are served, if all other jobs are left to other workers."""
    _around_run: Chain[Job[Any], Any] | None = None
    _around_enqueue: Sender | None = None

    @property
    def handler(self) -> Handler[P, R] | None:
        """The registered handler, ``None`` if this object only produces."""
        return self._handler

    @overload
    def execute(
        self, handler: Callable[[Job[P]], Coroutine[Any, Any, R]]
    ) -> Callable[[Job[P]], Coroutine[Any, Any, R]]: ...
    @overload
    def execute(self, handler: Callable[[Job[P]], Awaitable[R]]) -> Callable[[Job[P]], Awaitable[R]]: ...
    @overload
    def execute(self, handler: Callable[[Job[P]], R]) -> Callable[[Job[P]], R]: ...
    def execute(self, handler: Any) -> Any:
        """Register the handler of this queue, before or after `start`; also a decorator.

        An ``async def`` runs in the event loop; a plain function runs in a thread for each job. After
        `start` the worker begins in the background: while the store refuses, it tries again every second.
        Raises `JobQueueError` if there is one already.
        """
        threaded = not is_async(handler)
        if self._handler is not None:
            raise JobQueueError(
                f"queue {self.name!r} has a handler already: use another queue for another job"
            )
        self._check_loop()
        session = None if self._session is None else self._started()
        self._handler = handler
        self._threaded = threaded
        if session is not None:
            session.handle(handler, threaded=threaded)
            self._work_soon(session)
        return handler

    def around_run(self, middleware: AroundRun[P, R]) -> AroundRun[P, R]:
        """Run every attempt of a job here inside of ``async def middleware(job, call_next)``; a decorator.

        ``await call_next(job)`` goes on, to the handler in the end, and returns its result; what the
        middleware returns is the result of the attempt, and what it raises is its error. It sees the
        cancellation of an attempt as the handler does, and its time counts for ``job_timeout``. Without
        ``call_next`` the handler is not called; a second call is an error. The first that is added is the
        outermost.

        Only before `start`, so that no two attempts here differ: else raises `JobQueueError`. Raises
        `InvalidArgumentError` for what is not an async function.
        """
        self._check_unstarted()
        self._around_run = extended(self._around_run, "around_run", middleware)
        return middleware

    def around_enqueue(self, middleware: AroundEnqueue) -> AroundEnqueue:
        """Send enqueued requests through ``async def middleware(requests, call_next)``; a decorator.

        ``requests`` are the jobs of one `enqueue`, `enqueue_many` or `enqueue_and_wait`, as a sequence of
        `EnqueueRequest` with their ids. ``await call_next(requests)`` goes on, in the end to the store, and
        returns a list of `EnqueueResult`, which the middleware returns. It may pass on changed requests,
        made by `dataclasses.replace`, except for the ids; raise, to refuse all; pass on a part, or nothing,
        and answer the rest itself. Sending twice is safe. The first that is added is the outermost.

        Only before `start`, and before the first use of ``queue.sync``: else raises `JobQueueError`. Raises
        `InvalidArgumentError` for what is not an async function.
        """
        self._check_unstarted()
        self._check_sync_unused()
        standing = None if self._around_enqueue is None else self._around_enqueue.chain
        chain = extended(standing, "around_enqueue", middleware)
        self._around_enqueue = Sender(chain, self._builder, self._enqueued, self._outcome)
        return middleware

    @overload
    def on(self, name: type[E], listener: Listener[E]) -> Callable[[], None]: ...
    @overload
    def on(self, name: type[E]) -> Callable[[Callable[[E], Answer]], Callable[[E], Answer]]: ...
    @overload
    def on(self, name: QueueEventName, listener: Listener[Any]) -> Callable[[], None]: ...
    @overload
    def on(self, name: QueueEventName) -> Callable[[H], H]: ...
    def on(self, name: Any, listener: Listener[Any] | None = None) -> Callable[..., Any]:
        """Call ``listener(event)``, sync or async, at every event of that name or class.

        Returns a function that removes the listener; without a listener, a decorator. The class, as in
        ``on(JobCompleted, listener)``, lets a type checker see what the listener gets. A listener that
        raises is logged and harms nobody. Raises `InvalidArgumentError` for an unknown event.
        """
        if listener is not None:
            return self._emitter.on(name, listener)

        def register(function: H) -> H:
            self._emitter.on(name, function)
            return function

        return register

    # -- for the other parts of the queue -------------------------------------------------------------

    def _check_sync_unused(self) -> None:
        """Raise `JobQueueError` if a producer that has taken its middleware from here is at work."""
        raise NotImplementedError

    @property
    def _works(self) -> bool:
        """Whether there is something to run here, and it was not started to produce only."""
        return not self._produces_only and (self._handler is not None or bool(self._tasks))

    def _work_soon(self, session: QueueSession) -> None:
        """Begin to work in the background, if this has not begun."""
        if self._works and not session.works:
            execution = self._execution(session)
            session.reserve(execution)
            session.supervisor.spawn(session.work_soon(execution, self._options), "start-worker")

    def _served(self) -> Mapping[str, Routine]:
        if self._only is None:
            return self._tasks  # itself: more may come
        return {name: self._tasks[name] for name in self._only}

    def _check_tasks(self, tasks: Iterable[str]) -> frozenset[str]:
        names = check_names("tasks", tasks)
        for name in names:
            if name not in self._tasks:
                known = ", ".join(self._tasks)
                raise InvalidArgumentError(
                    "tasks", f"{name!r} is no task of queue {self.name!r}, which has {known or 'none'}"
                )
        return frozenset(names)

    def _execution(self, session: QueueSession) -> Execution:
        return Execution(
            queue=self.name,
            worker_id=self._identity.name,
            handler=self._handler if self._only is None else None,
            tasks=self._served(),
            only=self._only,
            handler_patience=self._options.handler_patience,
            payload_serde=self._builder.serde,
            result_serde=self._result_serde,
            max_bytes=self._builder.max_bytes,
            backoff=self._options.backoff,
            uniform=self._storage.clock.uniform,
            hook=self._options.hook,
            tracebacks=self._options.tracebacks,
            on_progress=session.report_progress,
            on_saved=session.save,
            begin=session.begin,
            on_error=session.report,
            threaded=self._threaded,
            around=self._around_run,
        )
