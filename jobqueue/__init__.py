"""A job queue with request/response, over stores that behave alike.

`Queue` is where to start; the names of `jobqueue.public` are the whole public interface, with
`jobqueue.testing` for those who write a store of their own.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as `typing` has it, whose loading would take longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from jobqueue.public import *  # noqa: F403 - what it lists is what this package exports
    from jobqueue.public import __all__ as __all__

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the interface when a name of it is asked for.

    The command line imports this package before it can handle Ctrl-C, so this has to take no time.
    """
    public = importlib.import_module("jobqueue.public")
    if name in globals():  # a module, which is loaded by now
        return globals()[name]
    if name in {*public.__all__, "__all__"}:
        return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
