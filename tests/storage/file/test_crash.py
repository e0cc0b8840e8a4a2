"""Death at every call that changes a file, in every way; and what is left when the power goes."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest

from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.upkeep.replica import Replica
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Counting, Killed, Killing, PowerCut, Quiet
from tests.storage.file.program import Ledger, Program, make_core, verify

MORE = int(os.environ.get("JOBQUEUE_TEST_MORE", "1"))


@pytest.fixture(scope="module")
def steps() -> int:
    """How many changing calls the program makes."""
    with tempfile.TemporaryDirectory() as directory:
        files = Counting()
        Program(Path(directory) / "s", files, FakeClock(), Ledger()).run()
        return files.count


def run_until_killed(directory: Path, files: Killing | PowerCut, **options: bool) -> tuple[Ledger, FakeClock]:
    ledger, clock = Ledger(), FakeClock()
    try:
        Program(directory, files, clock, ledger, **options).run()
    except Killed:
        files.let_go()
        return ledger, clock
    pytest.fail("it was not killed")


def saved(replica: Replica) -> list[object]:
    """Everything that is to be the same for all processes."""
    engine = replica.state.engine
    return [engine.counters, engine.locks, sorted(engine.dump(replica.state.now))]


@pytest.mark.parametrize("how", ["before", "after", "half"])
def test_killed_at_every_call(steps: int, how: str, tmp_path: Path) -> None:
    """The next opener finds all that was promised."""
    assert steps > 100
    for at in range(steps):
        directory = tmp_path / f"{how}-{at}"
        ledger, clock = run_until_killed(directory, Killing(at, how))
        verify(directory, ledger, clock).close()


@pytest.mark.parametrize("how", ["before", "after", "half"])
def test_others_go_on_after_a_death(steps: int, how: str, tmp_path: Path) -> None:
    """A process that was there all the time, one that comes later: both see the same."""
    for at in range(25, steps, 1 if MORE > 1 else 3):
        directory = tmp_path / f"{how}-{at}"
        clock = FakeClock()
        witness = make_core(directory, Quiet(), clock, rotate_at=3000)
        witness.open()
        files, ledger = Killing(at, how), Ledger()
        program = Program(directory, files, clock, ledger)
        try:
            program.run()
        except Killed:
            files.let_go()
        assert witness.turn([]).answers == []
        later = verify(directory, ledger, clock)
        see_the_same(witness, later)
        witness.close()
        later.close()


def see_the_same(one: StoreCore, other: StoreCore) -> None:
    one.turn([])
    other.turn([])
    assert saved(one.replica) == saved(other.replica)


@pytest.mark.parametrize("seed", range(2 * MORE))
def test_power_cut_at_every_call(steps: int, seed: int, tmp_path: Path) -> None:
    for at in range(steps):
        files = PowerCut(at)
        ledger, clock = run_until_killed(tmp_path / f"before-{at}", files)
        after = tmp_path / f"after-{at}"
        after.mkdir()
        files.rebuild(after, random.Random(seed * 100_000 + at))
        reboot(after)
        verify(after, ledger, clock).close()


def reboot(directory: Path) -> None:
    """The page, if it was written at all, is of another boot."""
    lock = directory / "lock"
    if lock.exists():
        lock.write_bytes(b"")


@pytest.mark.parametrize("control", ["fsync=False", "a disk that lies"])
def test_the_power_cut_has_teeth(control: str, tmp_path: Path) -> None:
    """Without syncs, promises are broken: so the test above would notice."""
    lost = 0
    options = {"fsync": False} if control == "fsync=False" else {}
    for at in range(60, 180, 5):
        files = PowerCut(at, lying=control != "fsync=False")
        ledger, clock = run_until_killed(tmp_path / f"before-{at}", files, **options)
        after = tmp_path / f"after-{at}"
        after.mkdir()
        files.rebuild(after, random.Random(at))
        reboot(after)
        try:
            verify(after, ledger, clock).close()
        except Exception:
            lost += 1
    assert lost > 3
