"""stats."""

from __future__ import annotations

import json
import signal


def test_empty_store(store, cli, data):
    assert data("stats", "-s", store) == {"queues": [], "reaper": None}
    result = cli("stats", "-s", store)
    assert result.stdout == ""
    assert "no queue" in result.stderr


def test_counts_by_state_and_worker(store, cli, data, worker):
    data("enqueue", "done", "{}", "-s", store, "--wait")
    data("enqueue", "late", "{}", "-s", store, "--delay", "60")
    data("enqueue", "busy", '{"sleep": 600}', "-s", store)
    worker.expect("running busy", "out")
    data("enqueue", "mail-1", "{}", "-s", store, "-q", "mail")
    default, mail = data("stats", "-s", store)["queues"]
    assert (default["queue"], default["completed"], default["scheduled"], default["processing"]) == (
        "default", 1, 1, 1,
    )  # fmt: skip
    (known,) = default["workers"]
    assert known["running"] == 1
    assert known["seen"] < 30
    assert (mail["queue"], mail["queued"], mail["workers"]) == ("mail", 1, [])
    assert 0 <= mail["oldest_waiting"] < 30
    only = data("stats", "-s", store, "-q", "mail")["queues"]
    assert [queue["queue"] for queue in only] == ["mail"]


def test_table(store, cli, worker):
    cli("enqueue", "done", "{}", "-s", store, "--wait")
    lines = cli("stats", "-s", store).stdout.splitlines()
    assert lines[0].split() == ["queue", "scheduled", "queued", "processing", "failing", "completed",
                                "failed", "cancelled", "oldest", "rate"]  # fmt: skip
    assert lines[1].split() == ["default", "0", "0", "0", "0", "1", "0", "0", "-", "0/s"]
    assert lines[3].split() == ["queue", "worker", "running", "seen"]
    assert not any(line.endswith(" ") for line in lines)


def test_watch_goes_on_until_interrupted(store, data, spawn):
    data("enqueue", "a", "{}", "-s", store)
    process = spawn("stats", "-s", store, "-o", "json", "--watch", "--interval", "0.05")
    for _ in range(3):
        process.expect("queues", "out")
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.lines["err"] == ["Error: interrupted"]
    assert all(json.loads(line)["queues"][0]["queued"] == 1 for line in process.lines["out"])
