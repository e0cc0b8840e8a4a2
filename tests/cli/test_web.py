"""The command ``web``, as a process."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobqueue import FileStorage, Queue
from jobqueue.cli.main import main
from tests.cli.processes import BOUND, environ


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A file store with a job."""

    async def make() -> None:
        queue: Queue[int, None] = Queue(FileStorage(tmp_path / "store", fsync=False), "mail")
        async with queue.producer():
            await queue.enqueue("a", 1)

    asyncio.run(make())
    return (tmp_path / "store").as_uri()


def request(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=BOUND) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_serves_a_store_until_it_is_told_to_stop(store: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "jobqueue", "web", "--port", "0", "--root-path", "/jobs/"],
        env=environ(JOBQUEUE_STORAGE=store, JOBQUEUE_WEB_CREDENTIALS="ops:secret"),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"dashboard on (http://127\.0\.0\.1:\d+)/jobs/", line)
        assert found is not None, line
        known = {"Authorization": "Basic " + base64.b64encode(b"ops:secret").decode()}
        assert request(f"{found[1]}/")[0] == 401
        status, page = request(f"{found[1]}/", **known)
        assert status == 200
        assert 'href="/jobs/queue?queue=mail"' in page
        with urllib.request.urlopen(
            urllib.request.Request(f"{found[1]}/events?page=overview", headers=known), timeout=BOUND
        ) as stream:
            assert stream.readline() == b"retry: 1000\n"
            process.send_signal(signal.SIGTERM)  # it does not wait for the stream
            assert process.wait(BOUND) == 0
        assert "secret" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "JOBQUEUE_WEB_CREDENTIALS"),
        (["--host", "::"], "JOBQUEUE_WEB_CREDENTIALS"),
        (["--host", "jobs.example"], "JOBQUEUE_WEB_CREDENTIALS"),
        (["--credentials", "nobody"], "USER:PASSWORD"),
        (["--root-path", "jobs"], "must begin with /"),
        (["--allow-host", "http://x"], "hosts"),
        (["nothing:here"], "no module named"),
    ],
)
def test_what_would_be_unsafe_or_is_wrong_is_refused(store: str, arguments: list[str], said: str) -> None:
    answer = CliRunner().invoke(main, ["web", "-s", store, *arguments])
    assert answer.exit_code == 2
    assert said in answer.output


def test_without_a_store_it_names_the_remedy() -> None:
    answer = CliRunner().invoke(main, ["web"], env={"JOBQUEUE_STORAGE": None})
    assert answer.exit_code == 2
    assert "--storage" in answer.output


def test_a_port_that_is_taken_is_said(store: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = subprocess.run(
            [sys.executable, "-m", "jobqueue", "web", "-s", store, "--port", port],
            capture_output=True, text=True, check=False, timeout=BOUND,
        )  # fmt: skip
    assert run.returncode == 1
    assert f"cannot serve on 127.0.0.1:{port}" in run.stderr
