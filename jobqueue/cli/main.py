"""The commands as one, and the end of every error."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from itertools import pairwise
from typing import Any

import click

from jobqueue import __version__
from jobqueue.cli import interrupts
from jobqueue.cli.commands.checks import doctor, fsck
from jobqueue.cli.commands.completion import completion
from jobqueue.cli.commands.dead import dead
from jobqueue.cli.commands.explain import explain
from jobqueue.cli.commands.guard import guard
from jobqueue.cli.commands.job import job
from jobqueue.cli.commands.jobs import cancel, enqueue, status, wait
from jobqueue.cli.commands.queue import queue
from jobqueue.cli.commands.reaper import reaper
from jobqueue.cli.commands.schedule import schedule
from jobqueue.cli.commands.schema import schema
from jobqueue.cli.commands.stats import stats
from jobqueue.cli.commands.top import top
from jobqueue.cli.commands.watch import watch
from jobqueue.cli.commands.web import web
from jobqueue.cli.commands.worker import worker
from jobqueue.cli.demo.command import demo
from jobqueue.cli.exits import Exit, Failure, failure
from jobqueue.cli.logs import configure_logging
from jobqueue.cli.options import ledger_option
from jobqueue.cli.output import emit_json, has_emitted

__all__ = ["main"]


class _Main(click.Group):
    """Turns every error into one line, an exit code and, where JSON is asked for, a JSON value."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        for each in (cmd, *(cmd.commands.values() if isinstance(cmd, click.Group) else ())):
            # Click would cut it to the width of a line.
            each.short_help = " ".join((each.help or "").split()).partition(". ")[0].rstrip(".") + "."
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _emit(ctx, Failure(error.format_message(), Exit(error.exit_code)))
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            end = Failure("interrupted", Exit.INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - this is where errors end
            if ctx.params["debug"]:
                traceback.print_exc()
            end = error if isinstance(error, Failure) else failure(error)
        _emit(ctx, end)
        click.echo(f"Error: {end}", err=True)
        return ctx.exit(end.code)


_ARGUMENTS = "jobqueue.arguments"


def _emit(ctx: click.Context, end: Failure) -> None:
    """Print an error: as JSON if that is asked for and no data was printed, else for people."""
    if _asks_for_json(ctx) and not has_emitted(ctx):
        with suppress(Failure):  # which is the error to tell
            emit_json(end.as_value())


def _asks_for_json(ctx: click.Context) -> bool:
    # Of the arguments as they are: those of a command that cannot be called are never parsed.
    arguments: tuple[str, ...] = ctx.meta[_ARGUMENTS]
    pairs = set(pairwise(arguments))
    if ("-o", "json") in pairs or ("--output", "json") in pairs:
        return True
    if "-ojson" in arguments or "--output=json" in arguments:
        return True
    return os.environ.get(f"JOBQUEUE_{'_'.join(_path(ctx, arguments))}_OUTPUT".upper()) == "json"


def _path(ctx: click.Context, arguments: tuple[str, ...]) -> list[str]:
    """Return the names of the command: two for one of a group."""
    name = ctx.invoked_subcommand or ""
    group = main.commands.get(name)
    if not isinstance(group, click.Group):
        return [name]
    inner = [word for word in arguments[arguments.index(name) + 1 :] if word in group.commands]
    return [name, *inner[:1]]


@click.group(
    cls=_Main,
    context_settings={
        "auto_envvar_prefix": "JOBQUEUE",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    },
    epilog=(
        "Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 timeout, 5 storage unreachable, "
        "6 job failed or cancelled, 7 unhealthy, 130 interrupted."
    ),
)
@click.version_option(__version__, message="%(version)s")
@click.option("--debug", is_flag=True, show_envvar=True, help="Show the traceback of an error.")
@ledger_option()
def main(*, debug: bool) -> None:  # noqa: ARG001 - read from the context where errors end
    """Run jobs through a queue, with request/response, on stores that behave alike.

    Start with `jobqueue demo`: it does real work and checks every answer.
    """
    interrupts.heard()
    configure_logging("error", "text")  # what serves for long has options of its own


job.add_command(explain)
for _command in (
    demo, worker, reaper, web, enqueue, wait, watch, status, cancel, job, dead, queue, schedule,
    stats, top, guard, schema, doctor, fsck, completion,
):  # fmt: skip
    main.add_command(_command)
