"""Run one program, check its promises, and tell its story when one is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.sim.checks import Checks
from tests.sim.process import Call, Process
from tests.sim.program import LASTS, Op, Program
from tests.sim.store import KIND, Faults, SimStore
from tests.sim.world import ViolationError, World

HEALED = 90.0
"""Seconds after the healing in which every job has ended and every caller is answered."""
PROMPT = 1.5
"""Seconds in which a call is answered when nothing is lost: well below every poll."""


@dataclass
class Failure:
    """A broken promise."""

    seed: int
    message: str
    story: list[str]
    program: Program

    def __str__(self) -> str:
        ops = "\n".join(f"  {op}" for op in self.program.ops)
        story = "\n".join(f"  {line}" for line in self.story)
        return f"seed {self.seed} ({self.program.mode}): {self.message}\n\n{ops}\n\n{story}\n"


class Simulation:
    """One run of a program."""

    def __init__(self, program: Program, *, trace: bool = False) -> None:
        self.program = program
        self.world = World(program.seed, trace=trace)
        self.checks = Checks(self.world)
        self.store = SimStore(self.world, self.checks)
        self.processes = [Process(self.world, self.store, self.checks, role) for role in program.roles]
        self.everybody = list(self.processes)
        self._away: dict[int, float] = {}
        self._hushed = 0

    def run(self) -> None:
        """Run it; raises `ViolationError`."""
        for process in self.processes:
            process.spawn(process.start())
        self._until(lambda: all(p.queue is not None for p in self.processes), 1.0, "start")
        began = self.world.now
        self.store.faults = self.program.faults
        for op in self.program.ops:
            self.world.after(began + op.at - self.world.now, lambda op=op: self._happen(op))
        self._until(lambda: False, began + LASTS + 0.01, "")
        self._heal()
        self._until(self._finished, self.world.now + HEALED, "end")
        self._judge()

    def close(self) -> None:
        self.world.close()

    # -- what happens -------------------------------------------------------------------------------

    def _happen(self, op: Op) -> None:
        process = self.processes[op.process]
        match op.kind, op.arguments:
            case (("rpc" | "enqueue" | "wait" | "cancel"), arguments):
                if process.can_call:
                    process.spawn(process.call(op.kind, arguments))
            case "kill", ():
                self._end(op.process, process)
            case "stop", (timeout,):
                if process.can_call:
                    process.ending = True
                    process.spawn(process.stop(timeout))
            case "pause", (seconds,):
                self._pause(process, seconds)
            case "sync", ():
                self.store.sync()
            case "rollback", ():
                self.world.tell("the store loses its last writes")
                self.store.roll_back()
            case "clock", (seconds,):
                self.world.tell(f"the store's clock is set by {seconds:g} s")
                self.store.set_clock(seconds)
            case "hush", (seconds,):
                self._hush(seconds)
            case _:
                raise AssertionError(op)

    def _end(self, place: int, process: Process) -> None:
        process.kill()
        # Its successor comes at once, as a process manager does it.
        self.world.after(0.3, lambda: self._replace(place, process))

    def _replace(self, place: int, old: Process) -> None:
        if self.processes[place] is not old:  # somebody else has done it
            return
        new = Process(self.world, self.store, self.checks, old.role, old.generation + 1)
        self.processes[place] = new
        self.everybody.append(new)
        new.spawn(new.start())
        self.world.tell(f"{new.name} starts")

    def _pause(self, process: Process, seconds: float) -> None:
        self.world.tell(f"{process.name} is paused for {seconds:g} s")
        process.loop.paused = True

        def resume() -> None:
            process.loop.paused = False
            self.world.tell(f"{process.name} goes on")

        self.world.after(seconds, resume)

    def _hush(self, seconds: float) -> None:
        self.world.tell(f"pushes and wake-ups are lost for {seconds:g} s")
        self.store.faults = replace(self.store.faults, lost_push=1.0, lost_wakeup=1.0)
        self._hushed += 1

        def speak() -> None:
            self._hushed -= 1
            if not self._hushed:
                self.store.faults = self.program.faults if self.world.now < LASTS else KIND

        self.world.after(seconds, speak)

    def _heal(self) -> None:
        self.world.tell("everything is healed")
        self.store.faults = Faults()
        for place, process in enumerate(self.processes):
            process.loop.paused = False
            if process.ending or process.loop.dead:
                self._replace(place, process)

    # -- what must hold -----------------------------------------------------------------------------

    def _until(self, done: Callable[[], bool], limit: float, what: str) -> None:
        world = self.world
        for _ in range(1_000_000):
            if done():
                return
            if not world.step(limit):
                if what and not done():
                    raise ViolationError(self._unfinished(what))
                return
            for process in self.processes:
                if process.failure is not None:
                    process.check_alive()
        raise ViolationError("it never comes to rest")

    def _finished(self) -> bool:
        if any(p.open_calls for p in self.everybody if not p.loop.dead):
            return False
        return not self._live() and all(p.queue is not None for p in self.processes)

    def _live(self) -> list[str]:
        return [
            f"{job.id} ({job.state}, incarnation {job.seq})"
            for q in self.store.engine._queues.values()
            for job in q.jobs.values()
            if not job.expires_at and "99" not in (job.payload or b"").decode()
        ]

    def _unfinished(self, what: str) -> str:
        calls = [c.what for p in self.everybody if not p.loop.dead for c in p.calls if c.ended is None]
        return f"not at its {what} in time: jobs {self._live()}, calls {calls}"

    def _judge(self) -> None:
        if self.world.unhandled:
            raise ViolationError(f"an event loop complained: {self.world.unhandled}")
        for process in self.processes:
            process.check_alive()
        if self.program.mode == "calm":
            for process in self.processes:
                for call in process.calls:
                    self._check_prompt(call)

    def _check_prompt(self, call: Call) -> None:
        assert call.ended is not None
        took = call.ended - call.began
        if call.instant and took > PROMPT:
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
