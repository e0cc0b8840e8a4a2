"""The command line as a shell sees it: in this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from jobqueue import open_storage
from jobqueue.cli.main import main
from tests.cli.processes import SEVERAL, TASKS, Process
from tests.services import Server, redis_binary
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import empty_schema


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with tasks.py."""
    path = tmp_path / "project"
    path.mkdir()
    (path / "tasks.py").write_text(TASKS)
    (path / "several.py").write_text(SEVERAL)
    return path


@pytest.fixture
def store(tmp_path: Path) -> str:
    """URL of a store that processes share, which does not exist yet."""
    return f"file://{tmp_path}/store"


@cache
def own_redis() -> Server:
    return Server(redis_binary()).start()


@pytest.fixture(params=["file", "redis", "postgres"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty store of each kind that processes share."""
    match request.param:
        case "file":
            yield request.getfixturevalue("made")
        case "redis":
            own_redis().command("FLUSHALL")
            yield own_redis().url
        case _:
            lent = empty_schema()
            schema = asyncio.run(lent.__aenter__())
            url = postgres_url()
            yield f"{url}{'&' if '?' in url else '?'}schema={quote(schema, safe='')}"
            asyncio.run(lent.__aexit__(None, None, None))


@pytest.fixture
def made(store: str) -> str:
    """URL of that store, which has been opened once."""

    async def make() -> None:
        storage = open_storage(store)
        await storage.open()
        await storage.close()

    asyncio.run(make())
    return store


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
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process; ``code`` is what it must exit with."""
    for name in [name for name in os.environ if name.startswith("JOBQUEUE_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, arguments, prog_name="jobqueue", **options)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.stderr
        return result

    return run


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
