"""A store that takes long to read says so: a bar on a terminal, lines in a log, never on stdout."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from jobqueue import FileStorage
from jobqueue.cli.loading_bar import LOGGED, SILENT, Reading, announced
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from tests.cli.processes import BOUND, environ

IMPATIENT = "import sys; from jobqueue.cli import loading_bar, main; loading_bar.SILENT = 0.0; main()"
"""The command line that says at once that a store is being read."""
JOBS = 50


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """The directory of a store that is read in several steps."""

    async def fill() -> None:
        store = FileStorage(tmp_path / "store", fsync=False)
        await store.open()
        for number in range(JOBS):
            await store.insert("default", [NewJob(str(number), b"1" * 20_000)])
        await store.close()

    asyncio.run(fill())
    return tmp_path / "store"


def run_on_terminal(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Run a command whose stderr is a terminal; return its exit code, its stdout and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *arguments],
        env=environ(**{"TERM": "xterm", **env}),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        # The end of the other side is told as an error on Linux, and as no data elsewhere.
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:
        pass
    os.close(ours)
    printed, _ = process.communicate(timeout=BOUND)
    return process.returncode, printed.decode(), shown.decode()


@pytest.mark.parametrize("command", ["stats", "doctor", "fsck", "status"])
def test_a_bar_on_a_terminal(full: Path, command: str) -> None:
    arguments = [command, "1"] if command == "status" else [command]
    code, printed, shown = run_on_terminal(*arguments, "-s", f"file://{full}", "-o", "json")
    assert code == 0, shown
    assert len(printed.splitlines()) == 1
    json.loads(printed)
    assert "Reading the store" in shown
    assert re.search(r"\d\.\d/\d\.\d MB", shown)
    assert shown.rindex("\x1b[2K") > shown.rindex("Reading the store"), "it is wiped away"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is there again"


def test_a_store_that_does_not_open_leaves_the_terminal_in_order(full: Path) -> None:
    (largest,) = full.glob("snapshot-*")  # the last close has left it
    data = bytearray(largest.read_bytes())
    data[600_000] ^= 1
    largest.write_bytes(data)
    code, printed, shown = run_on_terminal("stats", "-s", f"file://{full}")
    assert (code, printed) == (1, "")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert shown.rindex("Error: ") > shown.rindex("Reading the store")
    assert "is damaged" in shown


@pytest.mark.parametrize("variable", ["JOBQUEUE_FLEET_FD=0", "TERM=dumb"])
def test_a_fleet_and_a_dumb_terminal_get_no_bar(full: Path, variable: str) -> None:
    name, _, value = variable.partition("=")
    code, _, shown = run_on_terminal("stats", "-s", f"file://{full}", **{name: value})
    assert (code, shown) == (0, "")


def test_nothing_is_shown_without_a_terminal(full: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, "stats", "-s", f"file://{full}", "-o", "json"],
        env=environ(), capture_output=True, text=True, timeout=BOUND, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert json.loads(done.stdout)["queues"][0]["queued"] == JOBS


def test_what_is_read_at_once_shows_nothing() -> None:
    clock = FakeClock()
    seen = Reading(bar=True, clock=clock)
    for done in range(100):
        seen.tell(done, 100)
        clock.move(SILENT / 200)
    seen.tell(100, 100)
    assert seen._shown is None


def test_a_terminal_that_goes_away_is_no_fault_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, _text: str) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Gone())
    clock = FakeClock()
    seen = Reading(bar=True, clock=clock)
    for done in range(101):
        seen.tell(done, 100)
        clock.move(SILENT)
    seen.close()


def test_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    seen = Reading(bar=False, clock=clock)
    with caplog.at_level("INFO", "jobqueue.cli"):
        for done in range(100):
            seen.tell(done, 100)
            clock.move(2 * LOGGED / 100)
        seen.tell(100, 100)
        seen.tell(0, 100)  # it is read anew, and now at once
        seen.tell(100, 100)
    assert [re.sub(r"\d+ %", "N %", message) for message in caplog.messages] == [
        "reading the store: N % of 0 MB",
        "reading the store: N % of 0 MB",
        "the store is read, in 10.0 s",
    ]


def test_nothing_is_shown_after_the_end_of_the_command(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    seen = Reading(bar=False, clock=clock)
    seen.tell(0, 100)
    seen.close()
    clock.move(60)
    with caplog.at_level("INFO", "jobqueue.cli"):
        seen.tell(50, 100)
        seen.tell(100, 100)
    assert not caplog.messages


def test_a_reaper_logs_it(full: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "reaper", "-s", f"file://{full}"],
        env=environ(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "reaper of all queues" in process.stderr.readline()
    line = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=BOUND)
    assert re.search(r"INFO .* reading the store: \d+ % of \d+ MB", line)


def test_a_store_that_reads_nothing_is_left_alone() -> None:
    storage = MemoryStorage()
    assert announced(storage) is storage
