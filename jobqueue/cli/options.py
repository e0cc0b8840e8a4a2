"""Options of several commands, and the types of their values."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import check_id, check_instant, check_queue_name, check_seconds
from jobqueue.model.serde import JsonSerde, MsgpackSerde, Serde
from jobqueue.storage.urls import LEDGER_VARIABLE, STORAGE_VARIABLE

__all__ = [
    "QUEUE_VARIABLE",
    "SERDES",
    "instant",
    "job_id",
    "label",
    "ledger_option",
    "ledger_url",
    "option",
    "output_option",
    "payload",
    "queue_name",
    "queue_option",
    "seconds",
    "seconds_or_zero",
    "serde_option",
    "storage_option",
    "worker_name",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

option = functools.partial(click.option, show_envvar=True)
"""An option whose help names its environment variable."""

QUEUE_VARIABLE = "JOBQUEUE_QUEUE"
"""Names the queue of every command on one queue."""
SERDES: dict[str, type[Serde[Any]]] = {"json": JsonSerde, "msgpack": MsgpackSerde}
"""What ``--serde`` names."""
MAX_PAYLOAD_TEXT = 64 * 1024 * 1024
"""Largest JSON text, in bytes, that is read from a file or stdin."""


def queue_name(value: str) -> str:
    """Check a queue's name."""
    return _checked(check_queue_name, value, "queue")


def worker_name(value: str) -> str:
    """Parse a worker's name."""
    return _checked(check_id, value, "name")


def job_id(value: str) -> str:
    """Parse the id of a job."""
    return _checked(check_id, value, "id")


def label(value: str) -> str:
    """Parse the name of a task or a group."""
    return _checked(check_id, value, "name")


def seconds(value: str | float) -> float:
    """Parse a positive number of seconds."""
    return _checked(check_seconds, "value", _number(value))


def seconds_or_zero(value: str | float) -> float:
    """Parse a number of seconds, 0 allowed."""
    return _checked(functools.partial(check_seconds, zero=True), "value", _number(value))


def instant(value: str | datetime) -> datetime:
    """Parse an instant with its time zone."""
    try:
        parsed = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an instant such as 2030-01-31T08:00:00Z") from None
    if parsed.utcoffset() is None:
        raise click.BadParameter(
            f"{value!s} has no time zone: add Z or an offset, as in 2030-01-31T08:00:00Z"
        )
    _checked(check_instant, "value", parsed)
    return parsed


def payload(value: str) -> Any:
    """Parse JSON text, ``@file``, or ``-`` for stdin."""
    try:
        return json.loads(_text(value), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error} (text needs its quotes: '\"text\"')") from None


def _text(value: str) -> str | bytes:
    if value == "-":
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - it is, where it is closed
            raise click.BadParameter("stdin is closed: give the payload as an argument or a file")
        data = sys.stdin.buffer.read(MAX_PAYLOAD_TEXT + 1)
    elif value.startswith("@"):
        try:
            with Path(value[1:]).open("rb") as file:
                data = file.read(MAX_PAYLOAD_TEXT + 1)
        except OSError as error:
            raise click.BadParameter(f"cannot read {value[1:]!r}: {error.strerror}") from None
    else:
        return value
    if len(data) > MAX_PAYLOAD_TEXT:
        raise click.BadParameter(f"more than {MAX_PAYLOAD_TEXT} bytes: pass a reference instead")
    return data


def _number(value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number of seconds") from None


def _checked(check: Callable[..., T], *arguments: object) -> T:
    try:
        return check(*arguments)
    except InvalidArgumentError as error:
        # Click tells which option it is about.
        raise click.BadParameter(str(error).partition(": ")[2]) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _directory(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete the directory of a file store."""
    return [CompletionItem(incomplete, type="dir")]


def storage_option(*, required: bool = True, text: str = "URL of the store.") -> Callable[[F], F]:
    """``-s/--storage``, whose variable is the same for all commands."""
    named = option(
        "-s",
        "--storage",
        metavar="URL",
        required=required,
        envvar=STORAGE_VARIABLE,
        shell_complete=_directory,
        help=f"{text} For example redis://localhost or ./jobs.",
    )

    def decorate(command: F) -> F:
        # An option of every command, and of the program, whose help shows it once.
        return named(ledger_option(hidden=True)(command))

    return decorate


def ledger_option(*, hidden: bool = False) -> Callable[[F], F]:
    """``--ledger``: whatever store a command opens is guarded; `ledger_url` returns it."""

    def note(context: click.Context, _option: click.Parameter, url: str | None) -> None:
        if url is not None:
            context.meta[_LEDGER] = url

    return click.option(
        "--ledger",
        metavar="URL",
        envvar=LEDGER_VARIABLE,
        show_envvar=True,
        expose_value=False,
        hidden=hidden,
        callback=note,
        help="PostgreSQL that guards the jobs of the store, for example postgresql://localhost/app.",
    )


def ledger_url() -> str | None:
    """Return what ``--ledger`` says, of the command or of the program."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_LEDGER)


_LEDGER = "jobqueue.ledger"


def queue_option(command: str) -> Callable[[F], F]:
    """``-q/--queue``: one name, from the variable that all such commands share.

    ``command`` is its name, for one of a group with that of the group: ``job ls``.
    """
    return option(
        "-q",
        "--queue",
        type=queue_name,
        metavar="NAME",
        default="default",
        envvar=[f"JOBQUEUE_{command.upper().replace(' ', '_')}_QUEUE", QUEUE_VARIABLE],
        help="Name of the queue.",
    )


def serde_option() -> Callable[[F], F]:
    """``--serde``."""
    return option("--serde", type=click.Choice(sorted(SERDES)), default="json",
                  help="How the queue's payloads and results are written.")  # fmt: skip


def output_option() -> Callable[[F], F]:
    """``-o/--output``."""
    return option("-o", "--output", type=click.Choice(["table", "json"]), default="table",
                  help="For people, or one JSON value per line.")  # fmt: skip
