"""Every example of the README and the docs runs, and prints what the page says.

The Python blocks of a page run in order in one namespace. Options after the language:

* ``no-run``: only compiled;
* ``file=NAME``: written to NAME in the directory in which the commands of the page run.

A block ``text output`` is what the Python block before it prints. A block ``console`` has commands
after ``$`` and what they print; there ``...`` stands for anything, and the number of blanks does not
count. ``console background`` starts a command that runs until the page ends, and is then told to stop
by SIGTERM. Commands on ``redis://localhost`` get a server of their own.

A page with a line ``<!-- server: postgresql -->`` gets a PostgreSQL of its own, which the environment names,
with the database and the user ``app``. Blocks ``sql run`` are carried out there.

A page may begin with ``<!-- needs: NAME NAME -->``: its examples import these packages. Without them they are
compiled and not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.docs.doc_pages import PAGES, ROOT, Block, blocks, name, needs
from tests.services import Server, unavailable, valkey_binary
from tests.storage.postgres.server import PostgresServer

LIMIT = 30.0
"""Seconds that one command may take."""
LOCALHOST = "redis://localhost"
POSTGRES = "<!-- server: postgresql -->"
_COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


class Commands:
    """Runs the commands of one page in a directory of its own."""

    def __init__(self, directory: Path, bin: Path) -> None:
        self.directory = directory
        self.background: list[subprocess.Popen[str]] = []
        # The command of this checkout, whatever is installed.
        plugin = "" if entry_points(group="pytest11", name="jobqueue") else "-p jobqueue.pytest_plugin"
        pytest = f"-m pytest -p no:cacheprovider -p no:asyncio {plugin}"
        for command, module in (("jobqueue", "-m jobqueue"), ("python", ""), ("pytest", pytest)):
            script = bin / command
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            script.chmod(0o755)
        self.env = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.env.pop("JOBQUEUE_STORAGE", None)
        self._server: Server | None = None

    def run(self, block: Block) -> None:
        for command, expected in _COMMAND.findall(block.code):
            process = self._start(command)
            if "background" in block.options:
                self.background.append(process)
            else:
                printed, errors = finish(process)
                assert process.returncode == 0, f"{command!r}: {errors}"
                assert matches(printed, expected), f"{command!r}: {printed}"

    def _start(self, command: str) -> subprocess.Popen[str]:
        if LOCALHOST in command:
            command = command.replace(LOCALHOST, self._redis())
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory, env=self.env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _redis(self) -> str:
        if self._server is None:
            self._server = Server(valkey_binary()).start()
        return self._server.url

    def stop(self) -> None:
        for process in self.background:
            process.terminate()
        ended = [(process, finish(process)) for process in self.background]
        if self._server is not None:
            self._server.remove()
        for process, (_, errors) in ended:
            assert process.returncode == 0, errors


def matches(printed: str, expected: str) -> bool:
    """Whether a command printed what the page says."""
    printed, expected = (re.sub(" +", " ", text) for text in (printed, expected))
    pattern = ".*".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end of a command, for a bounded time; return what it printed."""
    try:
        return process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, errors = process.communicate()
        return printed, f"it did not end within {LIMIT} s\n{errors}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples(
    page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := [package for package in needs(page) if importlib.util.find_spec(package) is None]:
        for block in blocks(page):
            if block.language == "python":
                block.compiled()
        unavailable(", ".join(missing))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.ExitStack() as stack:
        server = None
        if POSTGRES in page.read_text():
            server = stack.enter_context(postgres(monkeypatch))
        commands, printed = Commands(tmp_path, tmp_path_factory.mktemp("bin")), ""
        stack.callback(commands.stop)
        for block in blocks(page):
            if block.language == "python":
                printed = run_python(block, namespace, tmp_path)
            elif block.language == "text" and "output" in block.options:
                assert printed == block.code, f"{name(page)}:{block.line}"
            elif block.language == "console" and "no-run" not in block.options:
                commands.run(block)
            elif block.language == "sql" and "run" in block.options:
                assert server is not None, f"{name(page)}:{block.line}"
                asyncio.run(execute(server.url, "app", block.code))


@contextlib.contextmanager
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """Start a server with a user and a database ``app``, and have the environment name it."""
    server = PostgresServer().start()
    try:
        asyncio.run(execute(server.url, "postgres", "create role app login", "create database app"))
        names = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "jq", "SSLMODE": "disable"}
        for variable, value in names.items():
            monkeypatch.setenv(f"PG{variable}", value)
        yield server
    finally:
        server.remove()


async def execute(url: str, database: str, *statements: str) -> None:
    """Carry out statements as a superuser."""
    connection = await asyncpg.connect(url, database=database)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def run_python(block: Block, namespace: dict[str, Any], directory: Path) -> str:
    """Run a block, or write its file; return what it printed."""
    program = block.compiled()
    if block.file is not None:
        (directory / block.file).write_text(block.code)
        return ""
    if "no-run" in block.options:
        return ""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(program, namespace)  # type: ignore[call-overload]
    return output.getvalue()


def test_nearly_all_examples_run() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language == "python"]
    skipped = [f"{name(block.page)}:{block.line}" for block in found if "no-run" in block.options]
    assert len(found) >= 25
    assert len(skipped) <= 3, skipped


def test_the_tutorial_leaves_nothing_out() -> None:
    found = blocks(ROOT / "docs/tutorial.md")
    assert {block.language for block in found} == {"python", "console", "text"}
    assert not [block.line for block in found if "no-run" in block.options]
    assert all(block.code.startswith("$ ") for block in found if block.language == "console")


def test_the_first_program_is_short() -> None:
    program = next(block for block in blocks(PAGES[0]) if block.language == "python")
    assert len([line for line in program.code.splitlines() if line]) <= 15
