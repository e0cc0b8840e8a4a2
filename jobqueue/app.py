"""`App`: several queues and a reaper in one process, on one store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, get_args, overload

from jobqueue.app_session import AppSession, AppWeb
from jobqueue.errors import InvalidArgumentError, JobQueueError
from jobqueue.events import Event, Listener, QueueEvent, ReaperEvent
from jobqueue.maintenance.leadership import LeaderElection
from jobqueue.maintenance.reaper import Reaper
from jobqueue.model.checks import (
    check_bool,
    check_callable,
    check_count,
    check_id,
    check_names,
    check_seconds,
)
from jobqueue.queue import Queue
from jobqueue.runtime.lifecycle import Service, check_unstarted, is_started
from jobqueue.runtime.loops import Home
from jobqueue.runtime.tasks import all_at_once
from jobqueue.storage.contract import Storage
from jobqueue.storage.urls import as_storage, made_from_one_url
from jobqueue.worker.options import MAX_CONCURRENCY

__all__ = ["App", "AppWeb", "reaper_of"]

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])

_QUEUE_EVENTS: dict[str, type[Event]] = {kind.name: kind for kind in get_args(QueueEvent)}
_REAPER_EVENTS: dict[str, type[Event]] = {kind.name: kind for kind in get_args(ReaperEvent)}


class App(Service[AppSession]):
    """Several queues and a reaper on one store, which start, serve and stop together.

    Use it as a context manager, call `run`, or name it to the command: ``jobqueue worker MODULE:app``.
    One process then has one connection for the calls of all its queues, and one thread for their leases.

    Args:
        storage: a store, or a URL for `open_storage`; ``None``: the URL in ``JOBQUEUE_STORAGE``.
        queues: `Queue` objects with different names, on that store: made with the same object, or with the
            same URL, in which case they are given the object of the app.
        reaper: ``True``: be the reaper of the store, while no other worker or reaper leads; ``False``: have
            none; or a `Reaper` on that store, with options of its own.
        web: a `jobqueue.web.DashboardServer`, which shows these queues; ``None``: serve no dashboard.

    Raises `InvalidArgumentError`.
    """

    def __init__(
        self,
        storage: Storage | str | None = None,
        queues: Iterable[Queue[Any, Any]] = (),
        *,
        reaper: Reaper | bool = True,
        web: AppWeb | None = None,
    ) -> None:
        super().__init__("this app", "App")
        self._storage = as_storage(storage)
        self._queues = _checked(queues)
        self._working = self._queues
        for queue in self._queues:
            _adopt(self._storage, queue, "queues", f"queue {queue.name!r}")
        if isinstance(reaper, Reaper):
            _adopt(self._storage, reaper, "reaper", "the reaper")
            self._reaper, self._reaps = reaper, True
        else:
            # Made in any case: listeners and `configure` find it there.
            self._reaper = Reaper(self._storage, leader_election=LeaderElection())
            self._reaps = check_bool("reaper", reaper)
        self._web = web
        if web is not None:
            _show(web, self)
        self._check_has_parts()

    def __repr__(self) -> str:
        names = ", ".join(queue.name for queue in self._queues) or "no queue"
        return f"<App of {names} on {self._storage!r}, {'started' if self._session else 'stopped'}>"

    @property
    def storage(self) -> Storage:
        """The store of this app."""
        return self._storage

    @property
    def queues(self) -> tuple[Queue[Any, Any], ...]:
        """The queues, in the order given."""
        return self._queues

    @property
    def working(self) -> tuple[Queue[Any, Any], ...]:
        """The queues whose jobs are run here: all, unless `configure` said otherwise. The others produce."""
        return self._working

    @property
    def reaper(self) -> Reaper | None:
        """The reaper, ``None`` if this app has none."""
        return self._reaper if self._reaps else None

    @property
    def web(self) -> AppWeb | None:
        """The dashboard that is served with this app, ``None`` if there is none."""
        return self._web

    def configure(
        self,
        *,
        storage: Storage | str | None = None,
        concurrency: int | None = None,
        worker_id: str | None = None,
        reaper: bool | None = None,
        queues: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        web: bool | None = None,
    ) -> None:
        """Replace arguments of this app and of its queues, as a command line does; only before `start`.

        ``queues`` are names of queues of this app: only these work here, the others only produce. ``tasks``
        are names of tasks of these: as for `Queue.configure`, and queues that have none of them only
        produce. With ``web=False`` no dashboard is served.

        Raises `InvalidArgumentError`, and `JobQueueError` if the app is started.
        """
        self._check_unstarted()
        for queue in self._queues:
            check_unstarted(queue)
        check_unstarted(self._reaper)
        self._check_given(concurrency, worker_id, reaper=reaper, web=web)
        working = self._working if queues is None else self._check_queues(queues)
        if tasks is not None:
            working = _restrict(working, check_names("tasks", tasks))
        self._working = working
        if storage is not None:
            self._storage = as_storage(storage)
            self._reaper.configure(storage=self._storage)
        for queue in self._queues:
            given = None if storage is None else self._storage
            queue.configure(storage=given, concurrency=concurrency, worker_id=worker_id)
        if reaper is not None:
            self._reaps = reaper
        if web is False:
            self._web = None
        self._check_has_parts()

    @overload
    def on(self, name: type[E], listener: Listener[E]) -> Callable[[], None]: ...
    @overload
    def on(self, name: type[E]) -> Callable[[F], F]: ...
    @overload
    def on(self, name: str, listener: Listener[Any]) -> Callable[[], None]: ...
    @overload
    def on(self, name: str) -> Callable[[F], F]: ...
    def on(self, name: Any, listener: Listener[Any] | None = None) -> Callable[..., Any]:
        """Call ``listener(event)`` at every event of that class or name, of any queue and of the reaper.

        Returns a function that removes the listener; without a listener, a decorator. Otherwise as
        `Queue.on`. Raises `InvalidArgumentError` for an unknown event.
        """
        if listener is not None:
            return self._listen(name, listener)

        def register(function: F) -> F:
            self._listen(name, function)
            return function

        return register

    def _listen(self, name: Any, listener: Listener[Any]) -> Callable[[], None]:
        check_callable("listener", listener)
        sources: list[Any] = [*self._queues] if _known(_QUEUE_EVENTS, name) else []
        sources += [self._reaper] if _known(_REAPER_EVENTS, name) else []
        if not sources and not _known(_QUEUE_EVENTS, name):
            known = ", ".join(_QUEUE_EVENTS | _REAPER_EVENTS)
            raise InvalidArgumentError("name", f"must be one of {known}, not {name!r}")
        removers: list[Callable[[], None]] = [source.on(name, listener) for source in sources]

        def remove() -> None:
            for each in removers:
                each()

        return remove

    # -- life ------------------------------------------------------------------------------------------

    async def stop(self, timeout: float | None = None) -> None:
        """Stop all queues at the same time, as `Queue.stop` does, and the reaper.

        ``timeout`` in seconds is one bound for all of them. Does nothing if not started.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True)
        await self._stop(timeout)

    async def until_broken(self) -> None:
        """Wait until a queue or the reaper fails in a way only a restart can fix, and raise that error.

        Returns when the app is stopped. It also stops when others have stopped every queue of it.
        """
        session = self._session
        if session is None:
            return
        self._check_loop()
        self._check_sound(session)
        await session.until_stopped()
        await self._stop(only=session)

    async def until_empty(self) -> None:
        """Wait until no job of the queues that work here is ready, and none runs here.

        Jobs that are scheduled for later, or wait for a retry, do not count. It asks the store itself, so
        that jobs which running ones enqueue are run, too. Returns at once if the app is not started.
        """
        session = self._session
        if session is not None:
            self._check_loop()
            await session.until_empty()

    async def _begin(self, home: Home) -> AppSession:
        started: list[Queue[Any, Any] | Reaper | AppWeb] = []
        try:
            if self._web is not None:  # first: an address that is taken ends the start before any job runs
                await self._web.start()
                started.append(self._web)
            for part in self._parts():
                if is_started(part):  # by somebody else, whose it is until this app has started as a whole
                    continue
                produces = isinstance(part, Queue) and part not in self._working
                await (part.start(work=False) if produces and isinstance(part, Queue) else part.start())
                started.append(part)
        except BaseException:
            # At once: what has begun to run belongs to no app that would wait for it.
            await all_at_once(
                [part.stop(0.0) if isinstance(part, Queue) else part.stop() for part in started]
            )
            raise
        return AppSession(home, self._queues, self._working, self.reaper, self._web)

    def _parts(self) -> list[Queue[Any, Any] | Reaper]:
        return [*self._queues, *([self._reaper] if self._reaps else [])]

    def _check_given(
        self, concurrency: int | None, worker_id: str | None, *, reaper: bool | None, web: bool | None
    ) -> None:
        if concurrency is not None:
            check_count("concurrency", concurrency, high=MAX_CONCURRENCY)
        if worker_id is not None:
            check_id(worker_id, "worker_id")
        if reaper is not None:
            check_bool("reaper", reaper)
        if web is not None and check_bool("web", web) and self._web is None:
            raise InvalidArgumentError("web", "this app has no dashboard: make it with web=DashboardServer()")

    def _check_queues(self, names: Iterable[str]) -> tuple[Queue[Any, Any], ...]:
        wanted = check_names("queues", names)
        known = [queue.name for queue in self._queues]
        for name in wanted:
            if name not in known:
                raise InvalidArgumentError("queues", f"{name!r} is none of {', '.join(known) or 'no queues'}")
        return tuple(queue for queue in self._queues if queue.name in wanted)

    def _check_has_parts(self) -> None:
        if not self._parts() and self._web is None:
            raise InvalidArgumentError("queues", "must not be empty without a reaper: there is nothing to do")


def reaper_of(app: App) -> Reaper:
    """Return the reaper that an app has, or would have if `App.configure` gave it one."""
    return app._reaper  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _show(web: AppWeb, app: App) -> None:
    """Have a dashboard show an app. Raises `InvalidArgumentError` for what is none."""
    if not callable(getattr(web, "show", None)):
        raise InvalidArgumentError(
            "web", f"must be a jobqueue.web.DashboardServer, not {type(web).__name__}, or None"
        )
    web.show(app)


def _checked(queues: Iterable[Queue[Any, Any]]) -> tuple[Queue[Any, Any], ...]:
    if not isinstance(queues, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError("queues", f"must be Queue objects, not {type(queues).__name__}")
    checked: dict[str, Queue[Any, Any]] = {}
    for queue in queues:
        if not isinstance(queue, Queue):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgumentError(
                "queues",
                f"must be Queue objects, not {queue!r:.100}: an app runs queues, with their handlers",
            )
        if queue.name in checked:
            raise InvalidArgumentError(
                "queues",
                f"two are named {queue.name!r}: give them different names, or use one with more concurrency",
            )
        checked[queue.name] = queue
    return tuple(checked.values())


def _adopt(storage: Storage, part: Queue[Any, Any] | Reaper, argument: str, label: str) -> None:
    """Put a part on the store of the app, if it names the same one. Raises `InvalidArgumentError`."""
    if part.storage is storage:
        return
    if not made_from_one_url(part.storage, storage):
        raise InvalidArgumentError(
            argument,
            f"{label} is on {part.storage!r}, and the app on {storage!r}: make them with one object, "
            "as in storage = open_storage(url), or use an app for each store",
        )
    try:
        part.configure(storage=storage)
    except JobQueueError as error:
        raise InvalidArgumentError(argument, f"{label} is started already: make the app before") from error


def _restrict(queues: Sequence[Queue[Any, Any]], tasks: Sequence[str]) -> tuple[Queue[Any, Any], ...]:
    """Have queues serve only these tasks; return those that have some of them."""
    having = {queue: [name for name in tasks if name in queue.task] for queue in queues}
    for name in tasks:
        if not any(name in known for known in having.values()):
            every = ", ".join(known for queue in queues for known in queue.task)
            raise InvalidArgumentError("tasks", f"{name!r} is none of the tasks here: {every or 'none'}")
    for queue, known in having.items():
        if known:
            queue.configure(tasks=known)
    return tuple(queue for queue, known in having.items() if known)


def _known(kinds: dict[str, type[Event]], name: Any) -> bool:
    return any(name is kind or name == text for text, kind in kinds.items())
