"""A producer: enqueues the jobs at an even rate, one call each, and asks for their outcomes at the end.

Commands come as lines of JSON on standard input, answers go to standard output:

    ["enqueue", first, count, rate]   -> {"accepted": {id: seconds since the epoch}, "refused": {id: error}}
    ["ask", ids]                      -> {id: ["completed", result] | ["failed", text] | null}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Outcome", "Producer", "main"]

CALLERS = 10
"""Calls in flight."""
PATIENCE = 30.0
"""Seconds that a call may take before its job counts as refused."""

Outcome = tuple[str, Any] | None


class Producer(Protocol):
    """The calls of a library."""

    async def open(self) -> None:
        """Connect."""

    async def enqueue(self, id: str, number: int) -> None:
        """Put one job into the queue."""

    async def outcome(self, id: str) -> Outcome:
        """Return the outcome of a job, if it has one."""


def main(producer: Producer) -> None:
    """Obey the commands until standard input ends."""
    asyncio.run(_serve(producer))


async def _serve(producer: Producer) -> None:
    await producer.open()
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *arguments = json.loads(line)
        answer = await {"enqueue": _enqueue, "ask": _ask}[command](producer, *arguments)
        print(json.dumps(answer), flush=True)


async def _enqueue(producer: Producer, first: int, count: int, rate: float) -> dict[str, Any]:
    began, numbers = time.monotonic(), iter(range(count))
    accepted: dict[str, float] = {}
    refused: dict[str, str] = {}

    async def caller() -> None:
        for place in numbers:
            await asyncio.sleep(max(0.0, began + place / rate - time.monotonic()))
            id = f"job-{first + place}"
            try:
                await asyncio.wait_for(producer.enqueue(id, first + place), PATIENCE)
            except Exception as error:  # noqa: BLE001 - whatever the library raises: it has not accepted the job
                refused[id] = repr(error)[:200]
            else:
                accepted[id] = time.time()

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return {"accepted": accepted, "refused": refused}


async def _ask(producer: Producer, ids: Sequence[str]) -> dict[str, Outcome]:
    places, outcomes = iter(ids), dict[str, Outcome]()

    async def caller() -> None:
        for id in places:
            outcomes[id] = await asyncio.wait_for(producer.outcome(id), PATIENCE)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return outcomes
