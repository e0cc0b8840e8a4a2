# ruff: noqa: E501 - a line of code stands as it is

"""Breaks the queue on purpose, one line at a time, and shows that the simulation notices each.

    python -m tests.sim.teeth [--seeds 2000] [--only TEXT] [--jobs 2] [--table]

Not collected by pytest: it runs the seeds once for every mutant, in copies of the tree. Its table says which
check caught which, and after how many seeds. A mutant whose text is no longer there is an error: adapt it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TOLD = 110
"""Characters of a violation that are shown."""


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str


class Bite(NamedTuple):
    seed: int | None
    """The seed that failed; ``None`` if none did."""
    told: str


WORKER, HINT, HEART = (
    "jobqueue/worker/worker.py", "jobqueue/worker/work_hint.py", "jobqueue/worker/heartbeat.py",
)  # fmt: skip
WAITERS, WAITER, SESSION, ASKING, PRODUCING = (
    "jobqueue/client/waiters.py", "jobqueue/client/waiter.py", "jobqueue/client/session.py",
    "jobqueue/client/asking.py", "jobqueue/client/producing.py",
)  # fmt: skip
EXECUTION, OUTCOMES = "jobqueue/worker/execution.py", "jobqueue/model/outcomes.py"
REAPER, LEADER = "jobqueue/maintenance/reaper.py", "jobqueue/maintenance/leadership.py"
BATCHING, SUPERVISOR = "jobqueue/runtime/batching.py", "jobqueue/runtime/supervisor.py"
IDS, ENGINE = "jobqueue/runtime/identity.py", "jobqueue/storage/engine/steps.py"
RUNS = "jobqueue/storage/engine/runs.py"
LIFE, APP, AROUND = "jobqueue/runtime/lifecycle.py", "jobqueue/app.py", "jobqueue/middleware.py"
DOCUMENTS = "jobqueue/storage/engine/documents.py"
STATE = "jobqueue/storage/engine/queue_state.py"
SCHEDULER, SCHEDULES = "jobqueue/schedules/scheduler.py", "jobqueue/schedules/schedules.py"

FAULTS = [
    Mutant(
        "the limit of a queue is not looked at", RUNS,
        "room, _ = admit(q.rules.queue, running, q.tat, now, limit)", "room = limit",
    ),
    Mutant(
        "a run that ends gives no slot back", STATE,
        "return bool(group) and self.in_groups().ended(group, now)", "return False",
    ),
    Mutant(
        "an answer clears the wake-up that came meanwhile", HINT,
        "        if answer.more or len(jobs) == limit:\n            self.promising = True",
        "        self.promising = answer.more or len(jobs) == limit",
    ),
    Mutant(
        "a waiter takes the record of another incarnation", WAITER,
        "if record is None or record.seq != (self.seq or record.seq):", "if record is None:",
    ),
    Mutant(
        "a waiter takes the reply of another incarnation", WAITER, "if self.seq and reply.seq != self.seq:", "if False:",
    ),
    Mutant(
        "a run that other code cancels is released", EXECUTION,
        "return Raised(replace(info, message=CANCELLED))", "return Aborted(AbortedReason.SHUTDOWN)",
    ),
    Mutant(
        "claims that nobody takes stay leased", "tests/sim/handle.py", "        if left:\n", "        if False:\n",
    ),
    Mutant(
        "all reapers have one name", IDS, "process_name()", "'reaper'",
    ),
    Mutant(
        "the waiters of a job are not bounded", ENGINE, "waiters = waiters[-MAX_WAITERS:]", "pass",
    ),
    Mutant(
        "a background task that is cancelled is not noticed", SUPERVISOR,
        "            if task.cancelled():\n                self._end(_cancelled(task))", "            pass",
    ),
]  # fmt: skip
"""Faults that were once there."""

OTHERS = [
    Mutant("no wake-up makes a worker ask", HINT, "self.promising = self.promising or promising", "pass"),
    Mutant(
        "a worker does not wake up for a run that ended", WORKER,
        "            self._awake = True\n            self._wake.set()", "            self._awake = True",
    ),
    Mutant(
        "a worker is woken once", WORKER, "            self._awake = False\n            self._wake.clear()",
        "            self._wake.clear()",
    ),
    Mutant(
        "a wake-up during an exchange is cleared", WORKER,
        "                await self._wake.wait()", "                self._wake.clear()\n                await self._wake.wait()",
    ),
    Mutant(
        "the slots are counted without the runs", WORKER,
        "taken = len(self._runs) + ", "taken = ",
    ),
    Mutant(
        "a worker that stops claims on", WORKER, "limit = 0 if self._draining else self._free_slots()",
        "limit = self._free_slots()",
    ),
    Mutant(
        "outcomes are dropped when an exchange fails", WORKER,
        "self._outbox.put_back(batch)", "self._outbox.answered(batch)",
    ),
    Mutant(
        "a stop gives back no run that goes on", WORKER,
        "            for run in tuple(self._runs.values()):\n                self._abandon(run)", "            pass",
    ),
    Mutant(
        "runs of lost leases keep their slots", EXECUTION,
        "        ended(run, settlement)\n\n    def cut_off", "        if settlement is not None:\n            ended(run, settlement)\n\n    def cut_off",
    ),
    Mutant(
        "a stop that is cancelled gives back nothing", WORKER,
        "        try:\n            await self._until_idle(timeout)\n        finally:",
        "        await self._until_idle(timeout)\n        if True:",
    ),
    Mutant("leases are not renewed", HEART, "        if not renewable:\n", "        if True:\n"),
    Mutant(
        "one attempt too many", OUTCOMES, "attempt.attempts >= attempt.max_attempts",
        "attempt.attempts > attempt.max_attempts",
    ),
    Mutant(
        "lost replies are never read again", WAITERS,
        "                self._missed.update(self._waiting)\n", "",
    ),
    Mutant(
        "a waiter that leaves takes the others with it", WAITERS,
        "            self._waiting[waiter.id] = older\n", "            del self._waiting[waiter.id]\n",
    ),
    Mutant(
        "only the latest waiter of an id hears", WAITERS,
        "                waiter = waiter.older\n\n    def cancel_requested", "                waiter = None\n\n    def cancel_requested",
    ),
    Mutant(
        "a reply before the answer of its insert is lost", WAITER,
        "        self._heard[reply.seq] = reply\n", "        pass\n",
    ),
    Mutant(
        "a waiter without an incarnation is told of any", WAITERS,
        "[waiter for waiter in self._standing(id) if waiter.seq]", "[waiter for waiter in self._standing(id)]",
    ),
    Mutant(
        "a call waits unregistered", PRODUCING, "            True,  # noqa: FBT003 - it waits\n", "            False,\n",
    ),
    Mutant(
        "a stop leaves callers waiting", SESSION, "            self.waiters.fail_all(self.defect or gone)", "            pass",
    ),
    Mutant(
        "a stop answers one caller of an id", WAITERS,
        "            for waiter in self._standing(id):\n                waiter.fail(own_copy(error))",
        "            for waiter in self._standing(id)[:1]:\n                waiter.fail(own_copy(error))",
    ),
    Mutant(
        "answers of a batch go to the wrong callers", BATCHING,
        "zip(batch, answers, strict=True)", "zip(batch, answers[::-1], strict=True)",
    ),
    Mutant(
        "callers of a batch that fails are not told", BATCHING,
        "            # Each caller gets the same error object: a traceback is all that they share.\n            _fail(batch, error)",
        "            pass",
    ),
    Mutant(
        "a leader leads once", LEADER, "                await self._lead(term, duty)\n",
        "                await self._lead(term, duty)\n                return\n",
    ),
    Mutant(
        "a sweep that fails is the last", REAPER,
        "            except JobQueueError:  # told by `sweep`\n                self._swept = False",
        "            except JobQueueError:  # told by `sweep`\n                return",
    ),
    Mutant(
        "a recovered job keeps its fence", ENGINE,
        "            self._fence += 1\n            job.fence = self._fence\n            job.stalls += 1",
        "            job.stalls += 1",
    ),
    Mutant(
        "a settlement ignores the fence", ENGINE, "if job is None or job.fence != fence or", "if job is None or",
    ),
    Mutant(
        "a wait is not told of a job that ended before", ASKING,
        "            waiter.read(self.name, record)\n            task = ", "            task = ",
    ),
    Mutant("nobody hears a push", WAITERS, "        waiting = self._waiting\n", "        waiting: dict[str, Waiter] = {}\n"),
    Mutant(
        "leases are renewed from the event loop that may be blocked", HEART,
        "        if self._clock.virtual:", "        if True:",
    ),
    Mutant(
        "a thread that goes on leaves its slot to another run", WORKER,
        "            self._stuck_threads += 1", "            self._stuck_threads += 0",
    ),
    Mutant(
        "a thread that ends at last frees no slot", WORKER, "        self._stuck_threads -= 1\n", "        pass\n",
    ),
    Mutant(
        "a follower does not hear that the lock is free", LEADER,
        "        await self._storage.wait_for_lock(self._lock, pause)", "        await self._clock.sleep(pause)",
    ),
    Mutant("a leader trusts its lock for too long", LEADER, "lock_ttl * (1 - MARGIN)", "lock_ttl * 3"),
    Mutant("a forked child may use the queue of its parent", LIFE, "        self.defect = WrongLoopError(", "        _ = WrongLoopError("),
    Mutant("a forked child stops its parent", LIFE, "            if session.in_child:  # what is", "            if False:  # what is"),
    Mutant(
        "an app forgets to stop its last queue", "jobqueue/app_session.py",
        "[queue.stop(timeout) for queue in self._queues]", "[queue.stop(timeout) for queue in self._queues[:-1]]",
    ),
    Mutant("an app starts no reaper", APP, "*([self._reaper] if self._reaps else [])", ""),
    Mutant("the middleware is inside out", AROUND, "reversed(self.middleware)", "self.middleware"),
    Mutant("headers stay behind", RUNS, "headers, task, group = extras.headers,", "headers, task, group = b'',"),
    Mutant("what is late is claimed all the same", ENGINE, "not q.rules.paused and q.over(now):", "False:"),
    Mutant("a job that has started may still expire", RUNS, "                    q.drop_deadline(job)\n", ""),
    Mutant("no job comes after another", ENGINE, "            if then:\n", "            if False:\n"),
    Mutant("a scheduler marks ticks and enqueues none", SCHEDULER, "await self._insert(queue, jobs)", "del jobs"),
    Mutant("a scheduler overwrites what others have marked", SCHEDULER, "Change(work.stored.name, work.version,", "Change(work.stored.name, None,"),
    Mutant("a scheduler that failed forgets the tick", SCHEDULER, "if self._is_planned(tick, (queue, name)):", "if False:"),
    Mutant("a tick has another id for each scheduler", SCHEDULER, "jobs += map(stored.job_of, due.ticks)", "jobs += [j._replace(id=f'{id(self)}{j.id}') for j in map(stored.job_of, due.ticks)]"),
    Mutant("a schedule without a stamp is left to nobody", SCHEDULES, "            if document is None:\n                await", "            if False:\n                await"),
    Mutant("a document is written whatever its version", DOCUMENTS, "return change.expected is None or", "return True or"),
]  # fmt: skip
"""Slips that any change could make."""


def bite(mutant: Mutant, seeds: int) -> Bite:
    """Run the seeds on a mutated copy; say which one failed, and how."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in ("jobqueue", "tests/sim"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / mutant.file
        text = file.read_text()
        if mutant.old not in text:
            raise SystemExit(f"{mutant.name}: {mutant.file} has changed, adapt the mutant")
        file.write_text(text.replace(mutant.old, mutant.new, 1))
        command = [sys.executable, "-m", "tests.sim", "--seeds", str(seeds)]
        run = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=3600, check=False)
        if run.returncode == 0:
            return Bite(None, "")
        found = re.search(r"^seed (\d+) \(\w+\): (.*)", run.stdout, re.MULTILINE)
        if found is None:
            return Bite(-1, (run.stderr.strip().splitlines() or ["no seed was named"])[-1])
        return Bite(int(found[1]), found[2])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.teeth")
    parser.add_argument("--seeds", type=int, default=2000, help="how many each mutant has to survive")
    parser.add_argument("--only", default="", help="mutants whose name contains this text")
    parser.add_argument(
        "--table", action="store_true", help="print it as docs/internals/simulation.md has it"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants that run at once")
    arguments = parser.parse_args()
    mutants = [mutant for mutant in (*FAULTS, *OTHERS) if arguments.only in mutant.name]
    began, survivors = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        bites = pool.map(lambda mutant: bite(mutant, arguments.seeds), mutants)
        for mutant, found in zip(mutants, bites, strict=True):
            survivors += found.seed is None
            where = "SURVIVED" if found.seed is None else f"seed {found.seed}"
            told = found.told[:TOLD]
            row = (
                f"| {mutant.name} | {where} | `{told}` |"
                if arguments.table
                else f"{where:>10}  {mutant.name}: {told}"
            )
            print(row, flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} caught, {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
