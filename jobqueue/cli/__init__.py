"""The command line: ``jobqueue COMMAND``.

Stdout carries data only; progress, logs and messages go to stderr. Every option has an environment
variable, ``JOBQUEUE_<COMMAND>_<OPTION>``, but the store's is `JOBQUEUE_STORAGE` for all commands.
Exit codes are those of `jobqueue.cli.exits.Exit`.
"""

from __future__ import annotations

from jobqueue.cli import interrupts
from jobqueue.cli.serving import first_process

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name, and exit.

    Loading the commands takes a third of a second, so nothing is loaded before Ctrl-C is quiet.
    """
    first_process.split()
    interrupts.quiet()
    from jobqueue.cli.main import main as command  # see above

    try:
        command.main(prog_name="jobqueue")
    finally:
        interrupts.quiet()
