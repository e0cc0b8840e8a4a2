"""The store's clock, read from afar: no other clock decides when a tick is due."""

from __future__ import annotations

from jobqueue.errors import StorageUnavailableError
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.contract import Storage

__all__ = ["CLOCKS", "StoreTime"]

CLOCKS = "_clock"
"""Name of a queue that holds no jobs. A worker of it is seen at an instant of the store's clock."""
REMEASURE = 60.0
"""Seconds after which the difference of the clocks is measured again."""
STEP = 0.05
"""Seconds by which this machine's clock may move against its monotonic one before that is done at once."""
TRIES, QUICK = 3, 0.02
"""How often the store is asked, and the seconds of an answer that is exact enough to ask no more."""


class StoreTime:
    """Tells the store's time, as milliseconds since 1970, from this machine's clock and their difference.

    One object serves many calls: it asks the store once a minute.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._clock = storage.clock
        self._ahead: float | None = None
        """Seconds that the store's clock is ahead of this machine's."""
        self._measured_at = 0.0
        self._base = 0.0
        self._name = f"clock-{unique_id()}"
        self._asking: set[int] = set()
        """Numbers of the names under which the store is being asked: few, since it keeps them a while."""

    async def now(self) -> int:
        """Return the store's time; asks the store once a minute. Raises `StorageError`."""
        clock = self._clock
        old = clock.monotonic() - self._measured_at >= REMEASURE
        stepped = abs(clock.time() - clock.monotonic() - self._base) > STEP
        if self._ahead is None or old or stepped:
            await self.measure()
        return self.read()

    def read(self) -> int:
        """Return the store's time by the last measurement."""
        return int((self._clock.time() + (self._ahead or 0.0)) * 1000)

    async def measure(self) -> None:
        """Ask the store for its time: exact to half of a round trip, and to a millisecond."""
        best = None
        for _ in range(TRIES):
            took, ahead = await self._ask()
            if best is None or took < best[0]:
                best = took, ahead
            if took < QUICK:
                break
        assert best is not None
        self._ahead = best[1]
        self._measured_at = self._clock.monotonic()
        self._base = self._clock.time() - self._measured_at

    async def _ask(self) -> tuple[float, float]:
        """Return how many seconds an answer took, and by how many the store's clock is ahead."""
        clock, number = self._clock, 0
        while number in self._asking:
            number += 1
        self._asking.add(number)
        try:
            name = f"{self._name}-{number}"
            before = clock.time()
            await self._storage.extend(CLOCKS, name, (), 1)
            after = clock.time()
            seen = [worker.seen_at for worker in await self._storage.workers(CLOCKS) if worker.worker == name]
            await self._storage.extend(CLOCKS, name, (), 0)
            await self._storage.purge(CLOCKS, 1)  # forgets those that died meanwhile
        finally:
            self._asking.discard(number)
        if not seen:
            raise StorageUnavailableError("the store has not noted the call that was to tell its time")
        # A store on this machine's clock notes a time between the two: then they do not differ.
        low, high = int(before * 1000), int(after * 1000)
        ahead = 0.0 if low <= seen[0] <= high else (seen[0] - (low + high) / 2) / 1000
        return abs(after - before), ahead
