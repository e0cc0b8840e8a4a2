"""Settings of all tests."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run: a test that fails here fails everywhere, and one that passes stays green.
# `HYPOTHESIS_PROFILE=explore` looks for new ones.
settings.register_profile("ci", derandomize=True, max_examples=100, deadline=None, database=None)
settings.register_profile("explore", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A shell starts background jobs with SIGINT ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS = Path(__file__).parent
QUICK = (
    "model", "runtime", "client", "worker", "maintenance", "observe", "queue", "testing",
    "test_decoders.py", "test_errors.py",
    "storage/test_engine.py", "storage/test_memory.py", "storage/test_urls.py", "storage/test_wakeups.py",
    "storage/redis/test_error_replies.py", "storage/redis/test_work_signal.py",
)  # fmt: skip
"""Tests that need no server and little time."""
LONG = (
    "testing/test_model_catches.py", "storage/test_memory.py::TestMemoryStorageModel",
    "worker/test_heartbeat.py", "queue/test_real_time.py",
)  # fmt: skip
"""Of these, those that take half of the time: random programs until one fails, and waits in real time."""


FIRST = (
    "lifecycle/test_schedules.py", "storage/test_postgres.py", "storage/test_redis_fake.py",
    "lifecycle/test_pause.py", "lifecycle/test_several_queues.py", "lifecycle/test_two_processes.py",
    "chaos/test_crash_points.py", "sim/test_sim.py", "storage/redis/test_cluster_pushes.py",
    "storage/file/test_crash.py", "storage/test_file.py", "lifecycle/", "testing/test_model_catches.py",
    "chaos/", "storage/redis/test_locale.py", "storage/redis/test_sentinel.py",
    "storage/redis/test_cluster.py", "storage/postgres/test_failover.py", "storage/file/test_processes.py",
    "storage/", "docs/", "cli/",
)  # fmt: skip
"""Files that take long, the longest first: one that is left to the end keeps a single processor busy."""


SHRINKS = 900
"""Seconds for a model: Hypothesis takes five minutes to make a program short that has failed."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read the other tests for ``-m quick``: all of them take ten seconds to collect."""
    name = collection_path.relative_to(TESTS).as_posix() if collection_path.is_relative_to(TESTS) else "."
    if config.option.markexpr != "quick" or name == ".":
        return None
    return not any(name.startswith(quick) or quick.startswith(f"{name}/") for quick in QUICK) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests; bring files that take long to the front."""
    items.sort(key=_turn)
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(QUICK) and not name.startswith(LONG):
            item.add_marker(pytest.mark.quick)
        if name.endswith("Model::runTest"):
            item.add_marker(pytest.mark.timeout(SHRINKS))


def _turn(item: pytest.Item) -> int:
    name = item.nodeid.removeprefix("tests/")
    return next((turn for turn, begin in enumerate(FIRST) if name.startswith(begin)), len(FIRST))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a command run in this process does to logging: it would silence later tests' `caplog`."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
