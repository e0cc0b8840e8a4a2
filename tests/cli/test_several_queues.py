"""worker: several queues, or an App, in one process."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.cli.processes import get, until_ready

BOTH = ("several:mail", "several:reports")


def test_queues_of_one_store_are_served_by_one_process(store, data, spawn):
    worker = spawn("worker", *BOTH, "--health-port", "0")
    path = store.removeprefix("file://")
    worker.expect(
        rf"worker of several:mail several:reports: queues mail .concurrency 1, handler work., "
        rf"reports .concurrency 2, handler work. on the new file://{path} .as its code says., with a reaper, "
        rf"pid {worker.pid}"
    )
    port = int(worker.expect(r"health on http://127.0.0.1:(\d+)")[1])
    until_ready(port)
    for queue in ("mail", "reports"):
        assert data("enqueue", "a", "{}", "-s", store, "-q", queue, "--wait")["result"]["pid"] == worker.pid
    assert len(data("stats", "-s", store)["reapers"]) == 1
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    lines = "\n".join(worker.lines["err"])
    assert "queue mail stopped" in lines
    assert "queue reports stopped" in lines
    assert data("stats", "-s", store)["reapers"] == []


def test_options_apply_to_each_queue(store, tmp_path, data, spawn):
    other = f"file://{tmp_path}/other"
    worker = spawn("worker", *BOTH, "-s", other, "--concurrency", "3", "--name", "left", "--no-reaper")
    worker.expect(r"mail .concurrency 3, .*, reports .concurrency 3, .* .from --storage .*without a reaper")
    worker.expect("queue reports started, worker left")
    for queue in ("mail", "reports"):
        data("enqueue", "a", '{"sleep": 600}', "-s", other, "-q", queue)
        worker.expect("running a", "out")
        assert data("status", "a", "-s", other, "-q", queue)["worker_id"] == "left"
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    for queue in ("mail", "reports"):
        assert data("status", "a", "-s", other, "-q", queue)["state"] == "queued"


def test_one_timeout_bounds_the_stop_of_all(store, data, spawn):
    worker = spawn("worker", *BOTH, "--timeout", "0")
    worker.expect("queue reports started")
    for queue in ("mail", "reports"):
        data("enqueue", "a", '{"sleep": 600}', "-s", store, "-q", queue)
        worker.expect("running a", "out")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_an_app_is_served_with_its_own_reaper_unless_told(store, data, spawn):
    worker = spawn("worker", "several:app")
    worker.expect(r"worker of several:app: queues mail .*, reports .*, idle .*no handler.* with a reaper")
    worker.expect("reaper .* leads")
    assert data("enqueue", "a", "{}", "-s", store, "-q", "reports", "--wait")["result"]["pid"] == worker.pid
    worker.end()
    spawn("worker", "several:plain").expect("queue mail on .* without a reaper")
    spawn("worker", "several:plain", "--reaper").expect("queue mail on .* with a reaper")
    spawn("worker", "several:app", "--no-reaper").expect("without a reaper")


@pytest.mark.parametrize("targets", [BOTH, ("several:app",)])
def test_several_processes_serve_them_all(store, data, spawn, targets):
    fleet = spawn("worker", *targets, "--processes", "2", "--health-port", "0")
    fleet.expect(f"2 worker processes of {' '.join(targets)} on the queue's own store")
    port = int(fleet.expect(r"health on http://127.0.0.1:(\d+)")[1])
    until_ready(port)
    assert get(port, "/readyz") == (200, "ready\n")
    for queue in ("mail", "reports"):
        assert data("enqueue", "a", "{}", "-s", store, "-q", queue, "--wait")["state"] == "completed"
    workers = {queue["queue"]: len(queue["workers"]) for queue in data("stats", "-s", store)["queues"]}
    assert (workers["mail"], workers["reports"]) == (2, 2)
    fleet.signal(signal.SIGTERM)
    assert fleet.wait() == 0


def test_they_are_reloaded_together(store, project, spawn):
    worker = spawn("worker", *BOTH, "--reload")
    worker.expect("queue reports started")
    (project / "several.py").write_text((project / "several.py").read_text() + "\n")
    worker.expect("several.py has changed: restarting")
    worker.expect("queue mail started")
    worker.expect("queue reports started")


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ((), "Missing argument"),
        (("several:mail", "several:again"), "several:mail and several:again are both named 'mail'"),
        (("several:mail", "several:mail"), "several:mail and several:mail are both named 'mail'"),
        (("several:mail", "several:elsewhere"), "and several:elsewhere on the new file:"),
        (("several:mail", "several:app"), "several:app is an App, which has queues of its own"),
        (("several:app", "several:app"), "name it alone"),
        (("several:mail", "several:idle"), "several:idle has no handler"),
        (("several:handlerless",), "no queue of several:handlerless has a handler"),
        (("several:nothing",), "its queues are again, app, elsewhere, handlerless, idle, mail, plain"),
        (("several:os",), "is a module, not a jobqueue.Queue or App"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_together(cli, project, store, monkeypatch, targets, says):
    monkeypatch.chdir(project)
    monkeypatch.setenv("STORE", store)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("tasks", "several"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert says in cli("worker", *targets, code=2).stderr
    for name in ("tasks", "several"):
        sys.modules.pop(name, None)
