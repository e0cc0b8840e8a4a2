"""What is printed, and what is never printed."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re

import pytest
from rich.console import Console

from jobqueue import Queue
from jobqueue.cli import output
from jobqueue.cli.exits import Exit, Failure, failure
from jobqueue.cli.logs import _Text
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
from jobqueue.observe.json_logs import JsonFormatter
from jobqueue.runtime.text import one_line, printable

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

    def broken(_url, _ledger):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(client, "open_storage", broken)
    said = cli("status", "a", "-s", "x://", code=1).stderr
    assert said == "Error: ZeroDivisionError: oh (more with `jobqueue --debug ...`)\n"


def test_interrupt(cli, monkeypatch):
    from jobqueue.cli import client

    def interrupted(_url, _ledger):
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
        line = JsonFormatter().format(record("it failed", exc_info=(type(error), error, error.__traceback__)))
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["level"] == "error"
    assert "ValueError: two" in parsed["exception"]


def test_json_logs_say_which_job_a_line_is_about():
    line = json.loads(
        JsonFormatter().format(record("it failed", job_id="a", queue="mail", attempt=2, duration=0.5))
    )
    assert (line["job_id"], line["queue"], line["attempt"], line["duration"]) == ("a", "mail", 2, 0.5)
    assert "task" not in line


def test_text_from_elsewhere_cannot_forge_a_line_of_the_log():
    forged = "boom\n2026-01-01 00:00:00,000 ERROR   [1] root logged in"
    try:
        raise ValueError(forged)
    except ValueError as error:
        text = _Text().format(record(forged, exc_info=(type(error), error, error.__traceback__)))
    first, *others = text.split("\n")
    assert "boom" in first
    assert all(line.startswith("    ") for line in others)


HOSTILE = "\x1b[31m \x9b31m \x7f \u202eevil\u202c \u200f \u061c \u2028 tab\tline\n"


def test_results_cannot_steer_the_terminal(store, cli, data):
    asyncio.run(run_one(store, HOSTILE))
    for command in (["wait"], ["status"], ["enqueue"], ["enqueue", "--wait"]):
        arguments = [command[0], "ok", *(["1"] if command[0] == "enqueue" else []), *command[1:], "-s", store]
        for options in ([], ["-o", "json"]):
            shown = cli(*arguments, *options).stdout
            assert printable(shown) == shown
        assert data(*arguments)["result"] == HOSTILE


async def run_one(store: str, result: str) -> None:
    async with Queue(store) as queue:
        queue.execute(lambda job: result)
        await queue.enqueue_and_wait("ok", None)


def test_a_cell_is_one_line(monkeypatch):
    monkeypatch.setattr(output, "console", lambda **_: Console(width=80, markup=False, file=io.StringIO()))
    assert shown(80, rows_table(["id"], [["a\nb\tc"]])).splitlines()[1].strip() == r"a\nb\tc"


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["status", "a", "-o", "json"], 3, "not_found"),
        (["status", "a", "--output", "json", "-q", "no spaces"], 2, "usage"),
        (["status", "-ojson"], 2, "usage"),
        (["status", "a", "--output=json", "--nonsense"], 2, "usage"),
        (["statz", "-o", "json"], 2, "usage"),
        (["wait", "a", "-o", "json", "-s", "/nowhere/at/all"], 5, "unreachable"),
        (["stats", "-o", "json", "-s", "memory://"], 2, "usage"),
    ],
)
def test_failures_are_json_where_json_is_asked_for(made, cli, arguments, code, name):
    result = cli(*arguments, code=code, env={"JOBQUEUE_STORAGE": made})
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["exit_code"]) == (name, code)
    assert error["message"] in result.stderr
    assert cli("status", "a", "-s", made, code=3).stdout == ""


def test_the_variable_asks_for_json_too(made, cli):
    result = cli("status", "a", code=3, env={"JOBQUEUE_STORAGE": made, "JOBQUEUE_STATUS_OUTPUT": "json"})
    assert json.loads(result.stdout)["error"]["code"] == "not_found"


def test_a_failed_job_as_json(store, data, worker):
    known = data("enqueue", "a", '{"fail": "no \\u202e"}', "-s", store, "--wait", code=6)
    assert (known["id"], known["state"], known["reason"], known["attempts"]) == ("a", "failed", "fatal", 1)
    assert known["cause"]["message"] == "no \u202e"
    assert known["error"]["code"] == "job_failed"
    assert data("wait", "a", "-s", store, code=6) == known


def test_instants_have_no_empty_digits(store, data):
    data("enqueue", "a", "1", "-s", store, "--run-at", "2100-01-01T00:00:00.120Z")
    status = data("status", "a", "-s", store)
    assert status["run_at"] == "2100-01-01T00:00:00.120+00:00"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00", status["created_at"])


def test_the_list_of_commands_says_each_in_a_whole_sentence(cli):
    assert "..." not in cli("--help").stdout.partition("Commands:")[2]
    assert "Cancel job ID.\n" in cli("--help").stdout
    for group in ("job", "dead", "queue", "schema"):
        assert "..." not in cli(group, "--help").stdout.partition("Commands:")[2]
