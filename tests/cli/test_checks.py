"""doctor and fsck, on a real store, and on fakes for what a healthy store does not show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jobqueue.cli.commands import checks
from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.storage.memory import MemoryStorage
from tests.services import Server, redis_binary


class Found(NamedTuple):
    name: str
    severity: str
    text: str


class Fake(MemoryStorage):
    """A memory store that says it is shared."""

    shared = True


@pytest.fixture
def redis() -> Iterator[Server]:
    server = Server(redis_binary())
    yield server.start()
    server.remove()


def use(monkeypatch: pytest.MonkeyPatch, storage: MemoryStorage) -> None:
    monkeypatch.setattr(checks, "shared_storage", lambda _url: storage)


def test_doctor_of_a_good_store(made, cli, data):
    found = data("doctor", "-s", made, "--samples", "20")
    assert found["healthy"] is True
    assert 0 < found["round_trip_ms"]["p50"] <= found["round_trip_ms"]["p99"]
    names = [finding["name"] for finding in found["findings"]]
    assert names[:2] == ["open", "round trip"]
    assert {"filesystem", "directory", "space", "sync", "locks", "watch", "fsync"} < set(names)
    assert "round trip  ok     p50" in cli("doctor", "-s", made).stdout


def test_doctor_of_a_directory_that_everybody_can_write_to(store, cli, data):
    data("enqueue", "a", "1", "-s", store)
    path = Path(store.removeprefix("file://"))
    path.chmod(0o777)
    found = data("doctor", "-s", store, code=7)
    assert found["healthy"] is False
    (finding,) = [finding for finding in found["findings"] if finding["severity"] == "error"]
    assert finding["name"] == "open"
    assert str(path) in finding["text"]
    assert "chmod 700" in finding["text"]
    assert "is not healthy" in cli("doctor", "-s", store, code=7).stderr
    path.chmod(0o700)
    assert data("doctor", "-s", store)["healthy"] is True


@pytest.mark.parametrize(("severity", "code"), [("ok", 0), ("warning", 0), ("error", 7)])
def test_doctor_prints_what_the_store_finds(cli, data, monkeypatch, severity, code):
    class Diagnosed(Fake):
        async def diagnose(self):
            assert self._opened
            return [Found("eviction", severity, "told \x1b[31mso")]

    use(monkeypatch, Diagnosed())
    found = data("doctor", "-s", "redis://u:secret@h", code=code)
    assert found["healthy"] is (code == 0)
    assert found["storage"] == "redis://u:***@h"
    assert found["findings"][-1]["name"] == "eviction"
    result = cli("doctor", "-s", "redis://u:secret@h", code=code)
    assert "\x1b" not in result.stdout
    assert "secret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            StorageUnavailableError("nobody there"),
            5,
            "nobody there (does the server run, and is --storage right?)",
        ),
        (StorageError("too old"), 7, "too old"),
    ],
)
def test_doctor_of_a_store_that_does_not_open(data, monkeypatch, error, code, text):
    class Broken(Fake):
        async def open(self):
            raise error

    use(monkeypatch, Broken())
    found = data("doctor", "-s", "redis://h", code=code)
    assert found["findings"] == [{"name": "open", "severity": "error", "text": text}]


class Checked(Fake):
    def __init__(self, *breaches: str) -> None:
        super().__init__()
        self.breaches = breaches

    async def check(self, *, repair: bool = False):
        assert not self._opened
        severity = "warning" if repair else "error"
        return [Found("index", severity, breach) for breach in self.breaches]


def test_fsck_of_sound_data(cli, data, monkeypatch):
    use(monkeypatch, Checked())
    assert data("fsck", "-s", "redis://h") == {"storage": "redis://h", "sound": True, "findings": []}
    result = cli("fsck", "-s", "redis://h")
    assert (result.stdout, result.stderr) == ("", "redis://h is sound\n")


def test_fsck_lists_breaches_and_repairs(cli, data, monkeypatch):
    use(monkeypatch, Checked("job a is in two indexes", "job b is in none"))
    result = cli("fsck", "-s", "redis://h", code=7)
    assert "job b is in none" in result.stdout
    assert "2 errors: stop what uses the store and add --repair" in result.stderr
    assert data("fsck", "-s", "redis://h", "--repair")["sound"] is True


def test_fsck_of_a_store_without_a_check(cli, monkeypatch):
    use(monkeypatch, Fake())
    assert "jobqueue doctor" in cli("fsck", "-s", "redis://h", code=2).stderr


def test_fsck_of_files(store, data):
    data("enqueue", "a", "1", "-s", store)
    assert data("fsck", "-s", store) == {"storage": store, "sound": True, "findings": []}
    assert data("fsck", "-s", store, "--repair")["sound"] is True
    assert data("status", "a", "-s", store)["state"] == "queued"


def test_redis(redis, cli, data):
    """Both commands on a real server, sound and then damaged."""
    data("enqueue", "a", "1", "-s", redis.url)
    assert data("fsck", "-s", redis.url)["sound"] is True
    found = data("doctor", "-s", redis.url)
    assert found["healthy"] is True
    names = [finding["name"] for finding in found["findings"]]
    assert "eviction" in names
    assert "latency" in names
    assert "round trip" not in names, "it is told once"
    assert found["round_trip_ms"]["p50"] > 0
    redis.command("RPUSH", "{jq:default}:ready", "b")
    breaches = data("fsck", "-s", redis.url, code=7)["findings"]
    assert {breach["severity"] for breach in breaches} == {"error"}
    assert all(breach["name"].startswith("default") for breach in breaches)
    assert "cannot be repaired" in cli("fsck", "-s", redis.url, "--repair", code=1).stderr
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    evicting = data("doctor", "-s", redis.url, code=7)
    assert evicting["findings"][0]["severity"] == "error"
