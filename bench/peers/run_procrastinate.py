"""Procrastinate: https://procrastinate.readthedocs.io."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from harness import PAYLOAD, Stop, ending, main
from procrastinate import App, PsycopgConnector


class Procrastinate:
    """It stores no results."""

    def __init__(self) -> None:
        logging.disable(logging.WARNING)
        self.app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_POSTGRES"], max_size=10))
        self.opened = False
        self.done: Callable[[], None] = lambda: None

        @self.app.task(name="noop")
        async def noop(data: str) -> None:  # noqa: ARG001
            self.done()

        self.noop = noop

    async def open(self, _port: int) -> None:
        if not self.opened:
            self.opened = True
            await self.app.open_async()

    async def close(self) -> None:
        await self.app.close_async()

    async def install(self) -> None:
        await self.open(0)
        await self.app.schema_manager.apply_schema_async()
        await self.close()

    async def enqueue(self, _number: int) -> None:
        await self.noop.defer_async(**PAYLOAD)

    async def enqueue_many(self, count: int) -> None:
        await self.noop.batch_defer_async(*[PAYLOAD] * count)

    async def request(self, _number: int) -> None:
        raise NotImplementedError

    async def work(self, _port: int, concurrency: int, done: Callable[[], None]) -> Stop:
        await self.open(0)
        self.done = done
        running = self.app.run_worker_async(concurrency=concurrency, install_signal_handlers=False)
        return ending(asyncio.create_task(running))


main(Procrastinate())
