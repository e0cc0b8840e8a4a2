"""Random programs: which processes there are, what they call, and what befalls them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from tests.sim.process import Role, tag
from tests.sim.store import KIND, Faults

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
    roles: list[Role]
    faults: Faults
    ops: list[Op] = field(default_factory=list)


def make_program(seed: int) -> Program:
    """Draw the program of a seed."""
    draw = random.Random(f"program {seed}")
    mode = draw.choice(("calm", "network", "chaos"))
    program = Program(seed, mode, _roles(draw, mode), _faults(draw, mode))
    for number in range(draw.randint(3, 9)):
        program.ops.append(_call(draw, number, program))
    if mode == "chaos":
        program.ops += [_blow(draw, program) for _ in range(draw.randint(1, 4))]
    if any(op.kind == "clock" for op in program.ops):
        program.ops = [_undelayed(op) for op in program.ops]
    program.ops.sort(key=lambda op: op.at)
    return program


def _roles(draw: random.Random, mode: str) -> list[Role]:
    if mode == "calm":
        return [Role("producer"), Role("worker", works=draw.choice((1, 2, 4)))]
    roles = [
        Role("producer"),
        Role("worker", works=draw.choice((1, 2))),
        Role("reaper", reaps=True, elects=draw.random() < 0.5),
    ]
    if draw.random() < 0.5:
        roles.append(Role("both", works=1, reaps=True, elects=True))
    return roles


def _faults(draw: random.Random, mode: str) -> Faults:
    if mode != "network":
        return KIND
    faults = Faults()
    for name in draw.sample(sorted(vars(faults)), draw.randint(1, 4)):
        setattr(faults, name, draw.choice((0.02, 0.1, 0.3)))
    return faults


def _call(draw: random.Random, number: int, program: Program) -> Op:
    calm = program.mode == "calm"
    producers = [n for n, role in enumerate(program.roles) if role.name in {"producer", "both"}]
    process, at = draw.choice(producers), draw.uniform(0.05, LASTS / 2 if calm else LASTS)
    if calm and draw.random() < 0.5:
        at = round(at, 1)  # together
    id = draw.choice((f"only{number}", "a", "a", "b", "c"))
    words = () if calm and draw.random() < 0.7 else _words(draw, calm=calm)
    kind = draw.choice(("rpc", "rpc", "rpc", "enqueue", "cancel", "wait"))
    if kind == "rpc":
        reuse = draw.choice(("return", "return", "rerun", "rerun_failed"))
        return Op(
            at,
            kind,
            process,
            (id, tag(number, *words), draw.choice((3.0, 30.0)) if not calm else 30.0, reuse),
        )
    if kind == "enqueue":
        return Op(
            at, kind, process, (id, tag(number, *words), draw.choice((0.0, 0.0, 0.7)), draw.choice((0, 0, 5)))
        )
    if kind == "wait":
        return Op(at, kind, process, (id, 20.0))
    return Op(at, kind, process, (id, draw.random() < 0.5))


def _undelayed(op: Op) -> Op:
    """A start time stays what was asked for when the clock is set: an hour off, it is no use here."""
    if op.kind != "enqueue":
        return op
    id, payload, _, priority = op.arguments
    return replace(op, arguments=(id, payload, 0.0, priority))


def _words(draw: random.Random, *, calm: bool) -> tuple[str, ...]:
    if calm:
        return draw.choice((("sleep=0.02",), ("progress=1",), ("fail=1",), ()))
    return draw.choice((
        (), (), ("sleep=0.1",), ("sleep=1.5",), ("sleep=7",), ("fail=1",), ("fail=9",), ("fatal",),
        ("retry=2",), ("cancels_itself=2",), ("cancels_itself=99",), ("stubborn=2",), ("spawns=0.3",),
        ("progress=1", "sleep=0.5"),
    ))  # fmt: skip


def _blow(draw: random.Random, program: Program) -> Op:
    process = draw.randrange(len(program.roles))
    at = draw.uniform(0.1, LASTS)
    kind = draw.choice(("kill", "kill", "pause", "pause", "stop", "sync", "rollback", "clock", "hush"))
    match kind:
        case "pause":
            return Op(at, kind, process, (draw.choice((0.2, 1.5, 4.0, 7.0)),))
        case "stop":
            return Op(at, kind, process, (draw.choice((0.0, 0.3, 5.0)),))
        case "clock":
            return Op(at, kind, process, (draw.choice((-3600.0, 3600.0, 5.0)),))
        case "hush":
            return Op(at, kind, process, (draw.choice((0.5, 3.0)),))
        case _:
            return Op(at, kind, process)
