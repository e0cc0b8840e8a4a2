"""python -m tests.sim --seeds 100000 [--first 0] | --seed 17

Runs many seeds, stops at the first that breaks a promise, shrinks it, and prints its story.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time

from tests.sim.program import make_program
from tests.sim.run import shrink, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=2000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    gc.freeze()
    first, count = (arguments.first, arguments.seeds) if arguments.seed is None else (arguments.seed, 1)
    began = time.monotonic()
    for seed in range(first, first + count):
        failure = simulate(make_program(seed))
        if failure is not None:
            print(shrink(failure))
            print(f"repeat it with: python -m tests.sim --seed {seed}")
            return 1
    took = time.monotonic() - began
    print(f"{count} seeds in {took:.1f} s, {count / took:.0f} a second: no promise was broken")
    return 0


if os.environ.get("PYTHONHASHSEED") != "0":
    # The order of a set of texts depends on it, and a seed is to repeat a run exactly.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
sys.exit(main())
