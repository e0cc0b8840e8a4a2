"""The resources of a started reaper: its tasks, its leadership, its note that it sweeps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from jobqueue.maintenance.leadership import Leadership
from jobqueue.maintenance.presence import Presence
from jobqueue.runtime.bounded import within
from jobqueue.runtime.lifecycle import Session
from jobqueue.runtime.loops import Home
from jobqueue.runtime.supervisor import Supervisor
from jobqueue.schedules.scheduler import Scheduler
from jobqueue.storage.contract import Storage

__all__ = ["ReaperSession"]

LEAVE_LIST = 1.0
"""Seconds that a stopping reaper waits until it is off the list of reapers."""


class ReaperSession(Session):
    """A reaper from one start to the next stop, on an open store, which it closes."""

    def __init__(
        self,
        home: Home,
        storage: Storage,
        reaper: str,
        report: Callable[[BaseException, str], None],
        *,
        swept: Callable[[], bool],
    ) -> None:
        super().__init__("this reaper", "Reaper", home)
        self._storage = storage
        self._report = report
        self._swept = swept
        self.supervisor = Supervisor(self._break)
        self.leadership: Leadership | None = None
        """The election; ``None``: it always sweeps."""
        self.scheduler: Scheduler | None = None
        """Enqueues ticks; ``None`` on a store that can have no schedules."""
        self._presence = Presence(
            storage, reaper,
            sweeps=lambda: self.leads,
            failed=lambda error: report(error, "noting that this reaper sweeps"),
        )  # fmt: skip

    @property
    def leads(self) -> bool:
        """Whether it sweeps; with an election, only the leader does."""
        return self.defect is None and (self.leadership is None or self.leadership.term is not None)

    @property
    def ready(self) -> bool:
        """Whether the store answered the last sweep and election."""
        if self.defect is not None:
            return False
        if self.leadership is None:
            return self._swept()
        return self.leadership.reached and (self.leadership.term is None or self._swept())

    def work(self, sweep_forever: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Sweep, while this reaper leads if there is an election, and enqueue ticks anyway, until closed."""
        self.supervisor.spawn(self._presence.keep(), "presence")
        if self.scheduler is not None:
            self.supervisor.spawn(self.scheduler.run(), "schedules")
        duty = sweep_forever() if self.leadership is None else self.leadership.while_leader(sweep_forever)
        self.supervisor.spawn(duty, "reaper")

    async def close(self) -> None:
        """Cancel the current sweep, give leadership up, leave the list of reapers, close the store."""
        try:
            await self.supervisor.stop()
            with suppress(TimeoutError):  # then it is taken for dead after a while
                await within(self._storage.clock, self._presence.leave(), LEAVE_LIST)
        finally:
            await self._storage.close()

    def _break(self, defect: BaseException) -> None:
        self.broke(defect)
        self._report(defect, "running the reaper")
