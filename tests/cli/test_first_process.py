"""The command as process 1 of a container."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.cli.processes import BOUND, environ

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans go to a subreaper on Linux only")

FIRST = """
import ctypes, os, signal, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to process 1
signal.signal(signal.SIGINT, signal.default_int_handler)
from jobqueue.cli import first_process
real, os.getpid = os.getpid, lambda: 1
first_process.split()
os.getpid = real
"""
REAPED = """
orphan = int(subprocess.check_output(["sh", "-c", "sleep 0.05 > /dev/null & echo $!"]))
deadline = time.monotonic() + 20
while os.path.exists(f"/proc/{orphan}"):
    assert time.monotonic() < deadline, open(f"/proc/{orphan}/stat").read()
    time.sleep(0.01)
sys.exit(7)
"""
TOLD = """
def told(number, frame):
    print("told", number, flush=True)
    if number == signal.SIGTERM:
        sys.exit(0)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, told)
print("ready", flush=True)
while True:
    signal.pause()
"""


def start(program: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-P", "-c", FIRST + program],
        env=environ(), text=True, stdout=subprocess.PIPE, start_new_session=True, **options,
    )  # fmt: skip


def test_orphans_are_reaped_and_the_exit_code_is_that_of_the_command() -> None:
    with start(REAPED, stdin=subprocess.DEVNULL) as process:
        assert process.wait(BOUND) == 7


def test_signals_are_passed_on() -> None:
    with start(TOLD, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            assert process.stdout.readline() == f"told {int(number)}\n"
        assert process.wait(BOUND) == 0


def test_a_command_that_a_signal_ends_ends_as_shells_have_it() -> None:
    with start("os.kill(os.getpid(), signal.SIGKILL)", stdin=subprocess.DEVNULL) as process:
        assert process.wait(BOUND) == 128 + signal.SIGKILL


def test_the_terminal_interrupts_once() -> None:
    terminal, inside = pty.openpty()
    control = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", control + FIRST + TOLD],
        env=environ(), text=True, stdin=inside, stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(inside)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.write(terminal, b"\x03")
        assert process.stdout.readline() == f"told {int(signal.SIGINT)}\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"told {int(signal.SIGTERM)}\n"
        assert process.wait(BOUND) == 0
    with suppress(OSError):
        os.close(terminal)


def test_any_other_process_stays_as_it_is() -> None:
    program = "import os; from jobqueue.cli import first_process; first_process.split(); print(os.getppid())"
    shown = subprocess.check_output([sys.executable, "-P", "-c", program], env=environ(), text=True)
    assert int(shown) == os.getpid()
