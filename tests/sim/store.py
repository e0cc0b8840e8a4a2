"""The simulated store: the engine, and those who listen to it, behind a network with faults."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobqueue.storage.contract import Sink
from jobqueue.storage.engine.effects import Effects
from jobqueue.storage.engine.engine import Engine
from tests.sim.world import EPOCH, ProcessLoop, World

if TYPE_CHECKING:
    from tests.sim.checks import Checks

Step = Callable[[Engine, int], Any]


@dataclass
class Faults:
    """How unkind the network is; all are probabilities."""

    refused: float = 0.0
    lost_request: float = 0.0
    lost_reply: float = 0.0
    slow: float = 0.0
    lost_push: float = 0.0
    repeated_push: float = 0.0
    lost_wakeup: float = 0.0

    def __post_init__(self) -> None:
        self.any = any(value for name, value in vars(self).items() if name != "any")
        self.of_calls = bool(self.refused or self.lost_request or self.lost_reply or self.slow)


FAULTS = ("lost_push", "lost_reply", "lost_request", "lost_wakeup", "refused", "repeated_push", "slow")
KIND = Faults()


class SimStore:
    """The one engine that all simulated processes share, and those who listen to it."""

    def __init__(self, world: World, checks: Checks) -> None:
        self.world = world
        self.checks = checks
        self.faults = KIND
        self.engine = Engine()
        self.saved: tuple[Engine, float] | None = None
        self._sinks: list[tuple[str, str, Sink, ProcessLoop]] = []
        self._blocked: dict[tuple[str, str], list[Callable[[bool], None]]] = {}

    def now(self) -> int:
        return int((EPOCH + self.world.now + self.world.wall) * 1000)

    def apply(self, step: Step, *, changes: bool = True) -> Any:
        """Take one atomic step, check what it left, and tell those whom it concerns."""
        answer = step(self.engine, self.now())
        effects = self.engine.take_effects()
        if changes:
            self.checks.after_step(self.engine)
        if effects is not None:
            self._publish(effects)
        return answer

    def sync(self) -> None:
        """Write everything down: a rollback comes back to here."""
        self.saved = copy.deepcopy(self.engine), self.world.wall

    def roll_back(self) -> None:
        """Lose what was written since the last sync, as a failover to a lagging replica does."""
        if self.saved is None:
            return
        fence, seq = self.engine._fence, self.engine._seq
        self.engine = copy.deepcopy(self.saved[0])
        self.engine.shift(int((self.world.wall - self.saved[1]) * 1000))
        # Numbers are never given twice: real stores derive them from the clock, or skip some.
        # Terms of locks rise above the fences.
        self.engine._fence, self.engine._seq = fence + 1000, seq
        self.checks.rolled_back(self.engine)
        self.wake_all()

    def set_clock(self, seconds: float) -> None:
        """Set the store's clock, as an administrator does; the store notices and shifts its instants."""
        self.world.wall += seconds
        self.engine.shift(int(seconds * 1000))

    # -- listeners ----------------------------------------------------------------------------------

    def subscribe(self, queue: str, address: str, sink: Sink, process: ProcessLoop) -> None:
        self.unsubscribe(queue, address, sink)
        self._sinks.append((queue, address, sink, process))

    def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        self._sinks = [s for s in self._sinks if (s[0], s[1]) != (queue, address) or s[2] is not sink]

    def block(self, topic: tuple[str, str], wake: Callable[[bool], None]) -> None:
        self._blocked.setdefault(topic, []).append(wake)

    def unblock(self, topic: tuple[str, str], wake: Callable[[bool], None]) -> None:
        if wake in self._blocked.get(topic, ()):
            self._blocked[topic].remove(wake)

    def wake(self, topic: tuple[str, str]) -> None:
        for wake in self._blocked.pop(topic, ()):
            wake(True)

    def wake_all(self) -> None:
        for topic in tuple(self._blocked):
            self.wake(topic)

    def _publish(self, effects: Effects) -> None:
        for kind, names in (("work", effects.woken), ("lock", effects.unlocked)):
            for name in sorted(names) if len(names) > 1 else names:
                if self._draw(self.faults.lost_wakeup):
                    self.world.tell(f"the wake-up of {kind} {name} is lost")
                else:
                    self.wake((kind, name))
        for request in effects.cancels:
            self._push(
                request.address,
                request.queue,
                lambda sink, r=request: sink.cancel_requested(r.queue, r.id, r.fence),
                f"cancel {request.id}",
            )
        for address, replies in effects.replies.items():
            for reply in replies:
                self._push(
                    address, reply.queue, lambda sink, r=reply: sink.deliver([r]), f"{reply.state} {reply.id}"
                )

    def _push(self, address: str, queue: str, call: Callable[[Sink], None], what: str) -> None:
        for at, to, sink, loop in self._sinks:
            if at != queue or to != address:
                continue
            if self._draw(self.faults.lost_push):
                self.world.tell(f"the push '{what}' to {loop.name} is lost")
                continue
            for _ in range(2 if self._draw(self.faults.repeated_push) else 1):
                self.world.after(self.latency(), lambda loop=loop, sink=sink: loop.call_soon(call, sink))

    # -- the network --------------------------------------------------------------------------------

    def _draw(self, probability: float) -> bool:
        return probability > 0 and self.world.random.random() < probability

    def latency(self) -> float:
        return 0.0002 + 0.002 * self.world.random.random() ** 4

    def fate(self) -> str:
        """Draw what happens to a call."""
        faults = self.faults
        if not faults.of_calls:
            return "ok"
        draw = self.world.random.random()
        for name in ("refused", "lost_request", "lost_reply", "slow"):
            chance = getattr(faults, name)
            if draw < chance:
                return name
            draw -= chance
        return "ok"
