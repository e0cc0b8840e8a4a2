"""What ``--health-port`` serves under ``/metrics``: of one process, of a fleet, and without the package."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from jobqueue.cli.serving import fleet_metrics
from jobqueue.cli.serving.fleet_metrics import (
    METRICS_VARIABLE,
    ChildMetrics,
    MetricsLink,
    merged,
    metrics_link,
)
from jobqueue.cli.serving.health import respond
from tests.cli.processes import TASKS, Process, get, until_ready
from tests.services import free_port
from tests.support import until, within


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_serves_its_metrics(tmp_path: Path, processes: int) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    port, store = free_port(), (tmp_path / "store").as_uri()
    worker = Process(
        "worker", "tasks:queue", "--processes", str(processes), "--health-port", str(port),
        cwd=tmp_path, STORE=store,
    )  # fmt: skip
    try:
        worker.expect("health on")
        until_ready(port)
        answer = Process("enqueue", "a", "{}", "-s", store, "--wait", cwd=tmp_path)
        assert answer.wait() == 0, answer.lines
        status, text = get(port, "/metrics")
    finally:
        worker.end()
    assert status == 200
    found = samples(text)
    ended = [
        value for name, labels, value in found if name == "jobqueue_jobs_ended_total" and labels["queue"]
    ]
    assert sum(ended) == 1
    assert ("jobqueue_store_up", {} if processes == 1 else {"process": "1"}, 1.0) in found
    numbers = {labels.get("process") for _, labels, _ in found}
    assert numbers == ({None} if processes == 1 else {"1", "2"})
    assert any(name == "process_cpu_seconds_total" for name, _, _ in found)


def test_a_reaper_serves_its_metrics(tmp_path: Path) -> None:
    port = free_port()
    reaper = Process("reaper", "-s", (tmp_path / "store").as_uri(), "--health-port", str(port), cwd=tmp_path)
    try:
        reaper.expect("health on")
        until_ready(port)
        status, text = get(port, "/metrics")
    finally:
        reaper.end()
    assert status == 200
    assert ("jobqueue_reaper_leader", {}, 1.0) in samples(text)


def test_without_the_package_the_page_names_it() -> None:
    status, text = respond(b"GET /metrics HTTP/1.1", ready=True)
    assert status == 404
    assert "pip install 'jobqueue[prometheus]'" in text


def test_metrics_of_processes_are_put_together_by_number() -> None:
    text = b'# HELP a_total What.\n# TYPE a_total counter\na_total{queue="q\\"\\\\\\n"} 3.0\n'
    found = samples(merged([(1, text), (2, b"no metrics at all {"), (3, text), (4, b"")]).decode())
    assert found == [("a_total", {"process": number, "queue": 'q"\\\n'}, 3.0) for number in ("1", "3")]


async def test_a_child_answers_each_question_and_a_late_answer_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    gate, asked = asyncio.Event(), 0

    async def render() -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            await gate.wait()
        if asked == 2:
            raise ValueError("a collector")
        return b"x" * 200_000 + b"%d" % asked

    link = MetricsLink(theirs.detach(), render)
    following = asyncio.create_task(link.follow())
    child = ChildMetrics(ours)
    monkeypatch.setattr(fleet_metrics, "PATIENCE", 0.05)
    assert await within(child.ask()) is None
    monkeypatch.setattr(fleet_metrics, "PATIENCE", 5.0)
    gate.set()
    assert await within(child.ask()) == b""
    assert await within(child.ask()) == b"x" * 200_000 + b"3"
    following.cancel()
    link._link.close()
    assert await within(child.ask()) is None
    await child.close()


async def test_a_child_that_dies_while_it_is_asked_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    child = ChildMetrics(ours)
    asking = asyncio.create_task(child.ask())
    await until(lambda: child._answer is not None)
    theirs.close()
    assert await within(asking) is None
    await child.close()


async def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_metrics, "LONGEST", 100)
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with theirs:
        child = ChildMetrics(ours)
        asking = asyncio.create_task(child.ask())
        await until(lambda: child._answer is not None)
        theirs.sendall(fleet_metrics._HEAD.pack(1, 101))
        assert await within(asking) is None
        assert await within(child.ask()) is None
        await child.close()


def test_the_variable_of_the_link_is_not_inherited() -> None:
    environ = {METRICS_VARIABLE: "nonsense"}
    assert metrics_link(environ, None) == []  # type: ignore[arg-type]
    assert environ == {}
    assert METRICS_VARIABLE not in os.environ
