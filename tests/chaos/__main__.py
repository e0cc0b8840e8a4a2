"""`python -m tests.chaos --store redis --minutes 30 --seed 7`: processes, random faults, a verdict."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.chaos.stores import STORES
from tests.chaos.storm import Plan, Report, Storm

SHOWN = 20


def main() -> None:
    """Run; exit with 1 if anything does not fit."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--store", choices=STORES, default="file", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the faults, default: %(default)s")
    parser.add_argument(
        "--every", type=float, default=0.5, help="seconds between faults, default: %(default)s"
    )
    parser.add_argument("--kills", action="store_true", help="only SIGKILL")
    parser.add_argument("--keep", type=Path, help="directory for the history; otherwise it is deleted")
    options = parser.parse_args()
    plan = Plan(options.minutes * 60.0, options.seed, options.every)
    if options.kills:
        plan.kinds = ("kill",)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(storm(options.store, options.keep, plan, only_kills=options.kills))
    else:
        with tempfile.TemporaryDirectory(prefix="jobqueue-chaos-") as name:
            report = asyncio.run(storm(options.store, Path(name), plan, only_kills=options.kills))
    print(f"{options.store}, seed {options.seed}: {report}")
    for problem in report.verdict.problems[:SHOWN]:
        print(problem)
    sys.exit(1 if report.verdict.problems else 0)


async def storm(name: str, directory: Path, plan: Plan, *, only_kills: bool = False) -> Report:
    """Run a plan on a new store of a kind."""
    store = STORES[name](directory)
    await store.open()
    try:
        if only_kills:
            store.faults = ()
        return await Storm(store, directory, plan).run()
    finally:
        await store.close()


if __name__ == "__main__":
    main()
