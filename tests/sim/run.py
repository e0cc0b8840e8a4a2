"""Run one program, check its promises, and tell its story when one is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

from jobqueue.client.waiters import REREAD_INTERVAL
from jobqueue.model.states import JobState
from jobqueue.storage.engine import steps
from jobqueue.storage.engine.job_entry import JobEntry
from jobqueue.worker import worker
from tests.sim.checks import MAX_WAITERS, ON_THE_WAY, Checks
from tests.sim.forks import fork
from tests.sim.process import Call, Process, Role
from tests.sim.program import LASTS, Op, Program
from tests.sim.store import KIND, SimStore
from tests.sim.threads import simulated
from tests.sim.work import KINDS
from tests.sim.world import EPOCH, ViolationError, World

FAR_OFF = 600_000
"""Milliseconds: far longer than any interval of a schedule here, far less than a clock is set back."""
HEALED = 90.0
"""Seconds after the healing in which every job has ended and every caller is answered."""
PROMPT = 1.5
"""Seconds in which a call is answered when nothing is lost: well below every poll."""
PLANNED = 1.2
"""Seconds that delays and pauses before retries add at most, while nothing else goes wrong."""
NOTICED = 1.0
"""Seconds in which a process notices that other code has cancelled a task of the queue."""


@dataclass
class Failure:
    """A broken promise."""

    seed: int
    message: str
    story: list[str]
    program: Program

    def __str__(self) -> str:
        story = "\n".join(f"  {line}" for line in self.story)
        return f"seed {self.seed} ({self.program.mode}): {self.message}\n\n{self.program}\n\n{story}\n"


class Simulation:
    """One run of a program."""

    def __init__(self, program: Program, *, trace: bool = False) -> None:
        self.program = program
        self.world = World(program.seed, trace=trace)
        self.checks = Checks(self.world)
        self.store = SimStore(self.world, self.checks)
        self.processes = [self._process(role) for role in program.roles]
        self.everybody = list(self.processes)
        self._healed_at = 0
        """By the store's clock."""
        self._hushed = 0
        self._cut = 0
        """Processes of which a background task was cancelled, and which are to be restarted."""

    def _process(self, role: Role, generation: int = 0) -> Process:
        return Process(self.world, self.store, self.checks, role, self.program.common, generation)

    def run(self) -> None:
        """Run it; raises `ViolationError`."""
        half = self.program.common.half
        with simulated(), patch.object(steps, "MAX_WAITERS", MAX_WAITERS), patch.object(worker, "HALF", half):
            self._run()

    def _run(self) -> None:
        faults = self.program.faults
        self.checks.lossy, self.checks.silent = faults.of_calls, faults.lost_wakeup > 0
        for process in self.processes:
            process.spawn(process.start())
        self._until(lambda: all(p.started for p in self.processes), 1.0, "start")
        began = self.world.now
        self.store.faults = faults
        for op in self.program.ops:
            self.world.after(began + op.at - self.world.now, lambda op=op: self._happen(op))
        self._until(lambda: False, began + LASTS + 0.01, "")
        self._heal()
        self._until(self._finished, self.world.now + HEALED, "end")
        if self.program.mode == "network":  # calls that are sent again and again come to their end
            self._until(lambda: False, self.world.now + 2 * ON_THE_WAY, "")
        self._judge()

    def close(self) -> None:
        self.world.close()

    # -- what happens -------------------------------------------------------------------------------

    def _happen(self, op: Op) -> None:
        process, arguments = self.processes[op.process], op.arguments
        if op.kind in KINDS:
            if process.can_call:
                process.spawn(KINDS[op.kind].act(process, *arguments))
            return
        match op.kind:
            case "kill":
                self._end(op.process, process)
            case "stop":
                if process.can_call:
                    process.begin_stop(*arguments)
            case "pause":
                self._pause(process, *arguments)
            case "block":
                if not process.life.dead:
                    process.block(*arguments)
            case "fork":
                if process.can_call and (child := fork(process, len(self.everybody))) is not None:
                    self.everybody.append(child)
            case "sync":
                self.store.sync()
            case "rollback":
                self.world.tell("the store loses its last writes")
                self.store.roll_back()
            case "clock":
                self.world.tell(f"the store's clock is set by {arguments[0]:g} s")
                self.store.set_clock(*arguments)
                self.checks.ticks.set_clock()
            case "hush":
                self._hush(*arguments)
            case "cut":
                self._cut_off(op.process, process, *arguments)
            case "cut in exchange":
                process.life.on_exchange = lambda: self._cut_off(op.process, process, "claimer")
            case _:
                raise AssertionError(op)

    def _end(self, place: int, process: Process) -> None:
        process.kill()
        # Its successor comes at once, as a process manager does it.
        self.world.after(0.3, lambda: self._replace(place, process))

    def _cut_off(self, place: int, process: Process, task: str) -> None:
        if process.can_call and process.cut(task):
            self._cut += 1
            self.world.after(NOTICED, lambda: self._restart(place, process))

    def _restart(self, place: int, process: Process) -> None:
        """End a process of which a background task was cancelled: it has to have noticed."""
        if process.loop.held:
            self.world.after(NOTICED, lambda: self._restart(place, process))
            return
        self._cut -= 1
        if process.life.dead or process.ending:
            return
        if not process.broken:
            self.world.break_promise(f"{process.name} lost a background task, and does not say so")
            return
        self.checks.all_taken(process.life)
        self._end(place, process)

    def _replace(self, place: int, old: Process) -> None:
        if self.processes[place] is not old:  # somebody else has done it
            return
        new = self._process(old.role, old.generation + 1)
        self.processes[place] = new
        self.everybody.append(new)
        new.spawn(new.start())
        self.world.tell(f"{new.name} starts")

    def _pause(self, process: Process, seconds: float) -> None:
        life = process.life
        if life.dead:
            return
        self.world.tell(f"{process.name} is paused for {seconds:g} s")
        life.hold()
        life.held_for += seconds

        def resume() -> None:
            life.release()
            self.world.tell(f"{process.name} goes on")

        self.world.after(seconds, resume)

    def _hush(self, seconds: float) -> None:
        self.world.tell(f"pushes and wake-ups are lost for {seconds:g} s")
        self.store.faults = replace(self.store.faults, lost_push=1.0, lost_wakeup=1.0)
        self.checks.silent = True
        self._hushed += 1

        def speak() -> None:
            self._hushed -= 1
            if not self._hushed:
                self.store.faults = self.program.faults if self.world.now < LASTS else KIND

        self.world.after(seconds, speak)

    def _heal(self) -> None:
        self.world.tell("everything is healed")
        self._healed_at = int((EPOCH + self.world.now + self.world.wall) * 1000)
        self.store.faults = KIND
        for place, process in enumerate(self.processes):
            if process.ending or process.life.dead:
                self._replace(place, process)

    # -- what must hold -----------------------------------------------------------------------------

    def _until(self, done: Callable[[], bool], limit: float, what: str) -> None:
        if not self.world.run_until(done, limit) and what and not done():
            raise ViolationError(self._unfinished(what))

    def _finished(self) -> bool:
        if self._cut or any(p.open_calls for p in self.everybody if not p.life.dead):
            return False
        if self.checks.ticks.behind(self._healed_at):
            return False
        return not self._live() and all(p.started and not p.life.dead for p in self.processes)

    def _live(self) -> list[str]:
        return [
            f"{job.id} ({job.state}, incarnation {job.seq})"
            for q in self.store.engine._queues.values()
            for job in q.jobs.values()
            if not job.expires_at and not self._is_far_off(job)
        ]

    def _is_far_off(self, job: JobEntry) -> bool:
        """Whether a tick is of an instant that is long to come, since the clock was set back meanwhile."""
        now = int((EPOCH + self.world.now + self.world.wall) * 1000)
        return job.state is JobState.SCHEDULED and job.id.endswith("Z") and job.due > now + FAR_OFF

    def _unfinished(self, what: str) -> str:
        calls = [c.what for p in self.everybody if not p.life.dead for c in p.calls if c.ended is None]
        behind = self.checks.ticks.behind(self._healed_at)
        return f"not at its {what} in time: jobs {self._live()}, calls {calls}, schedules {behind}"

    def _judge(self) -> None:
        self.checks.all_taken()
        if self.world.unhandled:
            raise ViolationError(f"an event loop complained: {self.world.unhandled}")
        for process in self.processes:
            process.check_alive()
        for process in self.processes:
            if not process.life.disturbed:
                self.checks.all_handed_in(process.name, process.done)
                for call in process.calls:
                    self._check_heard(call)
        if self.program.mode == "calm":
            for process in self.processes:
                for call in process.calls:
                    self._check_prompt(call)

    def _check_heard(self, call: Call) -> None:
        """Check that a call was answered by the next poll at the latest, although its reply was lost."""
        assert call.ended is not None
        ended_at = self.checks.ended_at.get(call.seq)
        if self.program.mode == "network" or ended_at is None:
            return
        took = call.ended - max(ended_at, call.began)
        if took > REREAD_INTERVAL + PROMPT:
            raise ViolationError(f"{call.what} was answered {took:.2f} s after the end of its job")

    def _check_prompt(self, call: Call) -> None:
        """Check that a call waited for its job and for nothing else: no poll, no timeout, no other look."""
        assert call.ended is not None
        if call.alone and "JobNotFoundError" in call.outcome:
            raise ViolationError(f"{call.what} -> {call.outcome}, and nothing was lost")
        took = call.ended - call.began
        if took > PROMPT + (0.0 if call.instant else PLANNED):
            raise ViolationError(f"{call.what} took {took:.2f} s, and nothing was lost")


def simulate(program: Program, *, trace: bool = False) -> Failure | None:
    """Run a program; return how it failed."""
    simulation = Simulation(program, trace=trace)
    try:
        simulation.run()
    except ViolationError as error:
        return Failure(program.seed, str(error), list(simulation.world.story or ()), program)
    finally:
        simulation.close()
    return None


def shrink(failure: Failure) -> Failure:
    """Leave out operations for as long as the program still fails, and trace what is left."""
    program, last = failure.program, failure
    shorter = True
    while shorter:
        shorter = False
        for op in tuple(program.ops):
            candidate = replace(program, ops=[other for other in program.ops if other is not op])
            failed = simulate(candidate)
            if failed is not None:
                program, last, shorter = candidate, failed, True
                break
    return simulate(program, trace=True) or last
