"""A command on a terminal of its own: what a person sees, and answers."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from tests.cli.processes import BOUND, environ


class Terminal:
    """A command whose input and output are a terminal of some width."""

    def __init__(self, *arguments: str, columns: int = 80, **env: str) -> None:
        self._master, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        given = environ(TERM="xterm-256color", **env)
        for name in ("COLUMNS", "LINES"):  # which would go before the size of the terminal
            given.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobqueue", *arguments],
            env=given, stdin=inside, stdout=inside, stderr=inside,
            start_new_session=True, close_fds=True,
        )  # fmt: skip
        os.close(inside)
        self.text = ""

    def read_until(self, pattern: str) -> None:
        """Read until the text matches."""
        end = time.monotonic() + BOUND
        while not re.search(pattern, self.text):
            assert self._read(end), f"no {pattern!r} in {self.text!r}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Send what Ctrl-C sends to the processes of a terminal."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Read to the end; return the exit code."""
        end = time.monotonic() + BOUND
        while self._read(end):
            pass
        os.close(self._master)
        return self._process.wait(BOUND)

    def _read(self, end: float) -> bool:
        if not select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]:
            self._process.kill()
            raise AssertionError(f"no end after {self.text!r}")
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the last process has closed the terminal
            return False
        self.text += data.decode().replace("\r\n", "\n")
        return bool(data)


def shown(*arguments: str, columns: int = 80, code: int = 0, **env: str) -> str:
    """Return what a command prints on a terminal."""
    terminal = Terminal(*arguments, columns=columns, **env)
    ended = terminal.wait()
    assert ended == code, terminal.text
    return terminal.text
