"""A private Redis server without persistence, and what it has used."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from tests.services import Server, info_of, redis_binary


@dataclass(frozen=True)
class Load:
    """Readings of the server's counters, or the difference of two."""

    cpu: float
    """Seconds of processor time, user and system."""
    calls: int
    """Commands that it has run, those that scripts call included."""
    memory: int
    """Bytes in use."""

    def __sub__(self, earlier: Load) -> Load:
        return Load(self.cpu - earlier.cpu, self.calls - earlier.calls, self.memory - earlier.memory)


class RedisServer:
    """Lives as long as its context."""

    def __enter__(self) -> Self:
        self._server = Server(redis_binary()).start()
        self.port = self._server.port
        self.version = self._info("server")["redis_version"]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.remove()

    def empty(self) -> None:
        """Delete everything."""
        self._server.command("FLUSHALL", "SYNC")

    def load(self) -> Load:
        """Read the counters."""
        cpu, stats, memory = self._info("cpu"), self._info("commandstats"), self._info("memory")
        calls = sum(int(text.partition("calls=")[2].partition(",")[0]) for text in stats.values())
        seconds = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return Load(seconds, calls, int(memory["used_memory"]))

    def settled(self) -> Load:
        """Read the counters once the connections of a process that has ended are cleared away."""
        deadline = time.monotonic() + 5
        while int(self._info("clients")["connected_clients"]) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        return self.load()

    def _info(self, section: str) -> dict[str, str]:
        lines = info_of(self._server, section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
