"""The store that a URL, a path or the environment names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobqueue import FileStorage, InvalidArgumentError, MemoryStorage, Queue, Reaper, open_storage
from jobqueue.storage.urls import as_storage, redact


def test_a_store_or_its_url() -> None:
    storage = MemoryStorage()
    assert as_storage(storage) is storage
    assert isinstance(as_storage("memory://"), MemoryStorage)
    assert open_storage("memory://") is not open_storage("memory://")


@pytest.mark.parametrize("path", ["/tmp/a b", "./jobs", "../jobs", ".", "..", "~/jobs", "file:///tmp/a%20b"])
def test_a_path_is_a_file_store(path: str) -> None:
    storage = open_storage(path)
    assert isinstance(storage, FileStorage)
    expected = "/tmp/a b" if path.startswith("file:") else path
    assert storage.path == Path(expected).expanduser().absolute()


def test_a_queue_without_a_store_takes_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_STORAGE", "file:///tmp/x")
    storage = Queue().storage
    assert isinstance(storage, FileStorage)
    assert storage.path == Path("/tmp/x")
    assert isinstance(Queue("memory://").storage, MemoryStorage)
    Reaper()


@pytest.mark.parametrize("make", [Queue, Reaper])
def test_a_bad_store_of_the_environment_is_named(make: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_STORAGE", "nosuch://u:secret@x")
    with pytest.raises(InvalidArgumentError, match=r"^JOBQUEUE_STORAGE: .*unknown kind") as bad:
        make()
    assert "secret" not in str(bad.value)
    monkeypatch.setenv("JOBQUEUE_STORAGE", "")
    with pytest.raises(InvalidArgumentError, match=r"^storage: is missing: .* set JOBQUEUE_STORAGE"):
        make()
    monkeypatch.delenv("JOBQUEUE_STORAGE")
    with pytest.raises(InvalidArgumentError, match=r"^storage: is missing"):
        make()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/1", "redis://user:***@host:6379/1"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://host:1/0?password=secret", "redis://host:1/0"),
        ("redis+sentinel://u:secret@a:1,b:2/main/0", "redis+sentinel://u:***@a:1,b:2/main/0"),
        ("redis://user:sec/ret@host", "redis://***"),
        ("redis://user:sec?ret@host", "redis://***"),
        ("redis://user:sec#ret@host", "redis://***"),
        ("redis://user:secret@[host", "redis://***"),
        ("user:secret@host", "a URL without a kind"),
        ("memory://", "memory://"),
        ("file:///dir/sub", "file:///dir/sub"),
        ("file:///dir/a@b", "file:///dir/a@b"),
        ("unix:///run/a@b.sock", "unix:///run/a@b.sock"),
        ("./a@b", "./a@b"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown
