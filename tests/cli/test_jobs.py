"""enqueue, wait, status, cancel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobqueue.cli import client


def test_enqueue_creates_and_then_finds(store, data):
    assert data("enqueue", "a", "1", "-s", store) == {"id": "a", "status": "queued", "state": "queued"}
    assert data("enqueue", "a", "2", "-s", store)["status"] == "duplicate"


def test_table_is_one_line_per_field(store, cli):
    out = cli("enqueue", "a", "1", "-s", store).stdout
    assert out == "id      a\nstatus  queued\nstate   queued\n"


def test_dash_makes_a_unique_id(store, data):
    first, second = (data("enqueue", "-", "1", "-s", store) for _ in range(2))
    assert first["id"] != second["id"]
    assert first["status"] == second["status"] == "queued"


def test_options_reach_the_job(store, data):
    data("enqueue", "a", "1", "-s", store, "-q", "mail", "--priority", "7", "--max-attempts", "9",
         "--run-at", "2100-01-01T00:00:00Z")  # fmt: skip
    status = data("status", "a", "-s", store, "-q", "mail")
    assert (status["state"], status["priority"], status["max_attempts"]) == ("scheduled", 7, 9)
    assert status["run_at"] == "2100-01-01T00:00:00+00:00"


def test_a_job_may_have_to_start_in_time(store, data, cli):
    data("enqueue", "a", "1", "-s", store, "--expires", "0.001", "--on-full", "wait")
    data("enqueue", "b", "1", "-s", store, "--expires", "90", "--delay", "60")
    assert data("job", "show", "b", "-s", store)["expires"] == 90.0
    assert "expires" in cli("job", "show", "b", "-s", store).stdout
    (reason,) = data("job", "explain", "a", "-s", store)["reasons"]
    assert reason["kind"] == "expired"


def test_variables_replace_options(store, data):
    env = {"JOBQUEUE_STORAGE": store, "JOBQUEUE_ENQUEUE_QUEUE": "mail", "JOBQUEUE_ENQUEUE_DELAY": "60"}
    assert data("enqueue", "a", "1", env=env)["state"] == "scheduled"
    assert data("status", "a", "-q", "mail", env=env)["state"] == "scheduled"


def test_payload_from_stdin_and_file(store, cli, data, tmp_path: Path, worker):
    (tmp_path / "payload.json").write_text('{"from": "file"}')
    by_file = data("enqueue", "a", f"@{tmp_path}/payload.json", "-s", store, "--wait")
    by_stdin = data("enqueue", "b", "-", "-s", store, "--wait", input='{"from": "stdin"}')
    assert by_file["result"]["echo"] == {"from": "file"}
    assert by_stdin["result"]["echo"] == {"from": "stdin"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "{"], "not JSON"),
        (["a", "NaN"], "not JSON"),
        (["a", "@/nowhere/x.json"], "cannot read"),
        (["", "1"], "must be 1 to 256 bytes"),
        (["x\ny", "1"], "control characters"),
        (["a", "1", "--delay", "-1"], "not negative"),
        (["a", "1", "--delay", "nan"], "finite"),
        (["a", "1", "--delay", "soon"], "not a number of seconds"),
        (["a", "1", "--timeout", "0"], "positive"),
        (["a", "1", "--expires", "0"], "positive"),
        (["a", "1", "--on-full", "never"], "never"),
        (["a", "1", "--run-at", "tomorrow"], "not an instant"),
        (["a", "1", "--run-at", "2030-01-01T00:00:00"], "no time zone: add Z"),
        (["a", "1", "--run-at", "2030-01-01T00:00:00Z", "--delay", "1"], "delay"),
        (["a", "1", "--priority", "1001"], "1001"),
        (["a", "1", "--queue", "no spaces"], "1 to 64 characters"),
        (["a", "1", "--reuse", "maybe"], "maybe"),
        (["a"], "PAYLOAD"),
    ],
)
def test_bad_input_is_refused_before_anything_is_stored(made, cli, data, arguments, says):
    assert says in cli("enqueue", *arguments, "-s", made, code=2).stderr
    assert data("stats", "-s", made)["queues"] == []


def test_endlessly_nested_payload(store, spawn, project):
    # In a process of its own: CPython 3.11 may count its recursion wrongly after such an error.
    (project / "deep.json").write_text("[" * 100_000)
    process = spawn("enqueue", "a", "@deep.json", "-s", store)
    process.expect("not JSON")
    assert process.wait() == 2


def test_result_of_a_job_is_printed_as_json(store, cli, worker):
    out = cli("enqueue", "a", '{"w": "ü"}', "-s", store, "--wait").stdout
    assert json.loads(out)["echo"] == {"w": "ü"}
    assert "ü" in out
    assert cli("wait", "a", "-s", store).stdout == out


def test_cached_result_comes_with_the_enqueue(store, data, worker):
    data("enqueue", "a", "{}", "-s", store, "--wait")
    again = data("enqueue", "a", "{}", "-s", store)
    assert (again["status"], again["result"]["echo"]) == ("completed", {})


def test_failed_job(store, cli, data, worker):
    failed = cli("enqueue", "a", '{"fail": "two\\nlines \\u001b[31m"}', "-s", store, "--wait", code=6)
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert "two lines \\x1b[31m" in failed.stderr
    assert data("status", "a", "-s", store)["error"]["message"] == "two\nlines \x1b[31m"
    assert "\x1b" not in cli("status", "a", "-s", store).stdout
    assert cli("wait", "a", "-s", store, code=6).stdout == ""


def test_timeout(store, cli):
    late = cli("enqueue", "a", "1", "-s", store, "--wait", "--timeout", "0.1", code=4)
    assert "'a'" in late.stderr
    assert cli("wait", "a", "-s", store, "--timeout", "0.1", code=4).stdout == ""


def test_not_found(made, cli):
    for command in ("wait", "status", "cancel"):
        assert "no job 'a'" in cli(command, "a", "-s", made, code=3).stderr


@pytest.mark.parametrize("command", [["wait", "a"], ["status", "a"], ["cancel", "a"], ["stats"], ["doctor"],
                                     ["fsck"], ["fsck", "--repair"]])  # fmt: skip
def test_reading_a_store_that_does_not_exist_makes_none(cli, tmp_path: Path, command):
    for typo in (f"file://{tmp_path}/typo", f"{tmp_path}/typo"):
        said = cli(*command, "-s", typo, code=5).stderr
        assert f"no store at {typo}: check --storage" in said
    assert list(tmp_path.iterdir()) == []


def test_the_first_job_makes_the_store_and_says_so(store, cli):
    assert cli("enqueue", "a", "1", "-s", store).stderr == f"there is no store at {store} yet: making it\n"
    assert cli("enqueue", "b", "1", "-s", store).stderr == ""


def test_a_path_names_a_store(made, data, monkeypatch):
    directory = Path(made.removeprefix("file://"))
    monkeypatch.chdir(directory.parent)
    for path in (str(directory), f"./{directory.name}", f"../{directory.parent.name}/{directory.name}"):
        assert data("stats", "-s", path)["queues"] == []


def test_one_variable_names_the_queue_of_all_commands(store, data):
    env = {"JOBQUEUE_STORAGE": store, "JOBQUEUE_QUEUE": "mail", "JOBQUEUE_CANCEL_QUEUE": "other"}
    data("enqueue", "a", "1", env=env)
    assert data("status", "a", "-q", "mail", env=env)["state"] == "queued"
    assert data("status", "a", env=env)["state"] == "queued"
    refused = data("cancel", "a", env=env, code=3)
    assert refused["status"] == "not_found"
    assert "in queue 'other'" in refused["error"]["message"]
    assert data("cancel", "a", "-q", "mail", env=env)["status"] == "cancelled"


def test_cancel_a_waiting_job(store, cli, data):
    data("enqueue", "a", "1", "-s", store)
    assert data("cancel", "a", "-s", store) == {"id": "a", "status": "cancelled"}
    assert "cancelled" in cli("wait", "a", "-s", store, code=6).stderr
    assert data("enqueue", "a", "1", "-s", store)["status"] == "queued"


def test_cancel_a_running_job(store, cli, data, worker):
    data("enqueue", "a", '{"sleep": 60}', "-s", store)
    worker.expect("running a", "out")
    assert "--running" in cli("cancel", "a", "-s", store, code=1).stderr
    assert data("cancel", "a", "-s", store, "--running")["status"] == "cancelling"
    assert "cancelled" in cli("wait", "a", "-s", store, code=6).stderr


def test_cancel_an_ended_job(store, cli, worker):
    cli("enqueue", "a", "{}", "-s", store, "--wait")
    result = cli("cancel", "a", "-s", store, "-o", "json", code=1)
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout)["status"] == "completed"
    assert "nothing to cancel" in result.stderr


def test_msgpack_queues_can_be_asked(store, data):
    data("enqueue", "a", '{"n": 1}', "-s", store, "--serde", "msgpack")
    assert data("status", "a", "-s", store, "--serde", "msgpack")["state"] == "queued"


@pytest.mark.parametrize("command", [["enqueue", "a", "1"], ["wait", "a"], ["status", "a"], ["cancel", "a"],
                                     ["stats"], ["reaper"], ["doctor"], ["fsck"]])  # fmt: skip
def test_memory_is_refused_where_it_makes_no_sense(cli, command):
    said = cli(*command, "-s", "memory://", code=2).stderr
    assert said.count("\n") == 1
    assert "shared store" in said


def test_storage_is_asked_for(cli):
    assert "JOBQUEUE_STORAGE" in cli("status", "a", code=2).stderr


def test_unreachable_store(cli, monkeypatch):
    from jobqueue.storage.redis import RedisStorage

    monkeypatch.setattr(client, "open_storage", lambda url, _ledger: RedisStorage(url, retry_for=0.0))
    said = cli("status", "a", "-s", "redis://someone:secret@127.0.0.1:1", code=5).stderr
    assert said.count("\n") == 1
    assert "secret" not in said


def test_unknown_kind_of_store(cli):
    said = cli("status", "a", "-s", "sqlite://x:secret@y", code=2).stderr
    assert "redis://" in said
    assert "secret" not in said
