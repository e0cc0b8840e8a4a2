"""This library. BENCH_DIRECTORY chooses its file store instead of Redis."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import PAYLOAD, Stop, main

from jobqueue import Job, JsonSerde, MsgpackSerde, Queue

SERDES = {"json": JsonSerde, "msgpack": MsgpackSerde}


class Ours:
    """One `Queue` for each role; ids are made by the queue, everything else is the default."""

    def queue(self, port: int, concurrency: int = 1) -> Queue[Any, Any]:
        serde = SERDES[os.environ.get("BENCH_SERDE", "json")]
        directory = os.environ.get("BENCH_DIRECTORY")
        url = Path(directory).absolute().as_uri() if directory else f"redis://127.0.0.1:{port}"
        return Queue(url, concurrency=concurrency, payload_serde=serde(), result_serde=serde())

    async def open(self, port: int) -> None:
        if not hasattr(self, "producer"):
            self.producer = self.queue(port)
            await self.producer.start()

    async def close(self) -> None:
        await self.producer.stop()

    async def enqueue(self, _number: int) -> None:
        await self.producer.enqueue(None, PAYLOAD)

    async def request(self, _number: int) -> None:
        await self.producer.enqueue_and_wait(None, PAYLOAD)

    async def work(self, port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        queue = self.producer = self.queue(port, concurrency)

        @queue.execute
        async def noop(_job: Job[Any]) -> bool:
            done()
            return True

        await queue.start()
        return queue.stop


main(Ours())
