"""What a task's function takes: arguments that are stored, and what is injected when it runs."""

from __future__ import annotations

import functools
import inspect
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, TypeGuard

from jobqueue.errors import InvalidArgumentError, SerializationError
from jobqueue.tasks.conversion import Converter
from jobqueue.tasks.depends import Dependency, Maker
from jobqueue.worker.job import Arguments, Job

__all__ = ["TaskSignature"]

_EMPTY = inspect.Parameter.empty
_LISTED = inspect.Parameter.VAR_POSITIONAL
_NAMED = inspect.Parameter.VAR_KEYWORD


class TaskSignature:
    """The parameters of a function and its result, with their converters."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        """Raise `InvalidArgumentError` for annotations that cannot be resolved or stored."""
        self.name = name
        self._whole, hints = _described(function, name)
        self.maker, injected = _maker(function, self._whole, hints, ())
        """How the function gets what is injected."""
        self._stored = self._whole.replace(
            parameters=[one for one in self._whole.parameters.values() if one.name not in injected]
        )
        self._converters = {
            parameter: Converter(hints.get(parameter, _EMPTY), f"{name}({parameter})")
            for parameter in self._stored.parameters
        }
        self.result = Converter(hints.get("return", _EMPTY), f"the result of {name}()")

    def written(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments of a call as the serde writes them.

        Raises `TypeError` if they do not fit the parameters, `InvalidArgumentError` if one does not fit its
        annotation.
        """
        return self._each(self._bound(args, kwargs), "written")

    def text(self, given: str | Callable[..., str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return a text, or what a function of the arguments of a call, with their defaults, says it is."""
        if isinstance(given, str):
            return given
        bound = self._bound(args, kwargs)
        bound.apply_defaults()
        return given(*bound.args, **bound.kwargs)

    def read(self, payload: Any) -> Arguments:
        """Make the arguments of a stored call.

        Raises `SerializationError` if they do not fit the function as it is now.
        """
        args, kwargs = _parts(payload)
        if args is None or kwargs is None:
            raise SerializationError(f"the payload holds no arguments of {self.name}()")
        try:
            bound = self._bound(tuple(args), kwargs)
        except TypeError as error:
            raise SerializationError(f"the stored arguments do not fit: {error}") from error
        return self._each(bound, "read")

    def call(
        self, args: Iterable[Any], kwargs: Mapping[str, Any], injected: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the function is called with."""
        bound = self._stored.bind(*args, **kwargs)
        if injected:
            bound = inspect.BoundArguments(self._whole, OrderedDict({**bound.arguments, **injected}))
        return bound.args, bound.kwargs

    def check_called_directly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `TypeError` for a direct call that leaves a dependency out."""
        try:
            given = self._whole.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        for parameter, _ in self.maker.makers:
            if parameter not in given:
                raise TypeError(
                    f"{self.name}(): a direct call passes its dependencies: {parameter!r} is missing"
                )

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        try:
            return self._stored.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None

    def _each(self, bound: inspect.BoundArguments, way: typing.Literal["written", "read"]) -> Arguments:
        for name, value in bound.arguments.items():
            convert = getattr(self._converters[name], way)
            kind = self._stored.parameters[name].kind
            if kind is _LISTED:
                bound.arguments[name] = tuple(convert(one) for one in value)
            elif kind is _NAMED:
                bound.arguments[name] = {key: convert(one) for key, one in value.items()}
            else:
                bound.arguments[name] = convert(value)
        return {"args": list(bound.args), "kwargs": bound.kwargs}


def _described(function: Callable[..., Any], name: str) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return a signature and its annotations, without those of dependencies: nobody needs these."""
    called: Any = function
    while isinstance(called, functools.partial):
        called = called.func
    if inspect.isclass(called):
        called = called.__init__
    elif not inspect.isroutine(called):
        called = type(called).__call__
    called = inspect.unwrap(called)
    try:
        signature = inspect.signature(function)
        stated = {
            parameter: annotation
            for parameter, annotation in inspect.get_annotations(called).items()
            if parameter not in signature.parameters
            or not isinstance(signature.parameters[parameter].default, Dependency)
        }
        hints = typing.get_type_hints(
            SimpleNamespace(__annotations__=stated), getattr(called, "__globals__", None), include_extras=True
        )
    except (NameError, TypeError, ValueError) as error:
        raise InvalidArgumentError(
            name, f"has annotations that cannot be resolved: {error}. Import what they name at run time"
        ) from error
    return signature, hints


def _maker(
    function: Callable[..., Any],
    signature: inspect.Signature,
    hints: dict[str, Any],
    within: tuple[Callable[..., Any], ...],
) -> tuple[Maker, set[str]]:
    """Find what is injected into a function; ``within`` are those that it is made for."""
    job_names: list[str] = []
    makers: list[tuple[str, Maker]] = []
    for name, parameter in signature.parameters.items():
        annotation = hints.get(name)
        if isinstance(parameter.default, Dependency):
            needed = parameter.default.function
            if needed in within:
                raise InvalidArgumentError(name, f"depends on itself: {needed!r}")
            makers.append((name, _dependency(needed, name, (*within, needed))))
        elif annotation is Job or typing.get_origin(annotation) is Job:
            job_names.append(name)
        else:
            continue
        if parameter.kind in (_LISTED, _NAMED, inspect.Parameter.POSITIONAL_ONLY):
            raise InvalidArgumentError(
                name, "is injected by name: it must not be positional-only or variadic"
            )
    return Maker(function, tuple(job_names), tuple(makers)), {*job_names, *(name for name, _ in makers)}


def _dependency(function: Callable[..., Any], argument: str, within: tuple[Callable[..., Any], ...]) -> Maker:
    signature, hints = _described(function, argument)
    maker, injected = _maker(function, signature, hints, within)
    for name, parameter in signature.parameters.items():
        if name not in injected and parameter.default is _EMPTY and parameter.kind not in (_LISTED, _NAMED):
            raise InvalidArgumentError(
                argument, f"its dependency has a parameter {name!r} that nothing provides"
            )
    return maker


def _parts(payload: Any) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Take a stored payload apart; ``None`` for what is not there, or is something else."""
    if not _is_dict(payload):
        return None, None
    args, kwargs = payload.get("args"), payload.get("kwargs")
    named = _is_dict(kwargs) and all(isinstance(key, str) for key in kwargs)
    return (list(args) if _is_list(args) else None), (kwargs if named else None)


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, (list, tuple))
