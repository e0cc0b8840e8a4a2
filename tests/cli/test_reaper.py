"""reaper: recovers the jobs of dead workers, alone or as one of several."""

from __future__ import annotations

import os
import signal

from tests.cli.processes import until_ready


def stalled(store, data, spawn, id: str = "a") -> None:
    """Have a worker die with a job."""
    worker = spawn("worker", "tasks:queue")
    worker.expect("queue default started")
    data("enqueue", id, '{"sleep": 600}', "-s", store)
    worker.expect(f"running {id}", "out")
    worker.signal(signal.SIGKILL)
    worker.wait()


def test_recovers_the_job_of_a_dead_worker(store, data, spawn):
    stalled(store, data, spawn)
    reaper = spawn("reaper", "-s", store, "--sweep-interval", "0.2")
    reaper.expect(r"job 'a' of default: worker .* lost its lease")
    assert data("status", "a", "-s", store)["state"] == "queued"
    reaper.signal(signal.SIGTERM)
    assert reaper.wait() == 0
    assert reaper.lines["out"] == []


def test_its_first_line_says_what_it_works_on(store, spawn):
    path = store.removeprefix("file://")
    reaper = spawn("reaper", "-s", store, "--sweep-interval", "0.5")
    reaper.expect(
        f"reaper of all queues on the new file://{path} .from --storage., "
        f"sweeps every 0.5 s without an election, pid {reaper.pid}"
    )
    reaper = spawn("reaper", "-q", "a", "-q", "b", "--leader-election", JOBQUEUE_STORAGE=store)
    reaper.expect("reaper of queues a, b on file://.* .from JOBQUEUE_STORAGE., sweeps .* while it leads")


def test_looks_after_named_queues_only(store, data, spawn):
    stalled(store, data, spawn)
    other = spawn("reaper", "-s", store, "-q", "other", "--sweep-interval", "0.05", "--health-port", "0")
    port = int(other.expect(r"health on http://127.0.0.1:(\d+)")[1])
    until_ready(port)
    reaper = spawn("reaper", "-s", store, JOBQUEUE_REAPER_QUEUE="other default",
                   JOBQUEUE_REAPER_SWEEP_INTERVAL="0.2")  # fmt: skip
    reaper.expect("job 'a' of default")
    other.signal(signal.SIGTERM)
    assert other.wait() == 0
    assert not [line for line in other.lines["err"] if "lost its lease" in line]


def term_of(reaper) -> int:
    return int(reaper.expect(r"leads, term (\d+)")[1])


def test_leader_and_follower(store, data, spawn):
    options = ("-s", store, "--leader-election", "--lock-ttl", "2", "--health-port", "0")
    first = spawn("reaper", *options)
    term = term_of(first)
    second = spawn("reaper", *options)
    port = int(second.expect(r"health on http://127.0.0.1:(\d+)")[1])
    until_ready(port)  # a follower that can reach the store is ready
    shown = data("stats", "-s", store)["reaper"]
    assert shown["term"] == term
    assert 0 < shown["expires_in"] <= 2
    first.signal(signal.SIGTERM)
    second_term = term_of(second)
    assert second_term > term
    assert first.wait() == 0
    os.kill(second.pid, signal.SIGKILL)
    third = spawn("reaper", *options)
    assert term_of(third) > second_term


def test_lock_options_need_an_election(cli, store):
    assert "--leader-election" in cli("reaper", "-s", store, "--lock-ttl", "3", code=2).stderr


def test_bad_intervals(cli, store):
    said = cli(
        "reaper", "-s", store, "--leader-election", "--lock-ttl", "3", "--renewal-interval", "3", code=2
    )
    assert "renewal_interval" in said.stderr
