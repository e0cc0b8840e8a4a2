"""Loads the queues, or the app, that ``MODULE:QUEUE`` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from jobqueue.app import App
from jobqueue.cli.banner import store_name
from jobqueue.cli.exits import Failure
from jobqueue.cli.options import ledger_url
from jobqueue.queue import Queue
from jobqueue.storage.urls import made_from_one_url, open_storage

__all__ = ["load_app", "working_directory"]

_EXAMPLE = "for example `jobqueue worker tasks:queue` for the object `queue` of tasks.py"


def load_app(targets: Sequence[str], url: str | None) -> tuple[App, str]:
    """Import what the targets name, and return it as an app, on the store of ``url`` if there is one.

    Also returns the name of the store that it was made with. Raises a `Failure` that names the fault.
    """
    found = {target: _load(target) for target in targets}
    apps = [target for target, made in found.items() if isinstance(made, App)]
    if apps and len(targets) > 1:
        raise Failure.usage(f"{apps[0]} is an App, which has queues of its own: name it alone")
    if apps:
        app = found[apps[0]]
        assert isinstance(app, App)
        own_store = store_name(app.storage)
        app.configure(storage=None if url is None else open_storage(url, ledger_url()))
        return app, own_store
    queues = {target: made for target, made in found.items() if isinstance(made, Queue)}
    _check_names(targets, queues)
    storage = queues[targets[0]].storage
    own_store = store_name(storage)
    if url is not None:
        storage = open_storage(url, ledger_url())
        for queue in queues.values():
            queue.configure(storage=storage)
    for target, queue in queues.items():
        if queue.storage is not storage and not made_from_one_url(queue.storage, storage):
            raise Failure.usage(
                f"{targets[0]} is on {store_name(storage)} and {target} on {store_name(queue.storage)}: "
                "name one store with --storage, give them one object in the code, or start a worker for each"
            )
    return App(storage, queues.values()), own_store


def _check_names(targets: Sequence[str], queues: Mapping[str, Queue[Any, Any]]) -> None:
    by_name: dict[str, str] = {}
    for target in targets:
        name = queues[target].name
        if name in by_name:
            raise Failure.usage(
                f"{by_name[name]} and {target} are both named {name!r}: name one of them, with --concurrency"
            )
        by_name[name] = target


def _load(target: str) -> Queue[Any, Any] | App:
    """Import the module, with the working directory on the path, and return its queue or app."""
    name, colon, path = target.partition(":")
    if name.endswith(".py"):
        raise Failure.usage(f"{name!r} is a file, not the name of a module: {_EXAMPLE}")
    if not (name and colon and path):
        raise Failure.usage(f"{target!r} is not MODULE:QUEUE, {_EXAMPLE}")
    module = _import(name)
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise Failure.usage(f"{name} has no {path!r}{_suggestion(module)}") from None
    if isinstance(found, App):
        if not any(_has_work(queue) for queue in found.queues):
            raise Failure.usage(
                f"no queue of {target} has a handler or a task: decorate a function "
                "with @QUEUE.execute or @QUEUE.task"
            )
        return found
    if not _is_queue(found):
        kind = type(found).__name__
        raise Failure.usage(f"{target} is a {kind}, not a jobqueue.Queue or App{_suggestion(module)}")
    if not _has_work(found):
        raise Failure.usage(
            f"{target} has no handler and no task: decorate a function with @{path}.execute or @{path}.task"
        )
    return found


def _has_work(queue: Queue[Any, Any]) -> bool:
    return queue.handler is not None or bool(queue.task)


def working_directory() -> Path:
    """Return the working directory. Raises a `Failure` if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise Failure.usage("the working directory was removed: change to another one") from None


def _is_queue(value: object) -> TypeGuard[Queue[Any, Any]]:
    return isinstance(value, Queue)


def _import(name: str) -> ModuleType:
    here = str(working_directory())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure.usage(
                f"no module named {error.name!r} in {here} or on the Python path, {_EXAMPLE}"
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> Failure:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and Path(frame.filename) not in _OWN_FILES
    ]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" at {error.filename}:{error.lineno}"
    return Failure.usage(f"importing {name!r} raised {type(error).__name__}: {error}{where}")


_OWN_FILES = {Path(__file__), Path(importlib.__file__)}


def _suggestion(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Queue | App)]
    return f": its queues are {', '.join(sorted(names))}" if names else ""
