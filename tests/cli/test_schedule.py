"""schedule: add, list, pause, resume, run and remove, on every store that processes share."""

from __future__ import annotations

import json

import pytest


def test_a_schedule_from_add_to_rm(anywhere, cli, data) -> None:
    store = ("-s", anywhere)
    assert data("schedule", "ls", *store) == {"queue": "default", "schedules": []}
    added = data(
        "schedule", "add", "nightly", '{"what": "files"}', *store, "--cron", "30 2 * * *", "--timezone",
        "Europe/Berlin", "--jitter", "5", "--catch-up", "all", "--priority", "3",
    )  # fmt: skip
    assert added["next_at"].endswith("+00:00")
    assert added == {
        "name": "nightly", "task": "", "cron": "30 2 * * *", "every": None, "timezone": "Europe/Berlin",
        "next_at": added["next_at"], "last_at": None, "paused": False, "catch_up": "all", "jitter": 5.0,
        "origin": "call",
    }  # fmt: skip
    data("schedule", "add", "beat", '["ada"]', *store, "--every", "3600", "--task", "send", "--paused",
         "--expires", "90")  # fmt: skip
    listed = data("schedule", "ls", *store)
    assert listed["queue"] == "default"
    assert [one["name"] for one in listed["schedules"]] == ["beat", "nightly"]
    table = cli("schedule", "ls", *store).stdout
    assert "30 2 * * * Europe/Berlin" in table
    assert "every 3600 s" in table
    assert "paused" in table
    made = data("schedule", "run", "beat", *store)
    assert made["id"].startswith("beat@now-")
    job = data("job", "show", made["id"], *store)
    assert (job["task"], job["payload"]) == ("send", {"args": ["ada"], "kwargs": {}})
    assert job["expires"] == 90.0
    assert data("schedule", "pause", "nightly", *store)["paused"] is True
    assert data("schedule", "resume", "nightly", *store)["paused"] is False
    assert data("schedule", "rm", "nightly", *store) == {"name": "nightly", "status": "removed"}
    assert "beat" in cli("schedule", "pause", "beat", *store).stdout
    for verb in ("rm", "pause", "resume", "run"):
        answer = json.loads(cli("schedule", verb, "nightly", *store, "-o", "json", code=3).stdout)
        assert answer["error"]["message"] == "no schedule 'nightly' in queue 'default'"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "cron"),
        (("--cron", "@daily", "--expires", "0"), "expires"),
        (("--cron", "nonsense"), "cron"),
        (("--cron", "@daily", "--every", "5"), "cron"),
        (("--every", "0.5"), "every"),
        (("--cron", "@daily", "--timezone", "Mars/Olympus"), "timezone"),
        (("--cron", "@daily", "--task", "send", "--catch-up", "some"), "catch-up"),
    ],
)
def test_what_is_wrong_is_named(anywhere, cli, options, text) -> None:
    refused = cli("schedule", "add", "s", "null", "-s", anywhere, *options, "-o", "json", code=2)
    assert text in json.loads(refused.stdout)["error"]["message"]
