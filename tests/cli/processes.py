"""Commands as processes of their own, with bounded waits for what they write."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BOUND = 30.0
"""Seconds that a test waits for what must come."""

TASKS = """
import asyncio, os, time
from jobqueue import Fatal, Queue

queue = Queue(os.environ["STORE"], concurrency=4, visibility_timeout=5.0)

@queue.execute
async def work(job):
    order = job.payload
    if "sleep" in order:
        print("running", job.id, flush=True)
        await asyncio.sleep(order["sleep"])
    if "fail" in order:
        raise Fatal(order["fail"])
    if "exit" in order and job.attempts == 1:
        os._exit(order["exit"])
    return {"echo": order, "pid": os.getpid()}

idle = Queue("memory://")
private = Queue("memory://", "private")
private.execute(work)
number = 3
"""

SEVERAL = """
import os
from jobqueue import App, Queue
from tasks import work

mail = Queue(os.environ["STORE"], "mail", visibility_timeout=5.0)
reports = Queue(os.environ["STORE"], "reports", concurrency=2)
again = Queue(os.environ["STORE"], "mail")
elsewhere = Queue(os.environ["STORE"] + "-2", "elsewhere")
idle = Queue(os.environ["STORE"], "idle")
for queue in (mail, reports, again, elsewhere):
    queue.execute(work)
app = App(os.environ["STORE"], [mail, reports, idle])
plain = App(os.environ["STORE"], [mail], reaper=False)
handlerless = App(os.environ["STORE"], [idle])
"""


def environ(**more: str) -> dict[str, str]:
    """Return the environment of a child: this one, without what would steer the command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **more}


class Process:
    """A command that runs, with what it has written so far."""

    def __init__(self, *arguments: str, cwd: Path, **env: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobqueue", *arguments],
            cwd=cwd, env=environ(**env), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self.popen.pid
        self.lines: dict[str, list[str]] = {"out": [], "err": []}
        self._news: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=("out", self.popen.stdout), daemon=True),
            threading.Thread(target=self._read, args=("err", self.popen.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        with stream:
            for line in stream:
                self._news.put((name, line.rstrip("\n")))
        self._news.put((name, None))

    def expect(self, pattern: str, where: str = "err") -> re.Match[str]:
        """Wait for a new line that matches."""
        while True:
            try:
                name, line = self._news.get(timeout=BOUND)
            except queue.Empty:
                raise AssertionError(f"no line {pattern!r} in {where}: {self.lines}") from None
            if line is None:
                if name == where:
                    raise AssertionError(f"ended without a line {pattern!r} in {where}: {self.lines}")
                continue
            self.lines[name].append(line)
            found = re.search(pattern, line)
            if name == where and found:
                return found

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code, once all who may write have ended."""
        code = self.popen.wait(BOUND)
        for reader in self._readers:
            reader.join(BOUND)
            assert not reader.is_alive(), "something still holds the pipes"
        while not self._news.empty():
            name, line = self._news.get()
            if line is not None:
                self.lines[name].append(line)
        return code

    def end(self) -> None:
        """Have it drain, give its jobs back, exit: a signal for each, a second apart."""
        for _ in range(10):
            if self.popen.poll() is not None:
                break
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(1)
        self.wait()


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and text of a health page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until_ready(port: int) -> None:
    """Ask until a process is ready."""
    for _ in range(5000):
        if get(port, "/readyz")[0] == 200:
            return
    raise AssertionError("not ready")
