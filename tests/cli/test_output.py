"""What is printed, and what is never printed."""

from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Console

from jobqueue.cli import output
from jobqueue.cli.exits import Exit, Failure, failure
from jobqueue.cli.logs import _Json, _Text
from jobqueue.cli.output import as_json, fitted, rows_table
from jobqueue.errors import (
    ErrorInfo,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    MaxRetriesError,
    QueueFullError,
    StorageError,
    StorageUnavailableError,
    WaitTimeoutError,
)
from jobqueue.text import one_line, printable

INFO = ErrorInfo("ValueError", "no")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobQueueError("x"), Exit.ERROR),
        (QueueFullError("x"), Exit.ERROR),
        (StorageError("x"), Exit.ERROR),
        (RuntimeError("x"), Exit.ERROR),
        (InvalidArgumentError("id", "x"), Exit.USAGE),
        (JobNotFoundError("x"), Exit.NOT_FOUND),
        (WaitTimeoutError("x"), Exit.TIMEOUT),
        (StorageUnavailableError("x"), Exit.UNREACHABLE),
        (JobFailedError("a", INFO, 1, "fatal"), Exit.JOB_FAILED),
        (MaxRetriesError("a", INFO, 3, "error"), Exit.JOB_FAILED),
        (JobCancelledError("x"), Exit.JOB_FAILED),
        (ExceptionGroup("several", [WaitTimeoutError("x"), RuntimeError("y")]), Exit.TIMEOUT),
    ],
)
def test_exit_codes(error, code):
    assert failure(error).code == code


def test_an_error_is_one_line_that_cannot_steer_the_terminal():
    assert str(Failure("two\r\nlines \x1b[2J \x9b\u202e\ud800")) == r"two lines \x1b[2J \x9b\u202e\ud800"


def test_printable_text():
    assert printable("tab\tnewline\nümläut 🙂") == "tab\tnewline\nümläut 🙂"
    assert printable("\x00\x07\x1b]0;title\x07") == r"\x00\x07\x1b]0;title\x07"
    assert one_line("  a \n\n b ") == "a b"


def test_unexpected_errors_name_the_way_to_more(cli, monkeypatch):
    from jobqueue.cli import client

    def broken(_url):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(client, "open_storage", broken)
    said = cli("status", "a", "-s", "x://", code=1).stderr
    assert said == "Error: ZeroDivisionError: oh (more with `jobqueue --debug ...`)\n"


def test_interrupt(cli, monkeypatch):
    from jobqueue.cli import client

    def interrupted(_url):
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "open_storage", interrupted)
    assert cli("status", "a", "-s", "x://", code=130).stderr == "Error: interrupted\n"


def test_version_and_help(cli):
    from jobqueue import __version__

    assert cli("--version").stdout == f"{__version__}\n"
    shown = cli("enqueue", "-h").stdout
    assert "JOBQUEUE_STORAGE" in shown
    assert "JOBQUEUE_ENQUEUE_WAIT" in shown


def test_json_takes_what_msgpack_gives():
    assert json.loads(as_json({"data": b"\x00\xff", "text": "ü"})) == {"data": "AP8=", "text": "ü"}


def shown(width: int, *tables) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(*tables)
    return file.getvalue()


def test_a_table_that_does_not_fit_becomes_blocks(monkeypatch):
    columns, rows = ["queue", "waiting"], [["a" * 30, 1], ["b", 22]]
    for width, count in ((80, 1), (20, 2)):
        monkeypatch.setattr(output, "console", lambda width=width, **_: Console(width=width))
        tables = fitted(columns, rows)
        assert len(tables) == count
        text = shown(width, *tables)
        assert "waiting" in text
        assert "22" in text


def test_markup_and_control_characters_are_data(monkeypatch):
    monkeypatch.setattr(output, "console", lambda **_: Console(width=80, markup=False, file=io.StringIO()))
    text = shown(80, rows_table(["id"], [["\x1b[31m:smile:"], [None]]))
    assert "\x1b" not in text
    assert r"\x1b[31m" in text
    assert "-" in text


def record(message: str, **more) -> logging.LogRecord:
    made = logging.LogRecord("jobqueue", logging.ERROR, "x.py", 1, message, None, None)
    made.__dict__.update(more)
    return made


def test_text_logs_cannot_steer_the_terminal():
    assert r"bad \x1b[2J" in _Text().format(record("bad \x1b[2J"))


def test_json_logs_are_one_line_with_the_traceback():
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        line = _Json().format(record("it failed", exc_info=(type(error), error, error.__traceback__)))
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["level"] == "error"
    assert "ValueError: two" in parsed["exception"]
