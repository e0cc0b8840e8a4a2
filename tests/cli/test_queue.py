"""queue: look at queues as a whole, hold them, empty them; on every store that processes share."""

from __future__ import annotations

import re

import pytest

from tests.cli.terminals import Terminal, shown


@pytest.fixture
def queues(anywhere, data) -> str:
    """URL of a store with two queues."""
    for id in ("a", "b"):
        data("enqueue", id, "{}", "-s", anywhere, "-q", "mail")
    data("enqueue", "later", "{}", "-s", anywhere, "-q", "mail", "--delay", "3600")
    data("enqueue", "r", "{}", "-s", anywhere, "-q", "reports")
    return anywhere


def test_ls_lists_every_queue(queues, cli, data):
    mail, reports = data("queue", "ls", "-s", queues)["queues"]
    assert (mail["queue"], mail["counts"]["queued"], mail["counts"]["scheduled"], mail["total"]) == (
        "mail",
        2,
        1,
        3,
    )
    assert (reports["queue"], reports["paused"], reports["workers"]) == ("reports", False, [])
    heads, first, second = cli("queue", "ls", "-s", queues).stdout.splitlines()
    assert heads.split() == ["queue", "queued", "processing", "scheduled", "failing", "failed", "oldest",
                             "workers"]  # fmt: skip
    assert re.fullmatch(r"mail +2 +0 +1 +0 +0  [\d.]+ s +0", first)
    assert second.startswith("reports")


def test_show_has_the_workers(anywhere, cli, data, spawn):
    worker = spawn("worker", "tasks:queue", "--name", "left", STORE=anywhere)
    worker.expect("queue default started")
    data("enqueue", "a", "{}", "-s", anywhere, "--wait")
    stats = data("queue", "show", "default", "-s", anywhere)
    assert stats["counts"]["completed"] == 1
    (known,) = stats["workers"]
    assert (known["worker_id"], known["running"]) == ("left", 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", known["seen_at"])
    table = cli("queue", "show", "-s", anywhere, env={"JOBQUEUE_QUEUE": "default"}).stdout
    assert re.search(r"^completed +1$", table, re.MULTILINE)
    assert re.search(r"^left +\S+ +\d+ +0 .* ago$", table, re.MULTILINE)
    worker.end()


def test_a_paused_queue_starts_nothing_until_it_is_resumed(anywhere, cli, data, spawn):
    worker = spawn("worker", "tasks:queue", STORE=anywhere)
    worker.expect("queue default started")
    data("enqueue", "before", "{}", "-s", anywhere, "--wait")
    assert data("queue", "pause", "default", "-s", anywhere) == {"queue": "default", "paused": True}
    data("enqueue", "a", "{}", "-s", anywhere)
    assert data("wait", "a", "-s", anywhere, "--timeout", "0.5", code=4)["error"]["code"] == "timeout"
    assert data("queue", "show", "default", "-s", anywhere)["paused"] is True
    assert cli("queue", "ls", "-s", anywhere).stdout.splitlines()[1].endswith("  paused")
    late = data("queue", "drain", "default", "-s", anywhere, "--timeout", "0", code=4)
    assert (late["drained"], late["error"]["code"]) == (False, "timeout")
    assert data("queue", "resume", "default", "-s", anywhere) == {"queue": "default", "paused": False}
    assert data("wait", "a", "-s", anywhere)["state"] == "completed"
    assert data("queue", "drain", "default", "-s", anywhere) == {"queue": "default", "drained": True}
    worker.end()


def test_clear_cancels_what_waits_and_forgets_the_rest_if_asked(queues, cli, data):
    assert data("queue", "clear", "mail", "-s", queues, "--dry-run") == {
        "queue": "mail", "dry_run": True, "matching": 3,
    }  # fmt: skip
    said = data("queue", "clear", "mail", "-s", queues, code=2)["error"]["message"]
    assert said.startswith("Cancel 3 jobs of queue mail? There is no terminal to ask")
    assert data("queue", "clear", "mail", "-s", queues, "--yes") == {"queue": "mail", "cancelled": 3}
    assert data("queue", "show", "mail", "-s", queues)["counts"]["cancelled"] == 3
    assert (
        cli("queue", "clear", "mail", "-s", queues, "-y", "--ended").stdout == "queue    mail\nremoved  3\n"
    )
    assert data("status", "r", "-s", queues, "-q", "reports")["state"] == "queued"


@pytest.mark.parametrize("command", [["show"], ["drain"], ["clear", "--yes"]])
def test_a_queue_that_nobody_has_used_is_refused(made, data, command):
    data("enqueue", "a", "1", "-s", made, "-q", "mail")
    said = data("queue", command[0], "typo", *command[1:], "-s", made, code=3)["error"]["message"]
    assert said.endswith("its queues are mail")


def test_a_queue_can_be_paused_before_it_is_used(made, cli, data):
    result = cli("queue", "pause", "new", "-s", made)
    assert result.stdout == "queue   new\npaused  yes\n"
    assert "neither jobs nor workers yet" in result.stderr
    data("enqueue", "a", "1", "-s", made, "-q", "new")
    assert data("queue", "show", "new", "-s", made)["paused"] is True


def test_an_empty_store_and_a_missing_name(made, cli):
    assert "no queue yet" in cli("queue", "ls", "-s", made).stderr
    assert "NAME" in cli("queue", "pause", "-s", made, code=2).stderr


def test_clear_asks_on_a_terminal(made, data):
    data("enqueue", "a", "1", "-s", made, "-q", "mail")
    terminal = Terminal("queue", "clear", "mail", "-s", made)
    terminal.read_until(r"Cancel 1 job of queue mail\? \[y/N\]: ")
    terminal.type("y\n")
    assert terminal.wait() == 0
    assert len(shown("queue", "ls", "-s", made).splitlines()) == 2  # a table fits in 80 columns
    narrow = shown("queue", "ls", "-s", made, columns=40)
    assert all(len(re.sub(r"\x1b\[[\d;]*m", "", line)) <= 40 for line in narrow.splitlines())
    assert "queued" in narrow


def test_limits_are_shown_set_and_given_back(made, cli, data):
    data("enqueue", "a", "{}", "-s", made, "-q", "mail")
    none = {"running": None, "rate": None, "group_running": None, "group_rate": None}
    assert data("queue", "limits", "mail", "-s", made) == {"queue": "mail", "limits": none, "set_by": None}
    options = ("--running", "5", "--rate", "100/60+20", "--group-rate", "3")
    found = data("queue", "limits", "mail", "-s", made, *options)
    rate, group_rate = {"count": 100, "per": 60.0, "burst": 20}, {"count": 3, "per": 1.0, "burst": 1}
    assert found["limits"] == none | {"running": 5, "rate": rate, "group_rate": group_rate}
    assert found["set_by"] == "operator"
    assert data("queue", "show", "mail", "-s", made)["limits"] == found["limits"]
    table = cli("queue", "limits", "mail", "-s", made).stdout
    assert re.search(r"^rate +100 in 60 s, 20 at once$", table, re.MULTILINE)
    assert data("queue", "limits", "mail", "-s", made, "--reset")["set_by"] == "program"
    assert data("queue", "limits", "mail", "-s", made, "--none")["limits"] == none


@pytest.mark.parametrize(
    "options",
    [
        ("--running", "0"), ("--running", "x"), ("--rate", "0"), ("--rate", "1/0"), ("--rate", "fast"),
        ("--rate", "nan/1"), ("--group-rate", "-1"), ("--none", "--reset"), ("--none", "--running", "3"),
    ],
)  # fmt: skip
def test_bad_limits_are_refused(options, made, data, cli):
    data("enqueue", "a", "{}", "-s", made, "-q", "mail")
    cli("queue", "limits", "mail", "-s", made, *options, code=2)
    assert data("queue", "limits", "mail", "-s", made)["set_by"] is None
