"""Fair shares: a tenant's long line delays another by a turn only. ``python tenants.py`` shows the order."""

import asyncio

from jobqueue import EnqueueRequest, Job, JobCompleted, Limits, Queue

queue: Queue[float, None] = Queue(name="tenants", concurrency=4, limits=Limits(group_running=2))


@queue.execute
async def convert(job: Job[float]) -> None:
    """Do some work for a tenant, of whom at most two jobs run at once, on all workers together."""
    await asyncio.sleep(job.payload)


async def main() -> None:
    """Enqueue twenty jobs of one tenant, then two of another, and print them in the order of their ends."""
    ended: list[str] = []
    queue.on(JobCompleted, lambda event: ended.append(event.id))
    of_a = [EnqueueRequest(f"a{number}", 0.02, group="tenant:a") for number in range(20)]
    of_b = [EnqueueRequest(f"b{number}", 0.02, group="tenant:b") for number in range(2)]
    async with queue.producer():
        await queue.enqueue_many([*of_a, *of_b])
    async with queue:
        await queue.drain(30.0)
    print(*ended)


asyncio.run(main())
