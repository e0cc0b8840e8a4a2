"""A worker whose jobs survive the loss of Redis: ``python guard.py``, after ``jobqueue schema apply``.

JOBQUEUE_STORAGE names the Redis, JOBQUEUE_LEDGER the PostgreSQL that has every job too. Whoever enqueues
needs both.
"""

import asyncio
import os

from jobqueue import App, GuardedStorage, Job, PostgresLedger, Queue, RedisStorage

storage = GuardedStorage(
    RedisStorage(os.environ["JOBQUEUE_STORAGE"]), PostgresLedger(os.environ["JOBQUEUE_LEDGER"])
)
storage.guard.listen(lambda notice: print(f"guard: {notice.kind}: {notice.detail}"))
queue: Queue[str, int] = Queue(storage, "words", concurrency=4)


@queue.execute
async def count_words(job: Job[str]) -> int:
    """Return the number of words in a text."""
    words = len(job.payload.split())
    print(f"{job.id}: {words} words")
    return words


if __name__ == "__main__":
    asyncio.run(App(storage, [queue]).run())  # with a reaper, which compares the ledger with Redis
