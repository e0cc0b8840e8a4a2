"""Data on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jobqueue.cli.exits import Failure
from jobqueue.runtime.text import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "as_json",
    "cell",
    "console",
    "emit_json",
    "fields_table",
    "fitted",
    "has_emitted",
    "rows_table",
    "show",
    "styled",
    "write",
    "write_line",
]

_EMITTED = "jobqueue.emitted"
WIDE = 10_000
"""Columns of a table in a file or pipe, where nothing is cut or wrapped."""
LEAST_CUT = 20
"""Columns that a cell which may be cut keeps at the least."""


def styled(text: str, style: str) -> Text:
    """Return a cell with a style of rich, for terminals."""
    from rich.text import Text

    return Text(cell(text), style=style)


def as_json(value: Any) -> str:
    """Return one line of JSON that is safe to print. Bytes, which msgpack results may hold, become base64."""
    return printable_json(json.dumps(value, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def emit_json(value: Any) -> None:
    """Print one line of JSON on stdout."""
    write(as_json(value))
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_EMITTED] = True


def write(text: str) -> None:
    """Print text on stdout."""
    with _writing():
        click.echo(text)


def write_line(cells: Iterable[object]) -> None:
    """Print one line of cells, two blanks between them."""
    out = console()
    with _writing():
        with out.capture() as captured:
            for place, value in enumerate(cells):
                out.print("  " if place else "", _as_cell(value), sep="", end="", soft_wrap=True)
        click.echo(captured.get(), color=True)


@contextmanager
def _writing() -> Generator[None]:
    """Raise a `Failure` if the output cannot be written, for example to a full disk."""
    try:
        yield
    except BrokenPipeError:  # the reader has enough: click ends the command
        raise
    except OSError as error:
        raise Failure(f"cannot write the output: {error.strerror}") from error


def has_emitted(context: click.Context) -> bool:
    """Return whether the command has printed JSON."""
    return _EMITTED in context.meta


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged: no markup, emoji codes or colouring of words."""
    from rich.console import Console  # a tenth of a second that JSON does not need

    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=WIDE)
    return made


def show(*tables: Table) -> None:
    """Print tables on stdout, an empty line between them, without blanks at the ends of lines."""
    if not tables:
        return
    with _writing():
        out = console()
        with out.capture() as captured:
            for place, table in enumerate(tables):
                if place:
                    out.print()
                out.print(table)
        lines = captured.get().splitlines()
        click.echo("\n".join(line.rstrip() for line in lines), color=True)


def fields_table(fields: Mapping[str, object]) -> Table:
    """Lay out one thing: a line for every field."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, _as_cell(value))
    return table


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Lay out many things: a line for each, numbers to the right."""
    from rich.table import Table

    cells = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        numeric = all(isinstance(row[place], int | float) for row in cells)
        table.add_column(name, justify="right" if numeric and cells else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(_as_cell, row))
    return table


def fitted(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, last_may_be_cut: bool = False
) -> list[Table]:
    """Lay out many things in one table or, where the terminal is too narrow for it, one after the other.

    With ``last_may_be_cut``, the last column takes the rest of each line, and its cells end with an ellipsis.
    """
    out, table = console(), rows_table(columns, rows)
    excess = out.measure(table, options=out.options.update(width=WIDE)).maximum - out.width
    if excess <= 0:
        return [table]
    if last_may_be_cut:
        last = table.columns[-1]
        widest = max(out.measure(each).maximum for each in last.cells)
        if widest - excess >= LEAST_CUT:
            last.overflow, last.no_wrap, last.max_width = "ellipsis", True, widest - excess
            return [table]
    return [fields_table(dict(zip(columns, row, strict=True))) for row in rows]


def _as_cell(value: object) -> str | Text:
    from rich.text import Text

    return value if isinstance(value, Text) else cell(value)


def cell(value: object) -> str:
    """Return the text of a cell, on one line and safe to print; ``-`` for ``None``."""
    return "-" if value is None else printable(str(value)).replace("\n", "\\n").replace("\t", "\\t")
