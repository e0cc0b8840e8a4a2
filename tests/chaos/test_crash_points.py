"""The connection is cut at each command of a job's life, and the job runs exactly as often as it wants to.

For every number n, the n-th command of all that a producer, a worker and a reaper send is cut before it is
sent, after it was sent, or after its reply. ``JOBQUEUE_CRASH_POINTS=full`` takes every n; otherwise every
seventh, so that the three places together meet most kinds of commands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from jobqueue import Backoff, Job, JobState, PostgresStorage, Queue, Reaper, open_storage
from jobqueue.runtime.ids import unique_id
from tests.chaos.stepper import PLACES, PostgresSplitter, Splitter, resp_commands, stepping
from tests.services import BINARIES, Server
from tests.storage.postgres.server import PostgresServer

STRIDE = 1 if os.environ.get("JOBQUEUE_CRASH_POINTS") == "full" else 7
AT_ONCE = 8
"""Lives that are lived side by side."""
LEASE = 3.0
"""Seconds: a machine that is busy with other things must not end it."""
LASTS = 1.2
"""Seconds that a run takes: long enough for a renewal of its lease."""
BOUND = 60.0


pytestmark = pytest.mark.timeout(600 if STRIDE == 1 else 120)


class Redis:
    def __init__(self) -> None:
        self.server = Server(BINARIES["redis"]()).start()

    port = property(lambda self: self.server.port)

    def splitter(self) -> Splitter:
        return resp_commands

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"


class Postgres:
    def __init__(self) -> None:
        self.server = PostgresServer().start()
        asyncio.run(PostgresStorage(self.server.url).apply_schema())

    port = property(lambda self: self.server.port)

    def splitter(self) -> Splitter:
        return PostgresSplitter()

    def url(self, port: int) -> str:
        return self.server.url.replace(f":{self.server.port}", f":{port}")


@pytest.fixture(scope="module", params=[Redis, Postgres])
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = request.param()
    yield made
    made.server.remove()


async def live(backend: Any, cut_at: int = 0, place: str = "before") -> tuple[list[bytes], list[str]]:
    """Let a job live: enqueued, tried, tried again, renewed, ended, awaited. Return commands and runs."""
    name, runs = f"q-{unique_id()}", list[str]()
    async with (
        stepping(backend.port, backend.splitter, cut_at, place) as stepper,
        AsyncExitStack() as stack,
        asyncio.timeout(BOUND),
    ):
        url = backend.url(stepper.port)
        worker: Queue[Any, Any] = Queue(
            url, name, visibility_timeout=LEASE, backoff=Backoff.fixed(0.05), block_timeout=1.0
        )

        @worker.execute
        async def handle(job: Job[Any]) -> str:
            await job.progress(job.attempts)
            await asyncio.sleep(LASTS)
            if not runs:
                runs.append("raised")
                raise RuntimeError("the first attempt fails")
            runs.append("returned")
            return f"{job.payload}!"

        producer: Queue[Any, Any] = Queue(open_storage(url), name)
        for service in (producer, worker, Reaper(open_storage(url), [name], sweep_interval=0.2)):
            await stack.enter_async_context(service)
        assert await producer.enqueue_and_wait("a", "A", timeout=BOUND) == "A!"
        status = await producer.get_status("a")
        assert status is not None
        assert status.state is JobState.COMPLETED
        commands = list(stepper.commands)
    return commands, runs


@pytest.mark.parametrize("place", PLACES)
async def test_a_job_whose_connection_is_cut_at_any_command_ends_once(backend: Any, place: str) -> None:
    commands, runs = await live(backend)
    assert runs == ["raised", "returned"]
    slots, wrong = asyncio.Semaphore(AT_ONCE), list[str]()

    async def point(number: int) -> None:
        async with slots:
            try:
                _, runs = await live(backend, number, place)
            except Exception as error:  # which of the points it was is what has to be known
                wrong.append(f"{number}: {error!r}")
            else:
                if runs != ["raised", "returned"]:
                    wrong.append(f"{number}: {runs}")

    first = 1 + PLACES.index(place) * 2 % STRIDE
    await asyncio.gather(*(point(number) for number in range(first, len(commands) + 1, STRIDE)))
    assert wrong == [], commands


COMMANDS: list[tuple[Callable[[], Splitter], list[bytes]]] = [
    (lambda: resp_commands, [b"*1\r\n$4\r\nPING\r\n", b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"]),
    (PostgresSplitter, [b"\0\0\0\x08\0\0\0\0", b"P\0\0\0\x04S\0\0\0\x04", b"Q\0\0\0\x06a\0"]),
]


@pytest.mark.quick
@pytest.mark.parametrize(("splitter", "commands"), COMMANDS)
def test_commands_are_told_apart_however_they_arrive(
    splitter: Callable[[], Splitter], commands: list[bytes]
) -> None:
    stream = b"".join(commands)
    for size in range(1, len(stream) + 1):
        take, buffer, taken = splitter(), bytearray(), list[bytes]()
        for at in range(0, len(stream), size):
            buffer += stream[at : at + size]
            taken += take(buffer)
        assert taken == commands
