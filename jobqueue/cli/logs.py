"""Logs of the long-running commands, on stderr, as text or as JSON lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from jobqueue.cli.options import option
from jobqueue.observe.json_logs import JobFields, JsonFormatter
from jobqueue.runtime.text import printable

__all__ = ["configure_logging", "log_options"]

F = TypeVar("F", bound=Callable[..., Any])


def log_options() -> Callable[[F], F]:
    """``--log-level`` and ``--log-format``."""
    levels = click.Choice(["debug", "info", "warning", "error"])
    level = option("--log-level", type=levels, default="info", help="The least that is logged.")
    form = option("--log-format", type=click.Choice(["text", "json"]), default="text",
                  help="Lines for people or for programs.")  # fmt: skip
    return lambda command: level(form(command))


def configure_logging(level: str, form: str) -> None:
    """Log to stderr from now on, whatever was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else _Text())
    handler.addFilter(JobFields())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s [%(process)d] %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # What handlers raise ends up here: it must not steer the terminal, nor pass for a line of the log.
        return printable(super().format(record)).replace("\n", "\n    ")
