"""The command ``completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from jobqueue.cli.exits import Failure
from jobqueue.cli.output import write

__all__ = ["COMPLETION_VARIABLE", "completion"]

COMPLETION_VARIABLE = "_JOBQUEUE_COMPLETE"
"""Set by the script for the command that answers what fits."""
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", metavar="[SHELL]", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, *, shell: str | None) -> None:
    """Print the script that makes a SHELL complete commands and options.

    For bash, add `eval "$(jobqueue completion bash)"` to ~/.bashrc; zsh alike; for fish, write it to
    ~/.config/fish/completions/jobqueue.fish. Without SHELL it is that of $SHELL.
    """
    name = shell or PurePath(os.environ.get("SHELL", "")).name
    made = get_completion_class(name) if name in SHELLS else None
    if made is None:
        raise Failure.usage(f"which shell? Name one of {', '.join(SHELLS)}")
    write(made(context.find_root().command, {}, "jobqueue", COMPLETION_VARIABLE).source().strip())
