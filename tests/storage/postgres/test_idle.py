"""What a queue that has nothing to do asks of the server."""

from __future__ import annotations

import asyncio

from jobqueue import Job, Queue
from jobqueue.storage.postgres import PostgresStorage
from tests.storage.postgres.server import PostgresServer

SECONDS = 4.0


async def test_an_idle_worker_makes_at_most_one_statement_per_second() -> None:
    server = PostgresServer(settings={"log_statement": "all"}).start()
    try:
        storage = PostgresStorage(server.url)
        await storage.apply_schema()
        queue: Queue[str, str] = Queue(PostgresStorage(server.url))

        @queue.execute
        async def handle(job: Job[str]) -> str:
            return job.payload

        async with queue:
            assert await queue.enqueue_and_wait("a", "x") == "x"
            await asyncio.sleep(1.0)  # what follows a job has been asked
            before = _statements(server)
            await asyncio.sleep(SECONDS)
            made = _statements(server) - before
        assert made <= SECONDS
    finally:
        server.remove()


def _statements(server: PostgresServer) -> int:
    """Count the lines of the log that are statements, prepared ones too."""
    text = (server.dir / "log").read_text()
    return text.count("LOG:  statement:") + text.count("LOG:  execute ")
