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
import warnings

from tests.sim.program import make_program
from tests.sim.run import shrink, simulate

SHOWN = 5000
"""Seeds after which a long run says how far it is."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=2000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    # What killed processes leave behind is closed in the middle of what it does.
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    gc.freeze()
    first, count = (arguments.first, arguments.seeds) if arguments.seed is None else (arguments.seed, 1)
    began = time.process_time()
    for done, seed in enumerate(range(first, first + count), start=1):
        failure = simulate(make_program(seed))
        if failure is not None:
            print(shrink(failure))
            print(f"repeat it with: python -m tests.sim --seed {seed}")
            return 1
        if done % SHOWN == 0 or done == count:
            took = time.process_time() - began
            rate = f"{done / took:.0f} in a second of one core"
            print(f"{done} seeds from {first} on, {rate}: no promise was broken", flush=True)
    return 0


if os.environ.get("PYTHONHASHSEED") != "0":
    # The order of a set of texts depends on it, and a seed is to repeat a run exactly.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
sys.exit(main())
