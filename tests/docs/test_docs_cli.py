"""The page about the command line names every command, option, default and exit code, and no other."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest

from jobqueue.cli.exits import Exit
from jobqueue.cli.main import main
from jobqueue.cli.options import QUEUE_VARIABLE
from tests.docs.doc_pages import DOCS, code, rows, section

PAGE = DOCS / "reference/cli.md"
COMMANDS = {name: command for name, command in main.commands.items() if not command.hidden}


def options(command: click.Command) -> list[click.Option]:
    if isinstance(command, click.Group) and command is not main:  # those of its commands
        return [option for one in command.commands.values() for option in options(one)]
    return [param for param in command.params if isinstance(param, click.Option) and not param.hidden]


def option_rows(name: str) -> list[list[str]]:
    """Return the rows of the table of options."""
    return [row for row in rows(section(PAGE, name)) if row[0].startswith("`-")]


def test_every_command_has_its_section() -> None:
    table = [code(row[0])[0] for row in rows(PAGE.read_text().partition("\n## ")[0])]
    assert sorted(table) == sorted(COMMANDS)
    assert "--debug" in {flag for option in options(main) for flag in option.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str) -> None:
    table = {tuple(code(row[0])): row[1] for row in option_rows(name)}
    actual = {(*option.opts, *option.secondary_opts): option for option in options(COMMANDS[name])}
    assert table.keys() == actual.keys()
    for flags, option in actual.items():
        written, default = table[flags], plain_default(option)
        if option.required:
            assert written == "required", flags
        elif default not in (None, False):
            assert code(written) == [str(default)], flags
        else:
            assert written, flags  # what "none" means stands there in words


def plain_default(option: click.Option) -> Any:
    default = option.get_default(click.Context(main), call=True)
    return default if isinstance(default, (str, int, float)) else None


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments(name: str) -> None:
    usage = re.search(r"^    jobqueue \w+ (.*)$", section(PAGE, name), re.MULTILINE)
    assert usage is not None
    command = COMMANDS[name]
    if isinstance(command, click.Group):
        assert usage[1].split() == ["COMMAND", "[OPTIONS]"]
        return
    # As the command itself makes it: click keeps the option for help that is asked for first.
    with click.Context(command, **main.context_settings) as context:
        assert usage[1].split() == command.collect_usage_pieces(context)


@pytest.mark.parametrize("name", [name for name, made in COMMANDS.items() if isinstance(made, click.Group)])
def test_the_commands_of_a_group(name: str) -> None:
    """The page names all of them, and for each option those that have it."""
    group = COMMANDS[name]
    assert isinstance(group, click.Group)
    text = section(PAGE, name)
    assert all(f"`{one}" in text for one in group.commands)
    for row in option_rows(name):
        if len(row) == 4:
            having = [one for one, made in group.commands.items()
                      if any(option.opts[-1] in code(row[0]) for option in options(made))]  # fmt: skip
            assert row[2] == "all" if having == list(group.commands) else code(row[2]) == having, row[0]


def every_command() -> list[tuple[str, click.Command]]:
    """Return all commands, those of groups as ``job ls``."""
    found: list[tuple[str, click.Command]] = []
    for name, command in COMMANDS.items():
        if isinstance(command, click.Group):
            found += [(f"{name} {one}", made) for one, made in command.commands.items()]
        else:
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), every_command())
def test_every_option_has_the_variable_that_the_page_says(name: str, command: click.Command) -> None:
    for option in options(command):
        long = next(flag for flag in option.opts if flag.startswith("--"))
        variable = f"JOBQUEUE_{name}_{long[2:]}".upper().replace("-", "_").replace(" ", "_")
        expected: object = "JOBQUEUE_STORAGE" if long == "--storage" else variable
        if long == "--queue" and not option.multiple:
            expected = [variable, QUEUE_VARIABLE]
        derived = f"JOBQUEUE_{name}_{option.name}".upper().replace(" ", "_")  # by click's rule
        assert main.context_settings["auto_envvar_prefix"] == "JOBQUEUE"
        assert (option.envvar or derived) == expected, long


def test_exit_codes() -> None:
    table = {int(row[0]) for row in rows(section(PAGE, "Exit codes"))}
    assert table == {int(known) for known in Exit}
