"""Some thousand seeds of the simulation, each of which keeps every promise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.program import make_program
from tests.sim.run import Simulation
from tests.sim.teeth import FAULTS, OTHERS, ROOT, Mutant

SEEDS = int(os.environ.get("JOBQUEUE_SIM_SEEDS", "2000"))
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_no_promise_is_broken(part: int) -> None:
    count = SEEDS // PARTS
    command = [sys.executable, "-m", "tests.sim", "--first", str(part * count), "--seeds", str(count)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]


@pytest.mark.parametrize("seed", range(12))
def test_a_seed_repeats_a_run_exactly(seed: int) -> None:
    stories = []
    for _ in range(2):
        simulation = Simulation(make_program(seed), trace=True)
        simulation.run()
        simulation.close()
        stories.append((simulation.world.steps, simulation.world.story))
    assert stories[0] == stories[1]
    assert stories[0][1]


@pytest.mark.parametrize("mutant", [*FAULTS, *OTHERS], ids=lambda mutant: mutant.name)
def test_a_mutant_is_a_line_of_the_code(mutant: Mutant) -> None:
    """What ``python -m tests.sim.teeth`` breaks is there: else it would break nothing."""
    assert (ROOT / mutant.file).read_text().count(mutant.old) >= 1
