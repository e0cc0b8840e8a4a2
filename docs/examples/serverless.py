"""Run what waits, and end: ``python serverless.py``, from cron or a timer of a platform. Needs no worker."""

import asyncio

from tasks import queue


async def main() -> None:
    """Take back what others have lost, run up to a hundred jobs, ten at once, and start none after 20 s."""
    recovered = await queue.reclaim()
    done = await queue.process_once(limit=100, concurrency=10, timeout=20.0)
    print(f"{done.completed} completed, {done.failed} failed, {recovered} recovered")


asyncio.run(main())
