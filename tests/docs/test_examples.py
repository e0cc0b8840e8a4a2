"""The programs of docs/examples, as processes beside a worker."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import pytest

from jobqueue.runtime.ids import unique_id
from tests.cli.processes import BOUND, environ, get
from tests.docs.doc_pages import DOCS
from tests.services import Server, free_port, redis_binary, unavailable
from tests.storage.postgres.server import postgres_url

EXAMPLES = DOCS / "examples"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program of the examples on a store of its own; all are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=EXAMPLES, text=True,
            env=environ(**{"JOBQUEUE_STORAGE": (tmp_path / "store").as_uri(), **variables}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def worker(start: Start) -> None:
    start("-m", "jobqueue", "worker", "tasks:queue")


def test_every_program_is_in_the_list() -> None:
    listed = re.findall(r"^\| \[`(\w+\.py)`\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.usefixtures("worker")
def test_the_script_prints_the_words_of_files(start: Start, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("to be or not")
    (tmp_path / "long").write_text("word " * 1234)
    script = start("count.py", *(str(tmp_path / name) for name in ("short", "long", "short")))
    printed, errors = script.communicate(timeout=BOUND)
    assert (script.returncode, errors) == (0, "")
    assert re.findall(r"^ *([\d,]+) .*/(\w+)$", printed, re.MULTILINE) == [
        ("4", "short"), ("1,234", "long"), ("4", "short"),
    ]  # fmt: skip


def test_each_tick_is_one_job_however_many_workers_there_are(start: Start) -> None:
    both = [start("-m", "jobqueue", "worker", "cron:app") for _ in range(2)]
    said: SimpleQueue[str] = SimpleQueue()

    def listen(lines: IO[str]) -> None:
        for line in lines:
            said.put(line)

    outputs = [process.stdout for process in both if process.stdout is not None]
    readers = [Thread(target=listen, args=(output,)) for output in outputs]
    for reader in readers:
        reader.start()
    heard: list[float] = []

    def note(line: str) -> None:
        if tick := re.fullmatch(r"heartbeat@(\S+)\n", line):
            heard.append(datetime.fromisoformat(tick[1]).timestamp())

    while len(heard) < 3:
        note(said.get(timeout=BOUND))
    for process in both:
        process.send_signal(signal.SIGTERM)
    for process, reader in zip(both, readers, strict=True):
        reader.join(BOUND)
        assert process.wait(BOUND) == 0
    while not said.empty():
        note(said.get())
    heard.sort()
    assert heard == [heard[0] + 2 * place for place in range(len(heard))], "none twice, none left out"


@pytest.mark.usefixtures("worker")
def test_the_web_application_answers_with_results_and_states(start: Start) -> None:
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("fastapi") is None:
        unavailable("uvicorn, fastapi")
    port = free_port()
    start("-m", "uvicorn", "web:app", "--port", str(port), "--log-level", "warning")
    deadline = time.monotonic() + BOUND
    while True:
        try:
            assert get(port, "/texts/hamlet")[0] == 404
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for text, words in (("to be or not", 4), ("to be", 2)):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/texts/hamlet",
            text.encode(),
            {"Content-Type": "text/plain"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=BOUND) as answer:
            assert (answer.status, answer.read()) == (200, b'{"words":%d}' % words)
    assert get(port, "/texts/hamlet") == (200, '{"state":"completed","words":2}')


def test_what_waits_is_run_without_a_worker(start: Start, tmp_path: Path) -> None:
    enqueue = start("-m", "jobqueue", "enqueue", "text:1", '"to be or not"', "-q", "words")
    assert enqueue.wait(BOUND) == 0, enqueue.communicate()
    for expected in ("1 completed, 0 failed, 0 recovered\n", "0 completed, 0 failed, 0 recovered\n"):
        assert start("serverless.py").communicate(timeout=BOUND) == (expected, "")


def test_a_program_of_its_own_shows_metrics_and_logs(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    port = free_port()
    monkeypatch.setenv("METRICS_PORT", str(port))
    worker = start("observed.py")
    asked = start("-m", "jobqueue", "enqueue", "text:1", '"to be or not"', "-q", "words", "--wait")
    assert asked.wait(BOUND) == 0, asked.communicate()
    deadline = time.monotonic() + BOUND
    while 'jobqueue_jobs_ended_total{queue="words",' not in get(port, "/metrics")[1]:
        assert time.monotonic() < deadline
    worker.send_signal(signal.SIGTERM)
    printed, errors = worker.communicate(timeout=BOUND)
    assert (worker.returncode, errors) == (0, "")
    assert any(json.loads(line).get("queue") == "words" for line in printed.splitlines())


def test_a_tenant_with_two_jobs_does_not_wait_for_one_with_twenty(start: Start) -> None:
    printed, errors = start("tenants.py").communicate(timeout=BOUND)
    assert errors == ""
    order = printed.split()
    assert sorted(order) == sorted([*(f"a{number}" for number in range(20)), "b0", "b1"])
    assert max(order.index("b0"), order.index("b1")) < 8


def test_a_web_application_shows_its_jobs_in_a_dashboard(start: Start) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("uvicorn", "fastapi", "jinja2")):
        unavailable("uvicorn, fastapi, jinja2")
    port = free_port()
    start("-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "warning")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/texts/hamlet", method="POST")
    deadline = time.monotonic() + BOUND
    while True:
        try:
            with urllib.request.urlopen(request, timeout=BOUND) as answer:
                assert answer.status == 202
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    status, page = get(port, "/jobs/")
    assert status == 200
    assert "words" in page


def test_jobs_of_a_guarded_worker_survive_the_loss_of_redis(start: Start) -> None:
    redis = Server(redis_binary()).start()
    try:
        url = urlsplit(postgres_url())
        ledger = urlunsplit(url._replace(query=f"{url.query}&schema=ledger_{unique_id().replace('-', '_')}"))
        servers = {"JOBQUEUE_STORAGE": redis.url, "JOBQUEUE_LEDGER": ledger}
        applied = start("-m", "jobqueue", "schema", "apply", **servers)
        assert applied.wait(BOUND) == 0, applied.communicate()
        enqueue = ("-m", "jobqueue", "enqueue", "-q", "words")
        for late in ((), ("--delay", "3600")):
            enqueued = start(*enqueue, f"text:{len(late)}", '"to be or not"', *late, **servers)
            assert enqueued.wait(BOUND) == 0, enqueued.communicate()
        worker = start("guard.py", **servers)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "text:0: 4 words\n"
        redis.command("FLUSHALL")
        heard: list[str] = []
        while "brought_back" not in heard:
            line = worker.stdout.readline()
            assert line, (heard, worker.communicate())
            heard.append(line.split(": ")[1])  # a job may run again of whose end the ledger had not heard
        assert "store_lost" in heard
        status = start("-m", "jobqueue", "status", "text:2", "-q", "words", "-o", "json", **servers)
        assert json.loads(status.communicate(timeout=BOUND)[0])["state"] == "scheduled"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(BOUND) == 0, worker.communicate()
    finally:
        redis.remove()
