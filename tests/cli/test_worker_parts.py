"""worker --burst, --task, --queue: a part of the work, or all there is and no more; alone and in a fleet."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

PARTS = """
import os, time
from jobqueue import App, Queue

mail = Queue(os.environ["STORE"], "mail")
reports = Queue(os.environ["STORE"], "reports")
app = App(os.environ["STORE"], [mail, reports])

@mail.task
def send(to): return f"sent to {to}"

@mail.task
def hang(): time.sleep(600)

@mail.execute
def other(job): return "other"

@reports.execute
async def report(job):
    if job.payload:
        await mail.enqueue(f"{job.id}:mail", 1)
    return "reported"
"""


@pytest.fixture
def parts(project: Path) -> Path:
    (project / "parts.py").write_text(PARTS)
    return project


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_a_burst_runs_all_that_is_ready_and_ends(anywhere, parts, data, spawn, options):
    for number in range(5):
        data("enqueue", f"r{number}", "1", "-s", anywhere, "-q", "reports")
    data("enqueue", "later", "1", "-s", anywhere, "-q", "reports", "--delay", "3600")
    data("enqueue", "bad", '["a", "b", "c"]', "--task", "send", "-s", anywhere, "-q", "mail")
    burst = spawn("worker", "parts:app", "--burst", *options, STORE=anywhere)
    assert burst.wait() == 0, burst.lines
    counts = {each["queue"]: each for each in data("stats", "-s", anywhere, "--sample", "0")["queues"]}
    assert (counts["reports"]["completed"], counts["reports"]["scheduled"]) == (5, 1)
    if not options:  # in a fleet each process ends when it finds nothing
        assert (counts["mail"]["completed"], counts["mail"]["failed"]) == (5, 1)
        assert any("no job is ready: ending" in line for line in burst.lines["err"])


def test_a_burst_of_nothing_ends_at_once(anywhere, parts, spawn):
    assert spawn("worker", "parts:app", "--burst", STORE=anywhere).wait() == 0


def test_a_burst_ends_by_signals_too(made, data, spawn):
    data("enqueue", "a", '{"sleep": 600}', "-s", made)
    burst = spawn("worker", "tasks:queue", "--burst")
    burst.expect("running a", "out")
    burst.signal(signal.SIGTERM)
    burst.signal(signal.SIGINT)
    assert burst.wait() == 0
    assert data("status", "a", "-s", made)["state"] == "queued"


def test_a_process_of_a_bursting_fleet_that_dies_is_replaced(made, data, spawn):
    data("enqueue", "a", '{"exit": 3}', "-s", made)
    burst = spawn("worker", "tasks:queue", "--burst", "--processes", "2")
    burst.expect("worker process .* exited with code 3, next one in")
    assert burst.wait() == 0


def test_a_burst_that_cannot_start_says_so(parts, made, cli, spawn):
    for options in ([], ["--processes", "2"]):
        burst = spawn("worker", "parts:nothing", "--burst", *options)
        assert burst.wait() == 2
    assert "--reload" in cli("worker", "parts:app", "--burst", "--reload", code=2).stderr


def test_one_queue_of_an_app(anywhere, parts, data, spawn):
    worker = spawn("worker", "parts:app", "--queue", "reports", STORE=anywhere)
    first = worker.expect("worker of") and worker.lines["err"][0]
    assert "worker of parts:app: queue reports on" in first
    assert "handler report" in first
    assert data("enqueue", "r", "1", "-s", anywhere, "-q", "reports", "--wait")["result"] == "reported"
    assert data("status", "r:mail", "-s", anywhere, "-q", "mail")["state"] == "queued"
    worker.end()
    other = spawn("worker", "parts:mail", "parts:reports", "--queue", "mail", "--burst", STORE=anywhere)
    assert other.wait() == 0
    assert data("status", "r:mail", "-s", anywhere, "-q", "mail")["state"] == "completed"


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_one_task_of_a_queue(anywhere, parts, data, spawn, options):
    data("enqueue", "hang", "[]", "--task", "hang", "-s", anywhere, "-q", "mail")
    data("enqueue", "plain", "1", "-s", anywhere, "-q", "mail")
    worker = spawn("worker", "parts:app", "--task", "send", *options, STORE=anywhere)
    worker.expect("only task send")
    sent = data("enqueue", "a", '["ada"]', "--task", "send", "-s", anywhere, "-q", "mail", "--wait")
    assert sent["result"] == "sent to ada"
    worker.end()
    for id in ("hang", "plain"):
        left = data("job", "show", id, "-s", anywhere, "-q", "mail")
        assert (left["state"] in {"failing", "queued"}, left["attempts"]) == (True, 0)
    assert not [line for line in worker.lines["err"] if "LeftToOthers" in line]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--queue", "lost"], "'lost' is none of mail, reports"),
        (["--task", "lost"], "'lost' is none of the tasks here: send, hang"),
        (["--queue", "reports", "--task", "send"], "'send' is none of the tasks here: none"),
    ],
)
def test_parts_that_there_are_not(parts, store, cli, monkeypatch, options, says):
    monkeypatch.chdir(parts)
    monkeypatch.setenv("STORE", store)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    assert says in cli("worker", "parts:app", *options, code=2).stderr
    sys.modules.pop("parts", None)
