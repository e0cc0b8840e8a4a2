"""Dramatiq: https://dramatiq.io.

Messages are acknowledged when their actor has ended. Those of a worker without a heartbeat for
`heartbeat_timeout` are put back by the maintenance of another, which one command in a thousand does; here
one in ten.
"""

from __future__ import annotations

import asyncio
from typing import Any

import dramatiq
import producer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import RedisBackend
from dramatiq.results.errors import ResultFailure
from job import LEASE, URL, work

broker = RedisBroker(url=URL, heartbeat_timeout=LEASE * 1000, maintenance_chance=100_000)
broker.add_middleware(Results(backend=RedisBackend(url=URL), result_ttl=3_600_000))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def handle(id: str, number: int) -> int:
    """Do one job."""
    return work(id, number)


class Dramatiq:
    """The producer; the library blocks, so its calls run in threads."""

    async def open(self) -> None:
        self.messages: dict[str, dramatiq.Message[Any]] = {}

    async def enqueue(self, id: str, number: int) -> None:
        self.messages[id] = await asyncio.to_thread(handle.send, id, number)

    async def outcome(self, id: str) -> producer.Outcome:
        return await asyncio.to_thread(self._outcome, id)

    def _outcome(self, id: str) -> producer.Outcome:
        try:
            return "completed", self.messages[id].get_result(block=False)
        except ResultMissing:
            return None
        except ResultFailure as error:
            return "failed", repr(error)


if __name__ == "__main__":
    producer.main(Dramatiq())
