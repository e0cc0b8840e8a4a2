# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""`on` knows the class of an event, and the name of every one."""

from __future__ import annotations

from typing import Any, assert_type

from jobqueue import (
    JobCompleted,
    JobDeadLettered,
    JobFailed,
    JobStalled,
    LeadershipLost,
    Queue,
    QueueStarted,
    Reaper,
)

queue = Queue("memory://")
reaper = Reaper("memory://")


def completed(event: JobCompleted) -> None:
    assert_type(event.seconds, float)


async def failed(event: JobFailed) -> None:
    assert_type(event.attempts, int)


# -- by class -------------------------------------------------------------------------------------

unsubscribe = queue.on(JobCompleted, completed)
unsubscribe()
queue.on(JobFailed, failed)
reaper.on(LeadershipLost, lambda event: print(event.why))


@queue.on(QueueStarted)
def started(event: QueueStarted) -> None:
    print(event.worker_id)


started(QueueStarted("a", "b"))

for kind in (JobCompleted, JobFailed):
    queue.on(kind, lambda event: print(event.id))

queue.on(JobFailed, completed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
queue.on(LeadershipLost, print)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
reaper.on(JobCompleted, completed)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]

for source in (queue, reaper):
    source.on(JobDeadLettered, lambda event: print(event.reason))

# -- by name --------------------------------------------------------------------------------------

queue.on("completed", completed)
queue.on("failed", failed)
reaper.on("dead_lettered", lambda event: print(event.reason))
reaper.on("stalled", lambda event: print(event.queue))


@queue.on("stalled")
async def stalled(event: JobStalled) -> None:
    print(event.worker_id)


def anything(event: Any) -> None:
    print(event)


queue.on("complete", anything)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
queue.on("leadership_lost", anything)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
reaper.on("completed", anything)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
