"""Where a store call and a background duty join the simulation: one entry each.

`CALLS` has every call of the contract and of its capabilities that is one step of the engine: the simulated
store has exactly those, and each is delayed, lost, refused and reordered like all others. `DUTIES` has what
a process does in the background beside its queues; what producers call is in `tests.sim.work.KINDS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobqueue.storage.capabilities import Admission, Documents, Limiting, Revival, Sweepable, Totals
from jobqueue.storage.contract import Storage
from jobqueue.storage.engine.engine import Engine

if TYPE_CHECKING:
    from tests.sim.checks import Checks
    from tests.sim.world import Life

Arguments = dict[str, Any]
Asked = Callable[["Checks", "Life", Arguments], Arguments]
Answered = Callable[["Checks", "Life", Engine, Arguments, Any], None]


@dataclass(frozen=True)
class StoreCall:
    """One call of a store, as one step of the engine."""

    step: Callable[[Engine, int, Arguments], Any]
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    changes: bool
    """Whether the jobs may be other ones afterwards: then all invariants are checked."""
    asked: Asked | None
    """Checks the arguments when the call is made, and may replace them."""
    answered: Answered | None
    """Checks the answer, in the step."""

    def bound(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> Arguments:
        """Return the arguments by name. Lists are copied: the caller may change its own meanwhile."""
        arguments = {**self.defaults, **dict(zip(self.names, given, strict=False)), **named}
        return {name: list(value) if type(value) is list else value for name, value in arguments.items()}


def _call(
    protocol: type,
    name: str,
    step: Callable[[Engine, int, Arguments], Any] | None = None,
    *,
    changes: bool = True,
    asked: Asked | None = None,
    answered: Answered | None = None,
) -> StoreCall:
    """Describe a call; without a ``step`` it is the engine's method of its name."""
    parameters = list(inspect.signature(getattr(protocol, name)).parameters.values())[1:]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    names = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    if step is None:
        method = getattr(Engine, name)
        if "now" in inspect.signature(method).parameters:
            step = lambda engine, now, arguments: method(engine, **arguments, now=now)  # noqa: E731
        else:
            step = lambda engine, _, arguments: method(engine, **arguments)  # noqa: E731
    return StoreCall(step, names, defaults, changes, asked, answered)


CALLS: dict[str, StoreCall] = {
    "insert": _call(
        Storage, "insert",
        answered=lambda checks, _life, _engine, a, answer: checks.inserted(a["queue"], a["jobs"], answer),
    ),
    "get": _call(Storage, "get"),
    "exchange": _call(
        Storage, "exchange",
        asked=lambda checks, life, a: checks.asks_for_jobs(life, a),
        answered=lambda checks, life, engine, a, answer: checks.exchanged(life, engine, a, answer),
    ),
    "extend": _call(Storage, "extend"),
    "sweep": _call(
        Storage, "sweep", answered=lambda checks, _life, engine, a, answer: checks.swept(engine, a, answer)
    ),
    "cancel": _call(Storage, "cancel"),
    "set_ttl": _call(Storage, "set_ttl"),
    "purge": _call(Storage, "purge"),
    "scan": _call(Storage, "scan", changes=False),
    "counts": _call(Storage, "counts", changes=False),
    "queues": _call(Storage, "queues", changes=False),
    "workers": _call(Storage, "workers", changes=False),
    "lock_acquire": _call(
        Storage, "lock_acquire", changes=False,
        answered=lambda checks, life, _engine, a, term: checks.elected(life, a["lock"], term),
    ),
    "lock_renew": _call(Storage, "lock_renew", changes=False),
    "lock_release": _call(
        Storage, "lock_release", changes=False,
        answered=lambda checks, life, _engine, a, released: checks.resigned(life, a["lock"], released),
    ),
    "lock_holder": _call(Storage, "lock_holder", changes=False),
    "ended": _call(Totals, "ended", changes=False),
    "to_sweep": _call(Sweepable, "to_sweep", changes=False),
    "revive": _call(Revival, "revive"),
    "forget": _call(Revival, "forget"),
    "set_rules": _call(Admission, "set_rules"),
    "get_rules": _call(
        Admission, "get_rules", lambda engine, now, a: engine.get_rules(a["queue"], now), changes=False
    ),
    "usage": _call(Limiting, "usage", changes=False),
    "read_documents": _call(
        Documents, "read_documents", lambda engine, _, a: engine.documents.read(**a), changes=False
    ),
    "write_documents": _call(
        Documents, "write_documents", changes=False,
        answered=lambda checks, _life, _engine, a, versions: checks.documents_written(a, versions),
    ),
    "list_documents": _call(
        Documents, "list_documents", lambda engine, _, a: engine.documents.list(**a), changes=False
    ),
}  # fmt: skip
"""By name. A call that waits or listens is not one step: it is a method of `tests.sim.handle.Handle`."""
