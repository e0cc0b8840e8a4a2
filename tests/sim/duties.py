"""What simulated processes do in the background, beside their queues. A new duty is one entry of `DUTIES`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobqueue import LeaderElection, Reaper
from jobqueue.maintenance.leadership import Leadership
from jobqueue.runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from tests.sim.process import Process

SWEEP = 1.0
"""Seconds between two sweeps."""
ELECTION = LeaderElection(lock_ttl=4.0, renewal_interval=1.2, acquire_retry_interval=3.0)
LOCK = "duty"


class Leads:
    """Leads for something else than sweeping: at any instant one process does at most, while all live."""

    def __init__(self, process: Process) -> None:
        self._world, self._life, self._checks = process.world, process.life, process.checks
        self._storage = process.storage
        self._leadership = Leadership(
            self._storage, LOCK, process.name, ELECTION,
            acquired=lambda term: self._world.tell(f"{process.name} leads, term {term}"),
            lost=lambda term, why: self._world.tell(f"{process.name} leads no more, term {term}: {why}"),
            failed=lambda _: None,
        )  # fmt: skip
        self._supervisor: Supervisor | None = None
        self.defect: BaseException | None = None

    async def start(self) -> None:
        await self._storage.open()
        self._supervisor = Supervisor(self._broke)
        await self._supervisor.start()
        self._supervisor.spawn(self._leadership.while_leader(self._lead), "leader")

    def _broke(self, defect: BaseException) -> None:
        self.defect = defect

    async def _lead(self) -> None:
        self._checks.leads(self._life)
        try:
            await asyncio.Event().wait()
        finally:
            self._checks.leads_no_more(self._life)

    async def stop(self) -> None:
        if self._supervisor is not None:
            await self._supervisor.stop()
            await self._storage.close()


@dataclass(frozen=True)
class Duty:
    """Something that a process does until it is stopped."""

    make: Callable[[Process], Any]
    """Makes an object with ``start`` and ``stop``, a `Service` or one with a ``defect``."""
    tasks: tuple[str, ...]
    """Names of its background tasks: each of them may be cancelled by other code, which it has to notice."""


DUTIES: dict[str, Duty] = {
    "reaper": Duty(
        lambda process: Reaper(process.storage, sweep_interval=SWEEP),
        ("reaper", "presence", "schedules"),
    ),
    "elected reaper": Duty(
        lambda process: Reaper(process.storage, sweep_interval=SWEEP, leader_election=ELECTION),
        ("reaper", "presence", "schedules"),
    ),
    "leader": Duty(Leads, ("leader",)),
}
"""By name."""
