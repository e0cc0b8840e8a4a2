"""The whole public interface, as ``from jobqueue import NAME`` finds it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jobqueue.app import App
from jobqueue.client.around import EnqueueNext
from jobqueue.client.results import (
    Attempt,
    EnqueueRequest,
    EnqueueResult,
    EnqueueStatus,
    JobStatus,
    SyncEnqueueResult,
)
from jobqueue.client.room import OnFull
from jobqueue.control import Health
from jobqueue.errors import (
    BrokenError,
    ErrorInfo,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    LeaseLostError,
    MaxRetriesError,
    NotConfirmedError,
    NotStartedError,
    QueueFullError,
    ResultExpiredError,
    SerializationError,
    StoppedError,
    StorageError,
    StorageUnavailableError,
    TooLargeError,
    UnsupportedError,
    WaitTimeoutError,
    WrongLoopError,
)
from jobqueue.events import (
    ErrorOccurred,
    Event,
    JobCancelled,
    JobCompleted,
    JobDeadLettered,
    JobEnqueued,
    JobFailed,
    JobFailing,
    JobProcessing,
    JobProgress,
    JobRequeued,
    JobStalled,
    LeadershipAcquired,
    LeadershipLost,
    QueueStarted,
    QueueStopped,
)
from jobqueue.explanation import Explanation, Reason, ReasonKind
from jobqueue.jobs import JobFilter, JobPage
from jobqueue.limits import QueueLimits
from jobqueue.maintenance.leadership import LeaderElection
from jobqueue.maintenance.reaper import Reaper
from jobqueue.model.backoff import Backoff
from jobqueue.model.limits import Limits, Rate
from jobqueue.model.outcomes import AbortedReason, FailureReason, Fatal, Retry
from jobqueue.model.serde import JsonSerde, MsgpackSerde, Serde
from jobqueue.model.states import JobState
from jobqueue.model.ticks import CatchUp
from jobqueue.queue import Queue
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.collector import calm_collector
from jobqueue.schedules.stored import Schedule
from jobqueue.stats import QueueStats, ReaperStats, WorkerStats
from jobqueue.storage.contract import Storage
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.urls import open_storage
from jobqueue.storage.values import CancelStatus, Conflict, Reuse, UpdateTtlStatus
from jobqueue.sync import SyncJobs, SyncQueue
from jobqueue.tasks.depends import Depends
from jobqueue.worker.after_execution import AfterExecution, Hook
from jobqueue.worker.execution import Handler, RunNext
from jobqueue.worker.job import Job, current_job
from jobqueue.worker.once import Processed

if TYPE_CHECKING:
    from jobqueue.storage.file import FileStorage
    from jobqueue.storage.guard import (
        GuardedStorage,
        GuardEvent,
        GuardNotice,
        GuardStats,
        PostgresLedger,
        Reconciled,
    )
    from jobqueue.storage.postgres import PostgresStorage
    from jobqueue.storage.redis import Confirm, RedisStorage
    from jobqueue.tasks.task import SyncTask, Task

__all__ = [
    "AbortedReason",
    "AfterExecution",
    "App",
    "Attempt",
    "Backoff",
    "BrokenError",
    "CancelStatus",
    "CatchUp",
    "Clock",
    "Confirm",
    "Conflict",
    "Depends",
    "EnqueueNext",
    "EnqueueRequest",
    "EnqueueResult",
    "EnqueueStatus",
    "ErrorInfo",
    "ErrorOccurred",
    "Event",
    "Explanation",
    "FailureReason",
    "Fatal",
    "FileStorage",
    "GuardEvent",
    "GuardNotice",
    "GuardStats",
    "GuardedStorage",
    "Handler",
    "Health",
    "Hook",
    "InvalidArgumentError",
    "Job",
    "JobCancelled",
    "JobCancelledError",
    "JobCompleted",
    "JobDeadLettered",
    "JobEnqueued",
    "JobFailed",
    "JobFailedError",
    "JobFailing",
    "JobFilter",
    "JobNotFoundError",
    "JobPage",
    "JobProcessing",
    "JobProgress",
    "JobQueueError",
    "JobRequeued",
    "JobStalled",
    "JobState",
    "JobStatus",
    "JsonSerde",
    "LeaderElection",
    "LeadershipAcquired",
    "LeadershipLost",
    "LeaseLostError",
    "Limits",
    "MaxRetriesError",
    "MemoryStorage",
    "MsgpackSerde",
    "NotConfirmedError",
    "NotStartedError",
    "OnFull",
    "PostgresLedger",
    "PostgresStorage",
    "Processed",
    "Queue",
    "QueueFullError",
    "QueueLimits",
    "QueueStarted",
    "QueueStats",
    "QueueStopped",
    "Rate",
    "Reaper",
    "ReaperStats",
    "Reason",
    "ReasonKind",
    "Reconciled",
    "RedisStorage",
    "ResultExpiredError",
    "Retry",
    "Reuse",
    "RunNext",
    "Schedule",
    "Serde",
    "SerializationError",
    "StoppedError",
    "Storage",
    "StorageError",
    "StorageUnavailableError",
    "SyncEnqueueResult",
    "SyncJobs",
    "SyncQueue",
    "SyncTask",
    "Task",
    "TooLargeError",
    "UnsupportedError",
    "UpdateTtlStatus",
    "WaitTimeoutError",
    "WorkerStats",
    "WrongLoopError",
    "calm_collector",
    "current_job",
    "open_storage",
]

_ON_DEMAND = {
    "Confirm": "jobqueue.storage.redis",
    "FileStorage": "jobqueue.storage.file",
    "GuardEvent": "jobqueue.storage.guard",
    "GuardNotice": "jobqueue.storage.guard",
    "GuardStats": "jobqueue.storage.guard",
    "GuardedStorage": "jobqueue.storage.guard",
    "PostgresLedger": "jobqueue.storage.guard",
    "PostgresStorage": "jobqueue.storage.postgres",
    "Reconciled": "jobqueue.storage.guard",
    "RedisStorage": "jobqueue.storage.redis",
    "SyncTask": "jobqueue.tasks.task",
    "Task": "jobqueue.tasks.task",
}


def __getattr__(name: str) -> Any:
    """Load what needs a third party when it is asked for."""
    if name in _ON_DEMAND:
        return getattr(importlib.import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
