"""Random programs: which processes there are, what they call, and what befalls them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from tests.sim.duties import DUTIES
from tests.sim.process import BACKGROUND, Common, Role
from tests.sim.store import FAULTS, KIND, Faults
from tests.sim.work import CALM_WORDS, KINDS, WORDS, Draw, tag

LASTS = 4.0
"""Seconds in which calls are made and faults happen; then everything is healed."""


@dataclass(frozen=True)
class Op:
    """Something that happens at an instant."""

    at: float
    kind: str
    process: int = 0
    arguments: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:7.3f}  process {self.process}: {self.kind}{self.arguments}"


@dataclass
class Program:
    """One run before it is run."""

    seed: int
    mode: str
    common: Common
    roles: list[Role]
    faults: Faults
    ops: list[Op] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.common}", *(f"process {place}: {role}" for place, role in enumerate(self.roles))]
        return "\n".join(f"  {line}" for line in [*lines, *map(str, self.ops)])


def make_program(seed: int) -> Program:
    """Draw the program of a seed."""
    draw = random.Random(f"program {seed}")
    mode = draw.choice(("calm", "network", "chaos"))
    common = Common(queues=draw.choice((1, 1, 2)), around=draw.random() < 0.3, half=1 + seed % 2 * 31)
    program = Program(seed, mode, common, _roles(draw, mode), _faults(draw, mode))
    for number in range(draw.randint(3, 9)):
        program.ops.append(_call(draw, number, program))
    if mode == "chaos":
        blows = [_blow(draw, program) for _ in range(draw.randint(1, 4))]
        program.ops += [*blows, *_runs_at_blows(draw, blows, program)]
    if any(op.kind == "clock" for op in program.ops):
        program.ops = [_undelayed(op) for op in program.ops]
    program.ops.sort(key=lambda op: op.at)
    return program


def _roles(draw: random.Random, mode: str) -> list[Role]:
    def role(name: str, works: int = 0, *duties: str) -> Role:
        threaded = works > 0 and draw.random() < 0.25
        return Role(name, works, duties, app=draw.random() < 0.4, threaded=threaded)

    if mode == "calm":
        return [role("producer"), role("worker", draw.choice((1, 2, 4)))]
    reaper = draw.choice(("reaper", "elected reaper"))
    led = draw.random() < 0.25
    roles = [
        role("producer"),
        role("worker", draw.choice((1, 2)), *(("leader",) if led else ())),
        role("reaper", 0, reaper, *(("leader",) if led else ())),
    ]
    if draw.random() < 0.5:
        roles.append(role("both", 1, "elected reaper"))
    return roles


def _faults(draw: random.Random, mode: str) -> Faults:
    if mode != "network":
        return KIND
    names = draw.sample(FAULTS, draw.randint(1, 4))
    return Faults(**{name: draw.choice((0.02, 0.1, 0.3)) for name in names})


def _call(draw: random.Random, number: int, program: Program) -> Op:
    calm = program.mode == "calm"
    producers = [n for n, role in enumerate(program.roles) if role.name in {"producer", "both"}]
    process, at = draw.choice(producers), draw.uniform(0.05, LASTS / 2 if calm else LASTS)
    if calm and draw.random() < 0.5:
        at = round(at, 1)  # together
    weights = [kind.calm if calm else kind.weight for kind in KINDS.values()]
    (name,) = draw.choices(tuple(KINDS), weights)
    words = () if calm and draw.random() < 0.7 else draw.choice(CALM_WORDS if calm else WORDS)
    id = draw.choice((f"only{number}", "a", "a", "b", "c"))
    drawn = Draw(draw, number, calm, id, words, draw.randrange(program.common.queues))
    return Op(at, name, process, KINDS[name].draw(drawn))


def _undelayed(op: Op) -> Op:
    """A start time stays what was asked for when the clock is set: an hour off, it is no use here.

    Nor would an hour of ticks be, all caught up.
    """
    if op.kind == "schedule":
        return replace(op, arguments=(*op.arguments[:-1], "last"))
    if op.kind != "enqueue":
        return op
    queue, id, payload, _, priority = op.arguments
    return replace(op, arguments=(queue, id, payload, 0.0, priority))


def _runs_at_blows(draw: random.Random, blows: list[Op], program: Program) -> list[Op]:
    """Have a handler run in workers that are stopped or paused: a deaf one, or one that goes on later."""
    runs = {"stop": "deaf=6", "pause": "sleep=1.5"}
    hit = [blow for blow in blows if blow.kind in runs and program.roles[blow.process].works]
    ops = []
    for number, blow in enumerate(hit):
        if draw.random() < 0.5:
            queue, payload = draw.randrange(program.common.queues), tag(100 + number, runs[blow.kind])
            ops.append(Op(max(0.05, blow.at - 0.5), "enqueue", 0, (queue, f"hit{number}", payload, 0.0, 0)))
    return ops


BLOWS = (
    "kill", "kill", "pause", "pause", "stop", "stop", "sync", "rollback", "clock", "hush", "cut",
    "cut in exchange", "fork", "block",
)  # fmt: skip


def _blow(draw: random.Random, program: Program) -> Op:
    process = draw.randrange(len(program.roles))
    at = draw.uniform(0.1, LASTS)
    kind = draw.choice(BLOWS)
    match kind:
        case "pause":
            return Op(at, kind, process, (draw.choice((0.2, 1.5, 4.0, 7.0)),))
        case "block":
            return Op(at, kind, process, (draw.choice((0.5, 2.5, 7.0)),))
        case "stop":
            timeout = draw.choice((0.0, 0.3, 5.0))
            return Op(
                at, kind, process, (timeout, draw.choice((None, None, 0.0, timeout / 2, timeout + 0.5)))
            )
        case "clock":
            return Op(at, kind, process, (draw.choice((-3600.0, 3600.0, 5.0)),))
        case "cut":
            duties = [task for name in program.roles[process].duties for task in DUTIES[name].tasks]
            return Op(at, kind, process, (draw.choice((*BACKGROUND, *duties)),))
        case "hush":
            return Op(at, kind, process, (draw.choice((0.5, 3.0)),))
        case _:
            return Op(at, kind, process)
