"""Wake-ups by the system's notifications, through each of the libraries."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqueue.storage.file.disk import watch

KINDS = [watch._Watchdog] + ([watch._Inotify] if sys.platform == "linux" else [])
LIMIT_MS = 10_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wake"
    path.write_bytes(b"x")
    return path


@pytest.fixture(params=KINDS)
def watcher(request: pytest.FixtureRequest, file: Path) -> Iterator[watch.Watcher]:
    watcher = request.param(file)
    yield watcher
    watcher.close()


def comes(watcher: watch.Watcher, within_ms: int) -> bool:
    number = watcher.fileno()
    assert number is not None
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(within_ms))


def touch(file: Path) -> None:
    number = os.open(file, os.O_WRONLY)
    os.pwrite(number, b"y", 0)
    os.close(number)


def test_a_write_wakes_until_it_is_cleared(watcher: watch.Watcher, file: Path) -> None:
    for _ in range(3):
        touch(file)
        assert comes(watcher, LIMIT_MS)
        while comes(watcher, 300):  # one write may be told more than once
            watcher.clear()


def test_other_files_do_not_wake(watcher: watch.Watcher, file: Path) -> None:
    other = file.with_name("journal")
    other.write_bytes(b"x")
    touch(other)
    other.rename(file.with_name("moved"))
    assert not comes(watcher, 300)
    touch(file)
    assert comes(watcher, LIMIT_MS)


def test_more_writes_than_a_pipe_holds(watcher: watch.Watcher, file: Path) -> None:
    for _ in range(2_000):
        touch(file)
    assert comes(watcher, LIMIT_MS)
    while comes(watcher, 300):
        watcher.clear()


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_closing_ends_its_threads_and_descriptors(file: Path) -> None:
    for kind in KINDS:
        kind(file).close()  # what is loaded once stays
    threads, descriptors = threading.active_count(), open_descriptors()
    for kind in KINDS:
        for _ in range(5):
            kind(file).close()
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux'")
def test_a_file_that_is_not_there_leaves_no_descriptor(tmp_path: Path) -> None:
    descriptors = open_descriptors()
    with pytest.raises(FileNotFoundError):
        watch._Inotify(tmp_path / "wake")
    assert open_descriptors() == descriptors
