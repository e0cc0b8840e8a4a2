"""Middleware: functions around a call, each of which may change its arguments and its result.

A middleware gets a value and ``call_next``. Calling that with the value goes on to the next middleware, and
from the last one to the call itself. The middleware that was added first is the outermost.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from jobqueue.errors import InvalidArgumentError

__all__ = ["CallNext", "Chain", "Middleware", "extended"]

T = TypeVar("T")
A = TypeVar("A")

CallNext = Callable[[T], Awaitable[A]]
Middleware = Callable[[T, CallNext[T, A]], Awaitable[A]]


class Chain(Generic[T, A]):
    """The middleware around one kind of call."""

    __slots__ = ("middleware",)

    def __init__(self, middleware: tuple[Middleware[T, A], ...]) -> None:
        self.middleware = middleware
        """Outermost first."""

    def around(self, call: CallNext[T, A]) -> CallNext[T, A]:
        """Return the call that goes through all middleware to ``call``."""
        for middleware in reversed(self.middleware):
            call = _step(middleware, call)
        return call


def _step(middleware: Middleware[T, A], call_next: CallNext[T, A]) -> CallNext[T, A]:
    def call(value: T) -> Awaitable[A]:
        return middleware(value, call_next)

    return call


def extended(chain: Chain[T, A] | None, kind: str, middleware: Middleware[T, A]) -> Chain[T, A]:
    """Return a chain with one more, innermost, middleware. Raises `InvalidArgumentError` if it is not async.

    ``kind`` names it in the error: ``around_run``. No middleware is no chain, so that it costs nothing.
    """
    call = getattr(type(middleware), "__call__", None)  # noqa: B004 - the method, to look into
    if not inspect.iscoroutinefunction(middleware) and not inspect.iscoroutinefunction(call):
        raise InvalidArgumentError(kind, "must be an async function of two arguments, the second call_next")
    return Chain((*(chain.middleware if chain is not None else ()), middleware))
