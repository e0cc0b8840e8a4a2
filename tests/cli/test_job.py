"""job and dead: list, look at, cancel, run again, remove, watch; on every store that processes share."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobqueue.runtime.text import printable

SLEEPS = '{"sleep": 600}'


def ids(listing) -> list[str]:
    return [job["id"] for job in listing["jobs"]]


@pytest.fixture
def jobs(anywhere, data) -> str:
    """URL of a store with a few jobs that wait."""
    for id, options in {
        "mail-1": ["--group", "a", "--priority", "5"],
        "mail-2": ["--group", "b"],
        "later": ["--delay", "7200", "--group", "a"],
        "typed": ["--task", "send"],
    }.items():
        data("enqueue", id, "[]", "-s", anywhere, *options)
    return anywhere


@pytest.fixture
def failed(anywhere, cli, spawn) -> str:
    """URL of a store with a job that failed and one that completed."""
    worker = spawn("worker", "tasks:queue", STORE=anywhere)
    worker.expect("queue default started")
    cli("enqueue", "bad", '{"fail": "no such address"}', "-s", anywhere, "--wait", code=6)
    cli("enqueue", "good", "{}", "-s", anywhere, "--wait")
    worker.end()
    return anywhere


def test_list_by_every_field(jobs, data):
    def listed(*options: str) -> set[str]:
        return set(ids(data("job", "ls", "-s", jobs, *options)))

    assert listed() == {"mail-1", "mail-2", "later", "typed"}
    assert listed("--state", "queued") == {"mail-1", "mail-2", "typed"}
    assert listed("--group", "a") == {"mail-1", "later"}
    assert listed("--group", "a", "--state", "scheduled") == {"later"}
    assert listed("--task", "send") == {"typed"}
    assert listed("--priority", "5") == {"mail-1"}
    assert listed("--run-after", "1h") == listed("--run-after", "60min") == {"later"}
    assert listed("--run-before", "3h") == listed()
    assert listed("--run-before", "-1h") == listed("--created-before", "1h") == set()
    assert listed("--created-after", "1h30min", "--run-before", "1h") == {"mail-1", "mail-2", "typed"}
    assert listed("--created-after", "2030-01-01T00:00:00Z") == set()
    assert data("job", "ls", "-s", jobs, "-q", "other") == {"queue": "other", "jobs": [], "cursor": None}


def test_pages_hold_each_job_once(jobs, cli, data):
    page = data("job", "ls", "-s", jobs, "--limit", "1")
    seen = ids(page)
    while page["cursor"] is not None:
        assert len(page["jobs"]) <= 1
        page = data("job", "ls", "-s", jobs, "--limit", "1", "--cursor", page["cursor"])
        seen += ids(page)
    assert sorted(seen) == ["later", "mail-1", "mail-2", "typed"]
    assert "--cursor " in cli("job", "ls", "-s", jobs, "--limit", "1").stderr
    wrong = data("job", "ls", "-s", jobs, "--cursor", "nonsense", code=2)
    assert wrong["error"]["code"] == "usage"


def test_one_job_with_its_payload_and_its_failures(failed, cli, data):
    shown = data("job", "show", "bad", "-s", failed)
    assert shown["payload"] == {"fail": "no such address"}
    assert (shown["state"], shown["reason"]) == ("failed", "fatal")
    (attempt,) = shown["history"]
    assert (attempt["attempt"], attempt["reason"]) == (1, "fatal")
    assert attempt["error"]["message"] == "no such address"
    table = cli("job", "show", "bad", "-s", failed).stdout
    assert re.search(r"^state +failed$", table, re.MULTILINE)
    assert re.search(r"^error +jobqueue.Fatal: no such address$", table, re.MULTILINE)
    assert re.search(r"^attempt  failed +worker +reason  error$", table, re.MULTILINE)
    assert re.search(r'^result +\{"echo"', cli("job", "show", "good", "-s", failed).stdout, re.MULTILINE)
    assert "no job 'x' in queue 'default'" in cli("job", "show", "x", "-s", failed, code=3).stderr


def test_dead_lists_the_failed_ones_only(failed, cli, data):
    assert ids(data("dead", "ls", "-s", failed)) == ["bad"]
    heads, row = cli("dead", "ls", "-s", failed).stdout.splitlines()
    assert heads.split() == ["id", "state", "attempts", "created", "ended", "reason", "error"]
    assert row.startswith("bad  failed  1/3")
    assert row.endswith("fatal   jobqueue.Fatal: no such address")
    assert ids(data("dead", "ls", "-s", failed, "--created-before", "1h")) == []


def test_a_failed_job_runs_again_with_another_payload(failed, data, spawn):
    again = data("dead", "retry", "bad", "-s", failed, "--payload", '{"n": 1}')
    assert again == {"queue": "default", "retried": 1, "jobs": [{"id": "bad", "status": "retried"}]}
    worker = spawn("worker", "tasks:queue", STORE=failed)
    assert data("wait", "bad", "-s", failed)["result"]["echo"] == {"n": 1}
    worker.end()


def test_retry_all_dead_letters_or_those_of_a_filter(failed, data):
    assert data("dead", "retry", "-s", failed, "--created-before", "1h", "--yes")["retried"] == 0
    assert data("dead", "retry", "-s", failed, "--all", "--yes", "--delay", "600") == {
        "queue": "default", "retried": 1,
    }  # fmt: skip
    assert data("job", "show", "bad", "-s", failed)["state"] == "scheduled"
    assert data("job", "retry", "good", "bad", "-s", failed, code=1)["jobs"] == [
        {"id": "good", "status": "completed"}, {"id": "bad", "status": "scheduled"},
    ]  # fmt: skip


def test_remove_dead_letters_and_nothing_else(failed, data):
    refused = data("dead", "rm", "good", "-s", failed, code=1)
    assert (refused["removed"], refused["jobs"]) == (0, [{"id": "good", "status": "completed"}])
    assert "only failed jobs can be removed" in refused["error"]["message"]
    assert data("dead", "rm", "--all", "-s", failed, "--yes")["removed"] == 1
    assert ids(data("job", "ls", "-s", failed)) == ["good"]
    assert data("job", "rm", "good", "nowhere", "-s", failed, code=3)["removed"] == 1
    assert ids(data("job", "ls", "-s", failed)) == []


def test_cancel_by_id_and_by_filter(jobs, cli, data):
    assert data("job", "cancel", "mail-1", "mail-1", "-s", jobs)["cancelled"] == 1
    assert data("job", "cancel", "--group", "a", "-s", jobs, "-y") == {"queue": "default", "cancelled": 1}
    assert data("status", "later", "-s", jobs)["state"] == "cancelled"
    assert cli("job", "cancel", "--state", "queued", "-s", jobs, "-y").stdout == "2 jobs cancelled\n"
    missing = data("job", "cancel", "x", "-s", jobs, code=3)
    assert missing["jobs"] == [{"id": "x", "status": "not_found"}]
    assert missing["error"]["code"] == "not_found"


def test_cancel_running_jobs(anywhere, data, spawn):
    worker = spawn("worker", "tasks:queue", STORE=anywhere)
    for id in ("a", "b"):
        data("enqueue", id, SLEEPS, "-s", anywhere)
        worker.expect(f"running {id}", "out")
    refused = data("job", "cancel", "a", "-s", anywhere, code=1)
    assert refused["jobs"] == [{"id": "a", "status": "processing"}]
    assert "--running" in data("job", "cancel", "--state", "processing", "-s", anywhere, "-y", code=2)[
        "error"
    ]["message"]  # fmt: skip
    assert data("job", "cancel", "a", "-s", anywhere, "--running")["jobs"][0]["status"] == "cancelling"
    data("wait", "a", "-s", anywhere, code=6)
    assert data("job", "cancel", "--state", "processing", "--running", "-y", "-s", anywhere)["cancelled"] == 1
    data("wait", "b", "-s", anywhere, code=6)
    worker.end()


@pytest.mark.parametrize("command", [["job", "cancel"], ["job", "retry"], ["job", "rm"], ["dead", "retry"],
                                     ["dead", "rm"]])  # fmt: skip
def test_a_change_of_many_needs_ids_or_a_filter_and_a_yes(made, data, command):
    def refused(*options: str) -> str:
        return data(*command, "-s", made, *options, code=2)["error"]["message"]

    assert "which jobs?" in refused("--yes")
    assert "not both" in refused("a", "--group", "b")
    if command[0] == "dead":
        assert "not both" in refused("--all", "--group", "b")


def test_without_a_terminal_nothing_is_asked_and_nothing_done(jobs, data):
    refused = data("job", "rm", "--group", "a", "-s", jobs, code=2)["error"]["message"]
    assert refused.startswith("Remove 2 jobs of queue default? There is no terminal to ask: add --yes")
    assert len(data("job", "ls", "-s", jobs)["jobs"]) == 4


def test_a_dry_run_shows_which_and_changes_nothing(jobs, cli, data):
    would = data("job", "rm", "--group", "a", "-s", jobs, "--dry-run")
    assert (would["dry_run"], would["matching"], would["more"]) == (True, 2, False)
    assert sorted(ids(would)) == ["later", "mail-1"]
    shown = cli("job", "cancel", "mail-2", "nowhere", "-s", jobs, "--dry-run")
    assert shown.stderr == "would cancel 1 job of queue default\n"
    assert shown.stdout.splitlines()[1].startswith("mail-2  queued")
    assert len(data("job", "ls", "-s", jobs)["jobs"]) == 4


def test_more_than_are_counted(made, data, monkeypatch):
    from jobqueue.cli import changes, choosing

    monkeypatch.setattr(choosing, "MOST_COUNTED", 2)
    monkeypatch.setattr(changes, "MOST_COUNTED", 2)
    for id in "abcd":
        data("enqueue", id, "1", "-s", made)
    would = data("job", "cancel", "--state", "queued", "-s", made, "--dry-run")
    assert (would["matching"], would["more"]) == (2, True)
    said = data("job", "cancel", "--state", "queued", "-s", made, code=2)["error"]["message"]
    assert said.startswith("Cancel more than 2 jobs")
    assert data("job", "cancel", "--state", "queued", "-s", made, "-y")["cancelled"] == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--created-before", "soon"], "neither a time such as 2h"),
        (["--created-before", "2030-01-01T00:00:00"], "no time zone: add Z"),
        (["--created-before", "2030-99-01"], "not an instant"),
        (["--run-after", "900w900w900w900w900w900w"], "more than a hundred years"),
        (["--state", "lost"], "lost"),
        (["--priority", "1001"], "1001"),
        (["--limit", "1001"], "1001"),
        (["--task", "a\nb"], "control characters"),
        (["--group", ""], "1 to 256 bytes"),
        (["-q", "no spaces"], "1 to 64 characters"),
    ],
)
def test_bad_values(made, cli, options, says):
    assert says in cli("job", "ls", "-s", made, *options, code=2).stderr


def test_variables_of_grouped_commands(made, data, cli):
    env = {"JOBQUEUE_STORAGE": made, "JOBQUEUE_QUEUE": "mail", "JOBQUEUE_JOB_LS_LIMIT": "1"}
    for id in ("a", "b"):
        data("enqueue", id, "1", env=env)
    page = data("job", "ls", env=env)
    assert (page["queue"], len(page["jobs"])) == ("mail", 1)
    wanted = {**env, "JOBQUEUE_JOB_SHOW_OUTPUT": "json", "JOBQUEUE_JOB_SHOW_QUEUE": "other"}
    shown = cli("job", "show", "a", env=wanted, code=3)
    assert (
        json.loads(shown.stdout)["error"]["message"]
        == "no job 'a' in queue 'other', or its record has expired"
    )
    assert cli("job", "ls", "--nonsense", env=wanted, code=2).stdout == ""


def test_failures_of_grouped_commands_are_json(tmp_path: Path, made, cli):
    for arguments, code in (
        (["job", "-o", "json"], 2),
        (["job", "lost", "-o", "json"], 2),
        (["job", "show", "-o", "json"], 2),
        (["job", "ls", "-o", "json", "-s", f"{tmp_path}/typo"], 5),
        (["dead", "rm", "-ojson", "-s", made], 2),
    ):
        assert json.loads(cli(*arguments, code=code).stdout)["error"]["exit_code"] == code


def test_payload_of_a_retry(failed, data):
    said = data("job", "retry", "--group", "a", "--payload", "1", "-y", "-s", failed, code=2)
    assert "name it by its id" in said["error"]["message"]
    assert (
        "not JSON" in data("job", "retry", "bad", "--payload", "{", "-s", failed, code=2)["error"]["message"]
    )


def test_hostile_texts_cannot_steer_the_terminal(made, cli, data):
    hostile = "\u202eevil \u2028"
    data("enqueue", hostile, json.dumps("\x1b[31m\x9b"), "-s", made, "--group", hostile)
    for command in (["job", "ls"], ["job", "show", hostile], ["job", "cancel", hostile, "--dry-run"]):
        for options in ([], ["-o", "json"]):
            shown = cli(*command, "-s", made, *options).stdout
            assert printable(shown) == shown
    assert data("job", "show", hostile, "-s", made)["payload"] == "\x1b[31m\x9b"


# -- watch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["watch"], ["job", "watch"]])
def test_watch_tells_each_change_until_the_outcome(anywhere, cli, spawn, command):
    cli("enqueue", "a", '{"sleep": 1.5}', "-s", anywhere)
    watching = spawn(*command, "a", "-s", anywhere, "-o", "json")
    watching.expect('"state": "queued"', "out")
    worker = spawn("worker", "tasks:queue", STORE=anywhere)
    watching.expect('"state": "processing"', "out")
    watching.expect('"state": "completed"', "out")
    assert watching.wait() == 0
    assert json.loads(watching.lines["out"][-1])["result"]["echo"] == {"sleep": 1.5}
    worker.end()


def test_watch_of_ended_absent_and_endless_jobs(failed, cli, data):
    ended = cli("watch", "bad", "-s", failed, code=6)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  failed  attempt 1 of 3\n", ended.stdout)
    assert "no such address" in ended.stderr
    assert re.search(r"  completed  attempt 1 of 3  result \{", cli("watch", "good", "-s", failed).stdout)
    assert data("watch", "nowhere", "-s", failed, code=3)["error"]["code"] == "not_found"
    cli("enqueue", "late", "1", "-s", failed, "--delay", "7200")
    late = cli("watch", "late", "-s", failed, "--timeout", "0.1", code=4)
    assert "  scheduled  due in 119 min\n" in late.stdout
    assert "'late' is scheduled after 0.1 s" in late.stderr


def test_watch_is_told_of_a_removal(made, cli, spawn):
    cli("enqueue", "a", "1", "-s", made)
    watching = spawn("watch", "a", "-s", made)
    watching.expect("queued", "out")
    cli("job", "rm", "a", "-s", made)
    watching.expect("Error: job 'a' was removed while it was queued")
    assert watching.wait() == 3


# -- enqueue --task ----------------------------------------------------------------------------------


def test_a_task_gets_its_arguments(anywhere, project, cli, data, spawn):
    (project / "typed.py").write_text(
        "import os\nfrom jobqueue import Queue\nqueue = Queue(os.environ['STORE'])\n"
        "@queue.task\ndef send(to: str, times: int = 1) -> str:\n    return to * times\n"
    )
    worker = spawn("worker", "typed:queue", STORE=anywhere)
    for id, payload, result in (
        ("a", '["ab"]', "ab"),
        ("b", '["ab", 2]', "abab"),
        ("c", '{"to": "x", "times": 3}', "xxx"),
        ("d", '{"args": ["y"], "kwargs": {"times": 2}}', "yy"),
    ):
        assert data("enqueue", id, payload, "--task", "send", "-s", anywhere, "--wait")["result"] == result
    assert data("enqueue", "a", '["ab"]', "--task", "send", "-s", anywhere)["result"] == "ab"
    wrong = data("enqueue", "e", '["ab", "two"]', "--task", "send", "-s", anywhere, "--wait", code=6)
    assert wrong["reason"] == "serialization"
    assert data("job", "retry", "e", "--payload", '["ab", 2]', "-s", anywhere)["retried"] == 1
    assert data("wait", "e", "-s", anywhere)["result"] == "abab"
    assert "an array of them" in cli("enqueue", "f", "1", "--task", "send", "-s", anywhere, code=2).stderr
    worker.end()


# -- completion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli, shell):
    assert "_JOBQUEUE_COMPLETE" in cli("completion", shell).stdout
    assert cli("completion", env={"SHELL": f"/usr/bin/{shell}"}).stdout == cli("completion", shell).stdout


def test_completion_needs_a_shell(cli):
    assert "bash, zsh, fish" in cli("completion", env={"SHELL": "/bin/dash"}, code=2).stderr


# -- explain -----------------------------------------------------------------------------------------


def test_explain_says_what_is_in_the_way(jobs, cli, data):
    later = data("job", "explain", "later", "-s", jobs)
    assert (later["id"], later["state"]) == ("later", "scheduled")
    kinds = {reason["kind"]: reason for reason in later["reasons"]}
    assert kinds["scheduled"]["until"].endswith("+00:00")
    assert "no_worker" in kinds
    data("queue", "pause", "default", "-s", jobs)
    table = cli("job", "explain", "typed", "-s", jobs).stdout
    assert re.search(r"^state  queued$", table, re.MULTILINE)
    assert re.search(r"^paused +- +queue 'default' is paused", table, re.MULTILINE)
    assert re.search(r"^behind +- +\d+ jobs? ", table, re.MULTILINE)
    missing = data("job", "explain", "nowhere", "-s", jobs, code=3)
    assert (missing["state"], missing["reasons"][0]["kind"]) == (None, "not_found")
    assert missing["error"]["code"] == "not_found"


def test_an_enqueue_may_replace_a_job_that_waits(anywhere, data):
    data("enqueue", "a", "1", "-s", anywhere, "--delay", "600")
    assert data("enqueue", "a", "2", "-s", anywhere)["status"] == "duplicate"
    assert data("enqueue", "a", "3", "-s", anywhere, "--conflict", "replace")["status"] == "replaced"
    shown = data("job", "show", "a", "-s", anywhere)
    assert (shown["state"], shown["payload"]) == ("queued", 3)
