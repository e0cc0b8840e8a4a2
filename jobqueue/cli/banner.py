"""The first line of a worker or reaper: its work, its store and the origin of that, its process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from jobqueue.app import App
from jobqueue.cli.client import is_missing
from jobqueue.queue import Queue
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Storage
from jobqueue.storage.file import FileStorage
from jobqueue.storage.urls import STORAGE_VARIABLE, redact

__all__ = ["fleet_banner", "reaper_banner", "store_name", "worker_banner"]

log = get_logger("jobqueue.cli")


def worker_banner(targets: Sequence[str], app: App, own_store: str, tasks: Sequence[str] = ()) -> None:
    """Log the work of a worker. ``own_store`` is the name of the store that its queues were made with.

    ``tasks`` are those that it serves, if not all.
    """
    store, reaper = _worker_store(app.storage, own_store), "with a" if app.reaper else "without a"
    if len(app.working) == 1:
        queue = app.working[0]
        log.info(
            "worker of %s: queue %s on %s, concurrency %d, %s, %s reaper, pid %d",
            " ".join(targets), queue.name, store, queue.concurrency, _work(queue, tasks), reaper, os.getpid(),
            extra={"queue": queue.name, "worker_id": queue.worker_id},
        )  # fmt: skip
        return
    queues = [
        f"{queue.name} (concurrency {queue.concurrency}, {_work(queue, tasks)})" for queue in app.working
    ]
    log.info("worker of %s: queues %s on %s, %s reaper, pid %d",
             " ".join(targets), ", ".join(queues), store, reaper, os.getpid())  # fmt: skip


def _work(queue: Queue[Any, Any], only: Sequence[str]) -> str:
    """Name the handler and the tasks of a queue, or those to which it is limited."""
    if only:
        names = [name for name in queue.task if name in only]
        return f"only {'task' if len(names) == 1 else 'tasks'} {', '.join(names)}"
    work: list[str] = []
    if queue.handler is not None:
        work.append(f"handler {getattr(queue.handler, '__qualname__', repr(queue.handler))}")
    if queue.task:
        work.append(f"{'task' if len(queue.task) == 1 else 'tasks'} {', '.join(queue.task)}")
    return " and ".join(work) or "no handler"


def fleet_banner(targets: Sequence[str], processes: int, storage: str | None) -> None:
    """Log the work of the parent of worker processes; their own lines say more."""
    store = "the queue's own store" if storage is None else f"{redact(storage)} ({_source()})"
    log.info("%d worker process%s of %s on %s, pid %d", processes, "" if processes == 1 else "es",
             " ".join(targets), store, os.getpid())  # fmt: skip


def reaper_banner(storage: Storage, queues: Sequence[str], interval: float, *, election: bool) -> None:
    """Log the work of a reaper."""
    log.info(
        "reaper of %s on %s (%s), sweeps every %g s %s, pid %d",
        f"queues {', '.join(queues)}" if queues else "all queues", store_name(storage), _source(), interval,
        "while it leads" if election else "without an election", os.getpid(),
    )  # fmt: skip


def store_name(storage: Storage) -> str:
    """Return a name of a store without secrets, and whether it is made only now."""
    name = f"file://{storage.path}" if isinstance(storage, FileStorage) else repr(storage)
    return f"the new {name}" if is_missing(storage) else name


def _worker_store(storage: Storage, own: str) -> str:
    name, source = store_name(storage), _source()
    instead = f" instead of the queue's own {own}" if source and own != name else ""
    return f"{name} ({source or 'as its code says'}{instead})"


def _source() -> str:
    """Return the origin of the store's URL; "" if none was given to the command."""
    match click.get_current_context().get_parameter_source("storage"):
        case ParameterSource.COMMANDLINE:
            return "from --storage"
        case ParameterSource.ENVIRONMENT:
            return f"from {STORAGE_VARIABLE}"
        case _:
            return ""
