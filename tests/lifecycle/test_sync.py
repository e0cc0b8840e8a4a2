"""The synchronous client in real processes: servers that fork, interrupts, ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import pytest

from tests.lifecycle.processes import Process, Start, within

CHILDREN = 3


async def get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
    answer = (await within(reader.read())).decode()
    writer.close()
    return answer.partition("\r\n\r\n")[2]


async def test_a_server_that_forks(shared, start: Start) -> None:
    worker = await start.worker(concurrency=10)
    server = await start.script("prefork.py", shared.url, str(CHILDREN))
    port = int((await server.expect(r"^serving (\d+)"))[1])
    await server.expect("^parent: ")
    served: Counter[str] = Counter()
    for round in range(20):  # until each child has answered
        paths = [f"{round}:{n}" for n in range(8)]
        for path, answer in zip(
            paths, await asyncio.gather(*(get(port, path) for path in paths)), strict=True
        ):
            pid, _, result = answer.partition(" ")
            assert f"'pid': {worker.pid}" in result, (path, answer, server.said)
            served[pid] += 1
        if len(served) == CHILDREN and round >= 2:
            break
    assert len(served) == CHILDREN
    assert str(server.pid) not in served
    server.signal(signal.SIGTERM)
    for _ in range(CHILDREN):
        await server.expect("^child exit 0")
    await server.expect("^parent: ")
    assert await server.wait() == 0
    assert server.count("^waited") == 1
    assert not [line for line in server.lines if "rror" in line or "arning" in line or "destroyed" in line]


@pytest.mark.parametrize(
    ("way", "lines"),
    [
        ("a daemon waits", {"end", "StoppedError"}),
        ("a child of multiprocessing", {"child queued", "child exit 0", "end"}),
        ("a child that ends at once", {"child exit 0", "end"}),
        ("a child of a child", {"grandchild duplicate", "child exit 0", "end"}),
        ("used at the exit", {"end", "late queued"}),
    ],
)
async def test_the_end_of_a_process(shared, start: Start, way: str, lines: set[str]) -> None:
    process = await start.script("sync_ends.py", shared.url, way)
    assert await process.wait() == 0, process.said
    assert set(process.lines) == lines


async def test_a_process_ends_whose_store_no_longer_answers(shared, start: Start) -> None:
    process = await start.script("sync_ends.py", shared.url, "without its store")
    await process.expect("^used")
    shared.freeze()
    try:
        os.kill(process.pid, signal.SIGUSR1)
        await process.expect("^end")
        assert await process.wait() == 0, process.said
    finally:
        shared.thaw()


async def test_an_interrupt_ends_a_wait_at_once(shared, start: Start) -> None:
    process = await start.script("sync_ends.py", shared.url, "interrupted")
    await process.expect("^waits")
    await asyncio.sleep(0.5)  # most likely it waits now
    os.kill(process.pid, signal.SIGINT)
    await process.expect("^interrupted queued")
    await process.expect("^end")
    assert await process.wait() == 0


async def test_a_child_is_told_that_a_memory_store_is_its_parents() -> None:
    program = (
        "import os, sys\nfrom jobqueue import JobQueueError, Queue\n"
        "queue = Queue('memory://')\nqueue.sync.enqueue('a', 1)\n"
        "if os.fork() == 0:\n"
        "    try:\n        queue.sync.enqueue('b', 1)\n"
        "    except JobQueueError as error:\n        print(error, flush=True)\n"
        "    sys.exit(0)\n"
        "code = os.waitstatus_to_exitcode(os.wait()[1])\n"
        "print('child exit', code, queue.sync.get_status('b'), flush=True)\n"
    )
    process = await Process.start("-W", "ignore::DeprecationWarning", "-c", program)
    try:
        await process.expect("make a new MemoryStorage in the child")
        await process.expect("^child exit 0 None")
        assert await process.wait() == 0
    finally:
        await process.end()
