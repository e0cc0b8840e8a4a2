"""Several real processes on one directory."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobqueue.model.states import JobState
from jobqueue.storage.file import FileStorage
from jobqueue.storage.values import NewJob, Reply

MORE = int(os.environ.get("JOBQUEUE_TEST_MORE", "1"))
ROOT = Path(__file__).parents[3]
LIMIT = 60 * MORE


def command(role: str, directory: Path, name: str, *numbers: int, rotate_at: int = 1 << 20) -> list[str]:
    program = [sys.executable, "-m", "tests.storage.file.process", role, str(directory), name]
    return [*program, str(rotate_at), "fsync", *map(str, numbers)]


async def spawn(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=1 << 26
    )


async def news(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT):
        line = await process.stdout.readline()
    return json.loads(line) if line else {}


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[FileStorage]:
    store = FileStorage(directory)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.skipif(shutil.which("flock") is None, reason="the command that the guide names")
async def test_a_copy_under_the_locks_is_sound_while_others_write(tmp_path: Path) -> None:
    """As the guide on backups has it."""
    directory, said = tmp_path / "jobs", list[dict[str, Any]]()
    writer = await spawn(*command("insert_forever", directory, "p", rotate_at=20_000))
    try:
        for number in range(4):
            while len(said) < 100 * (number + 1):
                said.append(await news(writer))
            copy = await spawn(
                "flock", f"{directory}/compact.lock", "flock", f"{directory}/lock",
                "cp", "-a", str(directory), str(tmp_path / f"backup-{number}"),
            )  # fmt: skip
            assert await copy.wait() == 0
            async with opened(tmp_path / f"backup-{number}") as store:
                await hold_against(store, said)
    finally:
        writer.kill()
        await writer.wait()


async def test_every_job_of_eight_processes_runs_once(tmp_path: Path) -> None:
    """Producers and workers in all of them, while journals are sealed and compacted beneath."""
    count, directory = 150 * MORE, tmp_path / "store"
    workers = [
        await spawn(*command("share", directory, f"p{number}", count, 8 * count, rotate_at=200_000))
        for number in range(8)
    ]
    ran: list[str] = []
    for worker in workers:
        ran += (await news(worker))["ran"]
        assert await worker.wait() == 0
    assert len(ran) == len(set(ran)) == 8 * count
    async with opened(directory) as store:
        counts = await store.counts("q")
        assert (counts.completed, counts.queued, counts.processing) == (8 * count, 0, 0)
    assert not list(directory.glob("*.tmp"))


class Answers:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[Reply] = asyncio.Queue()

    def deliver(self, replies: Any) -> None:
        for reply in replies:
            self.queue.put_nowait(reply)

    def cancel_requested(self, queue: str, id: str, fence: int) -> None: ...

    def resync(self) -> None: ...


async def test_a_waiting_process_is_woken_and_answers(tmp_path: Path) -> None:
    """There and back; long before anybody would look by himself."""
    directory, answers = tmp_path / "store", Answers()
    async with opened(directory) as store:
        await store.subscribe("q", "me", answers)
        server = await spawn(*command("serve", directory, "w"))
        assert await news(server) == {"ready": True}
        ways, trips = [], []
        for number in range(20 * MORE):
            started = store.clock.monotonic()
            await store.insert("q", [NewJob(f"job-{number}", b"", ttl=1000, wait=True)], reply_to="me")
            stored = store.clock.monotonic()
            async with asyncio.timeout(LIMIT):
                reply = await answers.queue.get()
            trips.append(store.clock.monotonic() - started)
            assert reply.data is not None
            ways.append(float(reply.data) - stored)
        await store.insert("q", [NewJob("stop", b"")])
        assert await server.wait() == 0
    print(f"woken after p50 {statistics.median(ways) * 1000:.2f} ms, max {max(ways) * 1000:.2f} ms")
    print(f"there and back p50 {statistics.median(trips) * 1000:.2f} ms, max {max(trips) * 1000:.2f} ms")
    assert statistics.median(ways) < 0.25


@pytest.mark.parametrize("after", range(3 * MORE))
async def test_killed_at_any_moment(after: int, tmp_path: Path) -> None:
    """A real SIGKILL among other processes: what was said to be stored is, and the others go on."""
    directory = tmp_path / "store"
    async with opened(directory) as store:
        victim = await spawn(*command("insert_forever", directory, "victim", rotate_at=5000))
        other = await spawn(*command("insert_some", directory, "other", 60, rotate_at=5000))
        said: list[dict[str, str]] = []
        while len(said) < 20 + 7 * after:
            said.append(await news(victim))
        victim.send_signal(signal.SIGKILL)
        while found := await news(victim):
            said.append(found)
        await victim.wait()
        while found := await news(other):
            said.append(found)
        assert await other.wait() == 0
        await hold_against(store, said)
    async with opened(directory) as store:
        await hold_against(store, said)


async def hold_against(store: FileStorage, said: list[dict[str, str]]) -> None:
    stored = [item["stored"] for item in said if "stored" in item]
    records = await store.get("q", stored)
    assert all(record is not None for record in records)
    done = await store.get("q", [item["done"] for item in said if "done" in item])
    assert all(record is not None and record.state is JobState.COMPLETED for record in done)


SYSTEM_CALLS = (
    "pwrite64,fdatasync,fsync,?rename,renameat,?renameat2,?unlink,unlinkat,ftruncate,fallocate,?mkdir,mkdirat"
)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_system_calls(tmp_path: Path) -> None:
    """The same by the system itself: any call that writes, renames, removes, cuts or syncs is the last."""
    whole = traced(tmp_path / "whole", None)
    if whole is None:
        pytest.skip("this system does not allow tracing")
    calls = whole
    assert calls > 40
    step = max(1, calls // (6 * MORE))
    for at in range(1, calls, step):
        directory = tmp_path / str(at)
        said = traced_until_killed(directory, at)
        asyncio.run(check(directory, said))


async def check(directory: Path, said: list[dict[str, str]]) -> None:
    async with opened(directory) as store:
        await hold_against(store, said)
        await store.insert("q", [NewJob("after", b"")])


def strace(directory: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    program = command("insert_some", directory, "p", 12, rotate_at=2000)
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", str(directory) + ".trace", *options, *program],
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


def traced(directory: Path, _: None) -> int | None:
    """Count the system calls of a whole run; ``None`` if tracing is not allowed."""
    done = strace(directory, "-e", f"trace={SYSTEM_CALLS}")
    if done.returncode:
        return None
    lines = Path(str(directory) + ".trace").read_text().splitlines()
    return sum("(" in line and "resumed" not in line for line in lines)


def traced_until_killed(directory: Path, at: int) -> list[dict[str, str]]:
    done = strace(
        directory, "-e", f"trace={SYSTEM_CALLS}", "-e", f"inject={SYSTEM_CALLS}:signal=SIGKILL:when={at}"
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
