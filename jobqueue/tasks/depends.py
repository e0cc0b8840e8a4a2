"""Dependencies of a task: what it needs beside its arguments, made for each job by functions.

A dependency is a function, plain or asynchronous, or a generator of one value, whose end runs after the
job. It may take the job and have dependencies of its own. Within a job each is made once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from jobqueue.model.checks import check_callable

__all__ = ["Dependency", "Depends", "Maker", "Resolver"]


@dataclass(frozen=True, slots=True)
class Dependency:
    """A parameter's default that names the function which makes its value."""

    function: Callable[..., Any]


def Depends(function: Callable[..., Any]) -> Any:  # noqa: N802 - stands where a value stands
    """Make a parameter of a task come from ``function`` instead of from the job's arguments.

    Use it as the default: ``async def send(to: str, pool: Pool = Depends(get_pool))``. ``function`` is
    called once per job, also if several parameters name it: plain, ``async def``, or a generator, whose
    end runs after the job, in reverse order. A parameter of it that is annotated `Job` gets the job, one
    with a default of `Depends` its own dependency. What it raises is the error of the attempt.

    Raises `InvalidArgumentError` if it cannot be called.
    """
    check_callable("function", function)
    return Dependency(function)


@dataclass(frozen=True, slots=True)
class Maker:
    """How a function is called with what is injected into it."""

    function: Callable[..., Any]
    job_names: tuple[str, ...]
    """Parameters that get the job."""
    makers: tuple[tuple[str, Maker], ...]
    """Parameters that are made by others."""


class Resolver:
    """Makes the dependencies of one job, and ends them with it."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._made: dict[Callable[..., Any], Any] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def injected(self, maker: Maker) -> dict[str, Any]:
        """Return the injected parameters of a function, by name."""
        values: dict[str, Any] = dict.fromkeys(maker.job_names, self._job)
        for name, needed in maker.makers:
            values[name] = await self._value(needed)
        return values

    async def _value(self, maker: Maker) -> Any:
        if maker.function in self._made:
            return self._made[maker.function]
        function, injected = maker.function, await self.injected(maker)
        called = function if inspect.isroutine(function) else getattr(type(function), "__call__", None)  # noqa: B004
        if inspect.isasyncgenfunction(called):
            value = await self._stack.enter_async_context(asynccontextmanager(function)(**injected))
        elif inspect.isgeneratorfunction(called):
            value = self._stack.enter_context(contextmanager(function)(**injected))
        else:
            value = function(**injected)
            if inspect.isawaitable(value):
                value = await value
        self._made[function] = value
        return value
