"""awa, a core written in Rust: https://github.com/hardbyte/awa."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient
from harness import PAYLOAD, Stop, main


@dataclass
class Noop:
    """The arguments of a job."""

    data: str


class Awa:
    """It stores no results."""

    async def open(self, _port: int) -> None:
        self.client = AsyncClient(os.environ["BENCH_POSTGRES"], max_connections=10)

    async def close(self) -> None:
        await self.client.close()

    async def install(self) -> None:
        await self.open(0)
        await self.client.migrate()
        await self.client.install_queue_storage()  # for a new database: its fast storage, from the beginning
        await self.close()

    async def enqueue(self, _number: int) -> None:
        await self.client.insert(Noop(PAYLOAD["data"]), queue="noop")

    async def enqueue_many(self, count: int) -> None:
        await self.client.enqueue_many_copy([Noop(PAYLOAD["data"])] * count, queue="noop")

    async def request(self, _number: int) -> None:
        raise NotImplementedError

    async def work(self, _port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        await self.open(0)

        @self.client.task(Noop, queue="noop")
        async def noop(_job: Any) -> None:
            done()

        await self.client.start([("noop", concurrency)])
        return self.client.shutdown


main(Awa())
