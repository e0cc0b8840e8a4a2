"""The commands as one, and the end of every error."""

from __future__ import annotations

import traceback
from typing import Any

import click

from jobqueue import __version__
from jobqueue.cli import interrupts
from jobqueue.cli.checks import doctor, fsck
from jobqueue.cli.demo.command import demo
from jobqueue.cli.exits import Exit, Failure, failure
from jobqueue.cli.jobs import cancel, enqueue, status, wait
from jobqueue.cli.logs import configure_logging
from jobqueue.cli.reaper import reaper
from jobqueue.cli.stats import stats
from jobqueue.cli.worker import worker

__all__ = ["main"]


class _Main(click.Group):
    """Turns every error into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            end = Failure("interrupted", Exit.INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - this is where errors end
            if ctx.params["debug"]:
                traceback.print_exc()
            end = error if isinstance(error, Failure) else failure(error)
        click.echo(f"Error: {end}", err=True)
        return ctx.exit(end.code)


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
def main(*, debug: bool) -> None:  # noqa: ARG001 - read from the context where errors end
    """Run jobs through a queue, with request/response, on stores that behave alike.

    Start with `jobqueue demo`: it does real work and checks every answer.
    """
    interrupts.heard()
    configure_logging("error", "text")  # what serves for long has options of its own


for _command in (demo, worker, reaper, enqueue, wait, status, cancel, stats, doctor, fsck):
    main.add_command(_command)
