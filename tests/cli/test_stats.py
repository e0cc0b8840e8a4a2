"""stats."""

from __future__ import annotations

import json
import signal

from tests.cli.processes import until_ready


def test_empty_store(made, cli, data):
    assert data("stats", "-s", made) == {"queues": [], "reaper": None, "reapers": [], "hindrances": []}
    result = cli("stats", "-s", made)
    assert result.stdout == ""
    assert "no job yet" in result.stderr


def test_a_queue_that_nobody_has_used_is_refused(made, cli, data, spawn):
    assert "no queue 'typo' in" in cli("stats", "-s", made, "-q", "typo", code=3).stderr
    data("enqueue", "a", "1", "-s", made, "-q", "mail")
    said = data("stats", "-s", made, "-q", "mail", "-q", "typo", code=3)["error"]["message"]
    assert said.endswith("its queues are mail")
    worker = spawn("worker", "tasks:queue", "--health-port", "0")
    until_ready(int(worker.expect(r"health on http://127.0.0.1:(\d+)")[1]))
    (shown,) = data("stats", "-s", made, "-q", "default")["queues"]
    assert len(shown["workers"]) == 1


def test_every_reaper_that_sweeps_is_shown(made, cli, data, spawn):
    alone = spawn("reaper", "-s", made, "-q", "mail", "--health-port", "0")
    until_ready(int(alone.expect(r"health on http://127.0.0.1:(\d+)")[1]))
    shown = data("stats", "-s", made)
    assert shown["reaper"] == shown["reapers"][0]
    assert (shown["reaper"]["term"], shown["reaper"]["expires_in"]) == (None, None)
    assert shown["reaper"]["seen"] < 30
    worker = spawn("worker", "tasks:queue")
    leader, term = worker.expect(r"reaper (\S+) leads, term (\d+)").groups()
    shown = data("stats", "-s", made)
    assert shown["reaper"]["leader"] == leader
    assert shown["reaper"]["term"] == int(term)
    assert len(shown["reapers"]) == 2
    table = cli("stats", "-s", made).stdout.splitlines()
    assert ["reaper", "term", "seen"] in [line.split() for line in table]
    assert any(line.startswith(leader) for line in table)


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
