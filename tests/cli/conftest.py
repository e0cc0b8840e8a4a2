"""The command line as a shell sees it: in this process, or as a process of its own."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobqueue.cli import main

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


def environ(**more: str) -> dict[str, str]:
    """Return the environment of a child: this one, without what would steer the command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **more}


class Process:
    """A command that runs, with what it has written so far."""

    def __init__(self, *arguments: str, cwd: Path, **env: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobqueue.cli", *arguments],
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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with tasks.py."""
    path = tmp_path / "project"
    path.mkdir()
    (path / "tasks.py").write_text(TASKS)
    return path


@pytest.fixture
def store(tmp_path: Path) -> str:
    """URL of an empty store that processes share."""
    return f"file://{tmp_path}/store"


@pytest.fixture
def spawn(project: Path, store: str) -> Iterator[Callable[..., Process]]:
    """Start commands; whatever the test does, they are ended."""
    started: list[Process] = []

    def start(*arguments: str, **env: str) -> Process:
        process = Process(*arguments, cwd=project, **{"STORE": store, **env})
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command in this process; ``code`` is what it must exit with."""
    for name in [name for name in os.environ if name.startswith("JOBQUEUE_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, arguments, prog_name="jobqueue", **options)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.stderr
        return result

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def data(cli: Callable[..., Result]) -> Callable[..., Any]:
    """Run a command with ``-o json`` and return the value that it prints."""

    def run(*arguments: str, code: int = 0, **options: Any) -> Any:
        result = cli(*arguments, "-o", "json", code=code, **options)
        lines = result.stdout.splitlines()
        assert len(lines) == 1, result.stdout
        return json.loads(lines[0])

    return run


@pytest.fixture
def worker(spawn: Callable[..., Process]) -> Process:
    """A worker of tasks:queue that has started."""
    process = spawn("worker", "tasks:queue")
    process.expect("queue default started")
    return process
