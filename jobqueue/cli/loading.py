"""Loads the queue object that ``MODULE:QUEUE`` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from jobqueue.cli.exits import Failure
from jobqueue.queue import Queue

__all__ = ["load_queue", "working_directory"]

_EXAMPLE = "for example `jobqueue worker tasks:queue` for the object `queue` of tasks.py"


def load_queue(target: str) -> Queue[Any, Any]:
    """Import the module, with the working directory on the path, and return its queue.

    Raises a `Failure` that names the fault of ``target``.
    """
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
    if not _is_queue(found):
        kind = type(found).__name__
        raise Failure.usage(f"{target} is a {kind}, not a jobqueue.Queue{_suggestion(module)}")
    if found.handler is None:
        raise Failure.usage(f"{target} has no handler: decorate a function with @{path}.execute")
    return found


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
    names = [name for name, value in vars(module).items() if isinstance(value, Queue)]
    return f": its queues are {', '.join(sorted(names))}" if names else ""
