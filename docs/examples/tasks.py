"""The queue and its handler: ``jobqueue worker tasks:queue``. JOBQUEUE_STORAGE names the store."""

from jobqueue import Job, Queue

queue: Queue[str, int] = Queue(name="words", concurrency=4)


@queue.execute
async def count_words(job: Job[str]) -> int:
    """Return the number of words in a text."""
    return len(job.payload.split())
