"""The whole public interface, as ``from jobqueue import NAME`` finds it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jobqueue.backoff import Backoff
from jobqueue.errors import (
    ErrorInfo,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    LeaseLostError,
    MaxRetriesError,
    QueueFullError,
    ResultExpiredError,
    SerializationError,
    StorageError,
    StorageUnavailableError,
    WaitTimeoutError,
)
from jobqueue.events import (
    ErrorOccurred,
    Event,
    JobCancelled,
    JobCompleted,
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
from jobqueue.execution import AfterExecution, Handler, Hook
from jobqueue.job import AbortedReason, FailureReason, Fatal, JobState, Retry
from jobqueue.options import LeaderElection
from jobqueue.queue import Queue
from jobqueue.reaper import Reaper
from jobqueue.records import EnqueueRequest, EnqueueResult, EnqueueStatus, JobStatus
from jobqueue.run import Job
from jobqueue.serde import JsonSerde, MsgpackSerde, Serde
from jobqueue.storage.base import CancelStatus, Reuse, Storage, UpdateTtlStatus
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.urls import open_storage

if TYPE_CHECKING:
    from jobqueue.storage.file import FileStorage
    from jobqueue.storage.redis import RedisStorage

__all__ = [
    "AbortedReason",
    "AfterExecution",
    "Backoff",
    "CancelStatus",
    "EnqueueRequest",
    "EnqueueResult",
    "EnqueueStatus",
    "ErrorInfo",
    "ErrorOccurred",
    "Event",
    "FailureReason",
    "Fatal",
    "FileStorage",
    "Handler",
    "Hook",
    "InvalidArgumentError",
    "Job",
    "JobCancelled",
    "JobCancelledError",
    "JobCompleted",
    "JobEnqueued",
    "JobFailed",
    "JobFailedError",
    "JobFailing",
    "JobNotFoundError",
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
    "MaxRetriesError",
    "MemoryStorage",
    "MsgpackSerde",
    "Queue",
    "QueueFullError",
    "QueueStarted",
    "QueueStopped",
    "Reaper",
    "RedisStorage",
    "ResultExpiredError",
    "Retry",
    "Reuse",
    "Serde",
    "SerializationError",
    "Storage",
    "StorageError",
    "StorageUnavailableError",
    "UpdateTtlStatus",
    "WaitTimeoutError",
    "open_storage",
]

_ON_DEMAND = {"FileStorage": "jobqueue.storage.file", "RedisStorage": "jobqueue.storage.redis"}


def __getattr__(name: str) -> Any:
    """Load a store when its class is asked for: the others need no third party."""
    if name in _ON_DEMAND:
        return getattr(importlib.import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
