"""What the package exports, and what it leaves alone when imported."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobqueue
from jobqueue import App, JobQueueError, Queue, Reaper

PACKAGE = Path(jobqueue.__file__).parent

NAMES = """
    Queue Reaper App LeaderElection Job JobState JobStatus Backoff Retry Fatal AfterExecution
    SyncQueue SyncJobs SyncTask SyncEnqueueResult Processed
    EnqueueRequest EnqueueResult EnqueueStatus Reuse CancelStatus UpdateTtlStatus
    AbortedReason FailureReason ErrorInfo Handler Hook
    Serde JsonSerde MsgpackSerde
    Storage MemoryStorage FileStorage RedisStorage PostgresStorage open_storage
    JobQueueError InvalidArgumentError SerializationError QueueFullError WaitTimeoutError JobNotFoundError
    ResultExpiredError
    JobCancelledError JobFailedError MaxRetriesError LeaseLostError StorageError StorageUnavailableError
    UnsupportedError NotStartedError StoppedError BrokenError WrongLoopError TooLargeError NotConfirmedError
    OnFull Conflict Clock Confirm calm_collector EnqueueNext RunNext
    Event QueueStarted QueueStopped JobEnqueued JobProcessing JobCompleted JobFailed JobFailing JobRequeued
    JobCancelled JobStalled JobDeadLettered JobProgress ErrorOccurred LeadershipAcquired LeadershipLost
""".split()  # noqa: SIM905


def test_every_public_name_is_exported() -> None:
    missing = [name for name in NAMES if not hasattr(jobqueue, name)]
    assert missing == []
    assert set(NAMES) <= set(jobqueue.__all__)
    assert [name for name in jobqueue.__all__ if not hasattr(jobqueue, name)] == []
    assert len(set(jobqueue.__all__)) == len(jobqueue.__all__)


@pytest.mark.parametrize("name", sorted(set(jobqueue.__all__)))
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(jobqueue, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing), name
        for method, value in vars(thing).items() if inspect.isclass(thing) else ():
            if inspect.isfunction(value) and not method.startswith("_") and thing in {App, Queue, Reaper}:
                assert inspect.getdoc(value), f"{name}.{method}"


def test_the_errors_are_one_tree() -> None:
    errors = [
        thing
        for name in NAMES
        if inspect.isclass(thing := getattr(jobqueue, name)) and name.endswith("Error")
    ]
    assert len(errors) == 20
    assert all(issubclass(error, JobQueueError) for error in errors)
    assert issubclass(jobqueue.WaitTimeoutError, TimeoutError)
    assert issubclass(jobqueue.InvalidArgumentError, ValueError)
    assert issubclass(jobqueue.MaxRetriesError, jobqueue.JobFailedError)
    assert issubclass(jobqueue.StorageUnavailableError, jobqueue.StorageError)


def test_the_defaults_of_a_queue_are_those_that_are_promised() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(Queue).parameters.items()
        if parameter.default is not parameter.empty
    }
    promised = {
        "name": "default", "worker_id": None, "concurrency": 1, "max_attempts": 3, "visibility_timeout": 30.0,
        "job_timeout": None, "result_ttl": 3600.0, "block_timeout": 5.0, "backoff": None, "max_stalls": 2,
        "max_length": None, "max_payload_bytes": 1_048_576, "payload_serde": None, "result_serde": None,
        "after_execution": None, "tracebacks": False,
    }  # fmt: skip
    assert {name: defaults[name] for name in promised} == promised
    backoff = Queue("memory://")._options.backoff
    assert repr(backoff) == "Backoff.exponential(1.0, factor=2.0, max=30.0, jitter=0.1)"
    election = jobqueue.LeaderElection()
    assert (election.lock_ttl, election.renewal_interval, election.acquire_retry_interval) == (30, 10, 5)


def test_importing_it_imports_no_third_party_package() -> None:
    program = """
import sys
before = set(sys.modules)
from jobqueue import Queue
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"jobqueue"}))
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.strip() == "[]", run.stderr


CLOCKS = {"time", "random", "uuid", "secrets"}
CALLS = {
    ("asyncio", "sleep"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("os", "urandom"),
}


def uses_of_time(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in CLOCKS)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {(node.module, alias.name) for alias in node.names}
            if (node.module or "").partition(".")[0] in CLOCKS or names & CALLS:
                yield f"from {node.module}"
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id, node.attr) in CALLS
        ):
            yield f"{node.value.id}.{node.attr}"


def test_only_the_room_of_the_machine_names_clock_randomness_and_sleep() -> None:
    found = {
        str(path.relative_to(PACKAGE)): uses
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "testing"
        and (uses := sorted(set(uses_of_time(ast.parse(path.read_text())))))
    }
    assert found == {
        "runtime/clock.py": ["asyncio.sleep", "random", "time"],
        "runtime/ids.py": ["secrets"],
        "runtime/tasks.py": ["asyncio.sleep"],
    }


def test_the_search_for_clocks_finds_them() -> None:
    program = (
        "import time\nfrom random import random\nimport asyncio\nasyncio.sleep(0)\nfrom asyncio import sleep"
    )
    assert sorted(uses_of_time(ast.parse(program))) == [
        "asyncio.sleep",
        "from asyncio",
        "from random",
        "time",
    ]
