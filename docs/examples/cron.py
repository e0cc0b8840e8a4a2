"""Tasks at their times: ``jobqueue worker cron:app``. Run two, for when one dies: each tick is one job."""

from typing import Any

from jobqueue import App, Job, Queue

queue: Queue[Any, Any] = Queue(name="cron")  # JOBQUEUE_STORAGE names the store


@queue.schedule(every=2.0)
@queue.task
async def heartbeat(job: Job[Any]) -> None:
    """Print which tick this is."""
    print(job.id, flush=True)


@queue.schedule(cron="30 2 * * mon-fri", timezone="Europe/Berlin", catch_up="all", kwargs={"copies": 2})
@queue.task(max_attempts=5)
async def report(copies: int) -> None:
    """Print a report, on the days of the week, in the night of Berlin."""
    print(f"{copies} copies of the report", flush=True)


app = App(queues=[queue])  # with a reaper, which enqueues the ticks
