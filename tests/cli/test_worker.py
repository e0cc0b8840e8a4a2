"""worker: real processes on a store of their own."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.cli.processes import get


def test_runs_jobs_of_other_processes_until_a_signal(store, data, worker):
    done = data("enqueue", "a", '{"n": 1}', "-s", store, "--wait")
    assert done["result"] == {"echo": {"n": 1}, "pid": worker.pid}
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "queue default stopped" in worker.lines["err"][-1]
    assert worker.lines["out"] == []


def test_the_first_line_says_what_it_works_on(store, tmp_path, spawn):
    path = store.removeprefix("file://")
    worker = spawn("worker", "tasks:queue")
    line = worker.expect("worker of")[0] and worker.lines["err"][0]
    assert f"worker of tasks:queue: queue default on the new file://{path} (as its code says)" in line
    assert f"concurrency 4, handler work, with a reaper, pid {worker.pid}" in line
    other = spawn("worker", "tasks:queue", "-s", f"{tmp_path}/other", "--concurrency", "1", "--no-reaper")
    other.expect(f"on the new file://{tmp_path}/other .from --storage instead of the queue's own file://{path}."
                 ", concurrency 1, handler work, without a reaper")  # fmt: skip
    third = spawn("worker", "tasks:queue", JOBQUEUE_STORAGE=store)
    third.expect(f"on file://{path} .from JOBQUEUE_STORAGE., concurrency 4")


def test_the_first_line_shows_no_password(spawn):
    worker = spawn("worker", "tasks:queue", "-s", "redis://jobs:secret@127.0.0.1:1/3")
    worker.expect("queue default on .*127.0.0.1:1/3.* .from --storage")
    worker.wait()
    assert "secret" not in "\n".join(worker.lines["err"])


def test_a_queue_without_a_store_takes_that_of_the_command(project, store, data, spawn):
    (project / "plain.py").write_text(
        "from jobqueue import Queue\nqueue = Queue()\n@queue.execute\ndef work(job): return 7\n"
    )
    for options, env in ((("-s", store), {}), ((), {"JOBQUEUE_STORAGE": store})):
        worker = spawn("worker", "plain:queue", *options, **env)
        worker.expect("default started")
        assert data("enqueue", "-", "1", "-s", store, "--wait")["result"] == 7
        worker.end()
        assert "instead" not in "".join(worker.lines["err"])
    without = spawn("worker", "plain:queue")
    without.expect("Error: importing 'plain' raised InvalidArgumentError: storage: .* set JOBQUEUE_STORAGE")
    assert without.wait() == 2


def test_a_worker_sweeps_unless_it_must_not(store, data, spawn):
    dead = spawn("worker", "tasks:queue", "--no-reaper")
    dead.expect("queue default started")
    data("enqueue", "a", '{"sleep": 600}', "-s", store)
    dead.expect("running a", "out")
    dead.signal(signal.SIGKILL)
    dead.wait()
    assert not [line for line in dead.lines["err"] if "leads" in line]
    worker = spawn("worker", "tasks:queue")
    worker.expect("reaper .* leads")
    worker.expect("running a", "out")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert any("no longer leads" in line for line in worker.lines["err"])
    assert data("stats", "-s", store)["reapers"] == []


def test_its_name(store, data, spawn):
    worker = spawn("worker", "tasks:queue", "--name", "left")
    worker.expect("queue default started, worker left")
    data("enqueue", "a", '{"sleep": 600}', "-s", store)
    worker.expect("running a", "out")
    assert data("status", "a", "-s", store)["worker_id"] == "left"
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert data("stats", "-s", store)["queues"][0]["workers"] == []


def test_first_signal_drains(store, data, worker):
    data("enqueue", "a", '{"sleep": 0.5}', "-s", store)
    worker.expect("running a", "out")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert data("status", "a", "-s", store)["state"] == "completed"


def test_second_signal_gives_the_jobs_back(store, data, worker):
    data("enqueue", "a", '{"sleep": 600}', "-s", store)
    worker.expect("running a", "out")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    status = data("status", "a", "-s", store)
    assert (status["state"], status["attempts"]) == ("queued", 0)


def test_timeout_gives_the_jobs_back(store, data, spawn):
    worker = spawn("worker", "tasks:queue", "--timeout", "0")
    worker.expect("started")
    data("enqueue", "a", '{"sleep": 600}', "-s", store)
    worker.expect("running a", "out")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert data("status", "a", "-s", store)["state"] == "queued"


def test_concurrency_and_storage_replace_the_queues_own(tmp_path, data, spawn):
    other = f"file://{tmp_path}/other"
    worker = spawn("worker", "tasks:private", "-s", other, "--concurrency", "1")
    worker.expect("queue private started")
    for id in ("a", "b"):
        data("enqueue", id, '{"sleep": 600}', "-s", other, "-q", "private")
    worker.expect("running a", "out")
    counts = data("stats", "-s", other)["queues"][0]
    assert (counts["processing"], counts["queued"]) == (1, 1)
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("tasks", "MODULE:QUEUE"),
        ("tasks:", "MODULE:QUEUE"),
        ("tasks.py:queue", "'tasks.py' is a file, not the name of a module"),
        ("nowhere:queue", "no module named 'nowhere'"),
        ("tasks.deep:queue", "tasks.deep"),
        ("tasks:nothing", "its queues are idle, private, queue"),
        ("tasks:queue.nothing", "its queues are"),
        ("tasks:number", "is a int, not a jobqueue.Queue"),
        ("tasks:idle", "@idle.execute"),
        ("tasks:private", "lives in one process"),
        ("broken:queue", "ZeroDivisionError: division by zero at"),
        ("imports:queue", "No module named 'not_there'"),
        ("leaves:queue", "SystemExit"),
        ("wrong:queue", "SyntaxError"),
    ],
)
def test_what_cannot_be_served(cli, project, store, monkeypatch, target, says):
    for name, text in {"broken": "1/0", "imports": "import not_there", "leaves": "raise SystemExit(0)",
                       "wrong": "def"}.items():  # fmt: skip
        (project / f"{name}.py").write_text(text)
    monkeypatch.chdir(project)
    monkeypatch.setenv("STORE", store)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    result = cli("worker", target, code=2)
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    sys.modules.pop("tasks", None)


def test_debug_shows_the_traceback(spawn, project):
    (project / "broken.py").write_text("1/0")
    process = spawn("--debug", "worker", "broken:queue")
    process.expect("Traceback")
    process.expect("ZeroDivisionError")
    process.expect("Error: importing 'broken'")
    assert process.wait() == 2


def test_health(store, data, spawn):
    worker = spawn("worker", "tasks:queue", "--health-port", "0")
    port = int(worker.expect(r"health on http://127.0.0.1:(\d+)")[1])
    worker.expect("queue default started")
    data("enqueue", "a", "{}", "-s", store, "--wait")  # so it has claimed
    assert get(port, "/healthz") == (200, "alive\n")
    assert get(port, "/readyz") == (200, "ready\n")
    assert get(port, "/nothing")[0] == 404
    data("enqueue", "b", '{"sleep": 600}', "-s", store)
    worker.expect("running b", "out")
    worker.signal(signal.SIGTERM)
    # It drains: alive, and no longer ready. The signal takes a moment to arrive.
    for _ in range(1000):
        if get(port, "/readyz") == (503, "not ready\n"):
            break
    else:
        pytest.fail("ready while it drains")
    assert get(port, "/healthz")[0] == 200
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_health_port_that_is_taken(spawn):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = spawn("worker", "tasks:queue", "--health-port", str(taken.getsockname()[1]))
        process.expect("Error: cannot serve health .* another --health-port")
        assert process.wait() == 1


def test_json_logs(store, data, spawn):
    worker = spawn("worker", "tasks:queue", "--log-format", "json")
    started = json.loads(worker.expect("started")[0] and worker.lines["err"][-1])
    assert started["level"] == "info"
    assert started["process"] == worker.pid
    data("enqueue", "a", '{"fail": "two\\nlines"}', "-s", store)
    worker.expect("two")
    assert json.loads(worker.lines["err"][-1])["level"] == "error"


def test_log_level(store, data, spawn):
    worker = spawn("worker", "tasks:queue", JOBQUEUE_WORKER_LOG_LEVEL="error")
    data("enqueue", "a", "{}", "-s", store, "--wait")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.lines["err"] == []


def test_systemd_is_told(store, spawn, tmp_path: Path):
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        worker = spawn("worker", "tasks:queue", NOTIFY_SOCKET=str(address), WATCHDOG_USEC="3000000")
        said: list[str] = []

        def until(state: str) -> None:
            while state not in said:
                said.extend(manager.recv(4096).decode().split("\n"))

        until("READY=1")
        until("STATUS=ready")
        until("WATCHDOG=1")
        worker.signal(signal.SIGTERM)
        until("STOPPING=1")
        assert worker.wait() == 0


def test_unreachable_store(spawn):
    process = spawn("worker", "tasks:queue", "-s", "redis://127.0.0.1:1")
    process.expect("Error: .*--storage")
    assert process.wait() == 5
