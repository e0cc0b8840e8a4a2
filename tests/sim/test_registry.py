"""Nothing of the package is left out of the simulation because nobody thought of it."""

from __future__ import annotations

import re
from pathlib import Path

from jobqueue.storage import capabilities
from jobqueue.storage.contract import members, missing
from jobqueue.storage.engine.engine import Engine
from tests.sim.duties import DUTIES
from tests.sim.handle import SimStorage
from tests.sim.process import BACKGROUND
from tests.sim.registry import CALLS

PACKAGE = Path(capabilities.__file__).parents[1]
UNUSED = {"start-worker"}
"""Tasks that no program of the simulation begins: a handler is registered before the start there."""


def test_the_simulated_store_is_whole() -> None:
    assert missing(SimStorage) == ["clock"]  # each handle has its own


def test_every_capability_of_the_engine_is_registered() -> None:
    protocols = [getattr(capabilities, name) for name in capabilities.__all__]
    steps = {
        name
        for protocol in protocols
        if getattr(protocol, "_is_protocol", False)
        for name in members(protocol)
        if hasattr(Engine, name)
    }
    assert steps
    assert steps - CALLS.keys() == set(), "add these to CALLS"


def test_every_background_task_is_one_that_other_code_may_cancel() -> None:
    spawned: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        spawned |= set(re.findall(r"supervisor\.spawn\([^\n]*\"([\w-]+)\"\)", file.read_text()))
    assert {"claimer", "heartbeat", "reaper"} <= spawned
    known = {*BACKGROUND, *(task for duty in DUTIES.values() for task in duty.tasks), *UNUSED}
    assert spawned - known == set(), "add these to BACKGROUND, or to the tasks of a duty"
