"""This library. BENCH_POSTGRES or BENCH_DIRECTORY chooses another store instead of Redis."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import PAYLOAD, Stop, main

from jobqueue import Job, JsonSerde, MsgpackSerde, Queue
from jobqueue.storage.postgres import PostgresStorage

SERDES = {"json": JsonSerde, "msgpack": MsgpackSerde}


class Ours:
    """One `Queue` for each role; ids are made by the queue, everything else is the default."""

    def queue(self, port: int, concurrency: int = 1) -> Queue[Any, Any]:
        serde = SERDES[os.environ.get("BENCH_SERDE", "json")]
        return Queue(self.url(port), concurrency=concurrency, payload_serde=serde(), result_serde=serde())

    def url(self, port: int) -> str:
        if directory := os.environ.get("BENCH_DIRECTORY"):
            return Path(directory).absolute().as_uri()
        return os.environ.get("BENCH_POSTGRES") or f"redis://127.0.0.1:{port}"

    async def open(self, port: int) -> None:
        if not hasattr(self, "producer"):
            self.producer = self.queue(port)
            await self.producer.start()

    async def close(self) -> None:
        await self.producer.stop()

    async def enqueue(self, _number: int) -> None:
        await self.producer.enqueue(None, PAYLOAD)

    async def install(self) -> None:
        await PostgresStorage(os.environ["BENCH_POSTGRES"]).apply_schema()

    async def enqueue_many(self, count: int) -> None:
        await self.producer.enqueue_many([(None, PAYLOAD)] * count)

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
