"""The stores of a chaos run, and what can be done to them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobqueue import PostgresLedger, PostgresStorage
from tests.services import BINARIES, Server
from tests.storage.postgres.server import PostgresServer
from tests.storage.redis.proxy import ChaosProxy

AWAY = 0.3
"""Seconds that a server stays away at a restart."""


class Files:
    """A directory. Nothing can be done to it that is not done to a process."""

    faults: tuple[str, ...] = ()
    proxy: ChaosProxy | None = None
    ledger: str | None = None

    def __init__(self, directory: Path) -> None:
        self.url = self.direct = (directory / "store").as_uri()
        self.data = directory / "store"

    async def open(self) -> None:
        """Have it ready."""

    async def close(self) -> None:
        """Nothing runs."""


class Served:
    """A server behind a proxy."""

    faults: tuple[str, ...] = ("cut", "slow", "restart", "rollback")
    ledger: str | None = None
    """URL of the ledger of a guarded store."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.data: Path = server.dir
        self.proxy: ChaosProxy | None = None
        self.url = self.direct = ""
        self._copy = server.dir.with_name(server.dir.name + "-copy")
        self.copied = 0.0
        """When the copy that `rollback` puts back was made; 0: there is none."""

    async def open(self) -> None:
        """Start it."""
        await asyncio.to_thread(self.server.start)
        self.proxy = ChaosProxy(self.server.port)
        await self.proxy.start()
        self.direct = self.server.url
        self.url = self.direct.replace(f":{self.server.port}", f":{self.proxy.port}")

    async def close(self) -> None:
        """End it and delete its data."""
        if self.proxy is not None:
            await self.proxy.stop()
        self.server.remove()
        shutil.rmtree(self._copy, ignore_errors=True)

    async def restart(self) -> None:
        """Kill the server, keep a copy of its data, and start it again."""
        self.server.kill()
        await asyncio.to_thread(self._keep)
        self.copied = time.monotonic()
        await asyncio.sleep(AWAY)
        await self._start()

    async def rollback(self) -> None:
        """Kill the server and start it with the data that the last restart has kept."""
        self.server.kill()
        await asyncio.to_thread(self._put_back)
        await self._start()

    def _keep(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.data, self._copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock", ".s.*"))
        self._same_owner()

    def _same_owner(self) -> None:
        for path in [self.data, *self.data.rglob("*")]:
            copied = self._copy / path.relative_to(self.data)
            if copied.exists():
                shutil.chown(copied, path.stat().st_uid, path.stat().st_gid)

    def _put_back(self) -> None:
        for path in self._copy.iterdir():
            old = self.data / path.name
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        for path in list(self._copy.iterdir()):
            shutil.move(path, self.data / path.name)
        self._keep()

    async def _start(self) -> None:
        # What was connected to the old server is cut off, as it would be without a proxy.
        assert self.proxy is not None
        self.proxy.cut()
        await asyncio.to_thread(self.server.start)


class RedisLike(Served):
    """Redis or Valkey, with an append-only file: what was answered survives the end of the process."""

    def __init__(self, flavour: str) -> None:
        super().__init__(Server(BINARIES[flavour](), "--appendonly", "yes", "--appendfsync", "everysec"))


class Guarded(Served):
    """Redis without persistence, guarded by PostgreSQL: its data go with its process, and no job does."""

    faults = ("cut", "slow", "wipe")

    def __init__(self) -> None:
        super().__init__(Server(BINARIES["redis"]()))
        self._postgres = PostgresServer(settings={"synchronous_commit": "on", "full_page_writes": "on"})

    async def open(self) -> None:
        """Start both, with the tables of the ledger."""
        await super().open()
        await asyncio.to_thread(self._postgres.start)
        self.ledger = self._postgres.url
        await PostgresLedger(self.ledger).apply_schema()

    async def close(self) -> None:
        """End both and delete their data."""
        await super().close()
        self._postgres.remove()

    async def wipe(self) -> None:
        """Kill the server; it comes back empty."""
        self.server.kill()
        await asyncio.sleep(AWAY)
        await self._start()


class Postgres(Served):
    """PostgreSQL that answers when the log is written: that survives the end of its processes."""

    def __init__(self) -> None:
        super().__init__(PostgresServer(settings={"synchronous_commit": "on", "full_page_writes": "on"}))

    async def open(self) -> None:
        """Start it, with the tables."""
        await super().open()
        await PostgresStorage(self.direct).apply_schema()


STORES: dict[str, Callable[[Path], Any]] = {
    "file": Files,
    "redis": lambda _directory: RedisLike("redis"),
    "valkey": lambda _directory: RedisLike("valkey"),
    "postgres": lambda _directory: Postgres(),
    "guard": lambda _directory: Guarded(),
}
