"""Names of workers and reapers."""

from __future__ import annotations

import os
import socket

import pytest

from jobqueue import MemoryStorage, Queue, Reaper
from jobqueue.model.checks import check_id
from jobqueue.runtime.identity import Identity
from jobqueue.runtime.ids import process_name


def said_by_a_child(*objects: Queue[object, object] | Reaper) -> list[str]:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        names = [each.worker_id if isinstance(each, Queue) else each.id for each in objects]
        os.write(write, " ".join(names).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read().split()


@pytest.mark.parametrize("read_before", [True, False])
async def test_what_was_made_before_a_fork_has_another_name_in_the_child(*, read_before: bool) -> None:
    queue: Queue[object, object] = Queue(MemoryStorage(), "q")
    reaper = Reaper(MemoryStorage())
    if read_before:
        assert len({queue.worker_id, reaper.id}) == 2
    theirs = said_by_a_child(queue, reaper)
    assert len({*theirs, queue.worker_id, reaper.id}) == 4


async def test_a_name_stays_from_start_to_start() -> None:
    queue: Queue[object, object] = Queue(MemoryStorage(), "q")
    name = queue.worker_id
    for _ in range(2):
        async with queue:
            assert queue.worker_id == name
    assert queue.worker_id == name


async def test_a_name_that_was_given_stays_in_a_child() -> None:
    queue: Queue[object, object] = Queue(MemoryStorage(), "q", worker_id="web")
    assert [queue.worker_id, *said_by_a_child(queue)] == ["web", "web"]


def test_a_name_tells_host_and_process() -> None:
    host = socket.gethostname().partition(".")[0]
    name = Identity().name
    assert f"-{os.getpid()}-" in name
    assert name.startswith(host[-40:])


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("web-7.example.com", "web-7-"),
        ("", "host-"),
        (".local", "host-"),
        ("\u0434\u043e\u043c", "host-"),
        ("a b\n", "a-b--"),
        ("mail-worker-" + "x" * 40 + "-7d9f8", "x" * 34 + "-7d9f8-"),
    ],
)
def test_any_host_makes_a_valid_name(monkeypatch: pytest.MonkeyPatch, host: str, start: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    first, second = process_name(), process_name()
    assert first != second
    assert first.startswith(start)
    assert check_id(first) == first
    assert len(first) < 64
