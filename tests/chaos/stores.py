"""The stores of a chaos run, and what can be done to them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

from jobqueue import PostgresLedger, PostgresStorage
from tests.services import BINARIES, Server
from tests.storage.postgres.server import PostgresServer, other_user
from tests.storage.redis.proxy import ChaosProxy

AWAY = 0.3
"""Seconds that a server stays away at a restart."""
LAG = 0.3
"""Seconds for which a standby hears nothing before it takes over."""
CLOSE = 1_000_000
"""Bytes that a standby may be behind and still counts as one that follows."""
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""What gives a program a clock of its own: Debian's libfaketime, where it is installed."""
SETTINGS = {"synchronous_commit": "on", "full_page_writes": "on"}


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

    faults: tuple[str, ...] = ("cut", "slow", "restart", "rollback", "failover")
    ledger: str | None = None
    """URL of the ledger of a guarded store."""
    clock: SteppedClock | None = None
    env: dict[str, str] | None = None
    """Variables of the server."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.proxy: ChaosProxy | None = None
        self.url = self.direct = ""
        self._door: ChaosProxy | None = None
        """The way of those to whom nothing is done. It leads to the server that answers now."""
        self._standby: Any = None
        self._copy = server.dir.with_name(server.dir.name + "-copy")
        self.copied = 0.0
        """When the copy that `rollback` puts back was made; 0: there is none."""

    async def open(self) -> None:
        """Start it."""
        await asyncio.to_thread(self.server.start)
        self.proxy, self._door = ChaosProxy(self.server.port), ChaosProxy(self.server.port)
        await self.proxy.start()
        await self._door.start()
        self.direct = self.server.url.replace(f":{self.server.port}", f":{self._door.port}")
        self.url = self.server.url.replace(f":{self.server.port}", f":{self.proxy.port}")

    def have_clock(self) -> None:
        """Have a clock that can be set, where the library for it is installed."""
        if FAKETIME is not None:
            self.clock = SteppedClock()
            self.env = self.clock.env
            self.faults = (*self.faults, "clock")

    async def close(self) -> None:
        """End it and delete its data."""
        if self.clock is not None:
            self.clock.remove()
        for proxy in (self.proxy, self._door):
            if proxy is not None:
                await proxy.stop()
        self.server.remove()
        if self._standby is not None:
            self._standby.remove()
        shutil.rmtree(self._copy, ignore_errors=True)

    @property
    def data(self) -> Path:
        """The directory of the server that answers now."""
        directory: Path = self.server.dir
        return directory

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
        if self._standby is not None:  # it has what its server has lost
            self._standby.remove()
            self._standby = None
        await asyncio.to_thread(self._put_back)
        await self._start()

    async def stand_by(self) -> bool:
        """Have a standby; return whether it follows closely, so that a failover costs a moment's writes."""
        if self._standby is None:
            self._standby = await asyncio.to_thread(self.make_standby)
        return await asyncio.to_thread(self.follows, self._standby)

    async def failover(self) -> None:
        """Kill the server; its standby, which lacks the last writes, takes its place."""
        standby, old = self._standby, self.server
        standby.pause()
        await asyncio.sleep(LAG)
        old.kill()
        standby.resume()
        await asyncio.to_thread(self.promote, standby)
        self.server, self._standby = standby, None
        await asyncio.to_thread(old.remove)
        for proxy in (self.proxy, self._door):
            assert proxy is not None
            proxy.target = standby.port
            proxy.cut()

    def make_standby(self) -> Any:
        """Start a server that follows the one that answers."""
        raise NotImplementedError

    def follows(self, standby: Any) -> bool:
        """Return whether a standby is connected and has nearly everything."""
        raise NotImplementedError

    def promote(self, standby: Any) -> None:
        """Have a standby take writes."""
        raise NotImplementedError

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
        for proxy in (self.proxy, self._door):
            assert proxy is not None
            proxy.cut()
        await asyncio.to_thread(self.server.start)


class SteppedClock:
    """The clock of a server, set forth and back by a library that the server is started with."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="jobqueue-clock-"))
        self._directory.chmod(0o755)  # a server that root starts runs as somebody else
        self._ahead = 0.0
        self._write()
        self.env = {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self._directory / "ahead"),
            "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip

    async def step(self, seconds: float) -> None:
        """Set it, and wait until the server has seen it."""
        self._ahead += seconds
        self._write()
        await asyncio.sleep(1.1)

    def remove(self) -> None:
        """Delete what tells the time."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self) -> None:
        (self._directory / "ahead").write_text(f"{self._ahead:+}")


class RedisLike(Served):
    """Redis or Valkey, with an append-only file: what was answered survives the end of the process."""

    options: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "everysec")

    def __init__(self, flavour: str) -> None:
        self._binary = BINARIES[flavour]()
        if flavour == "valkey":  # the allocator of Debian's Redis does not start with that library
            self.have_clock()
        super().__init__(Server(self._binary, *self.options, env=self.env))

    def make_standby(self) -> Server:
        """Start a replica."""
        primary = ("--replicaof", f"127.0.0.1 {self.server.port}", "--repl-diskless-sync-delay", "0")
        return Server(self._binary, *self.options, *primary, env=self.env).start()

    def follows(self, standby: Server) -> bool:
        """Ask both how far they are."""
        copied = _info(standby)
        behind = int(_info(self.server)["master_repl_offset"]) - int(copied["slave_repl_offset"])
        return copied["master_link_status"] == "up" and behind < CLOSE

    def promote(self, standby: Server) -> None:
        """Have the replica be a primary."""
        standby.command("REPLICAOF", "NO", "ONE")
        standby.options = self.options  # when it starts again


def _info(server: Server) -> dict[str, str]:
    text = server.command("INFO", "replication")
    assert isinstance(text, bytes)
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


class Guarded(RedisLike):
    """Redis without persistence, guarded by PostgreSQL: its data go with its process, and no job does."""

    faults = ("cut", "slow", "wipe", "failover")
    options = ()

    def __init__(self) -> None:
        super().__init__("redis")
        self._postgres = PostgresServer(settings=SETTINGS)

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
        self.have_clock()
        super().__init__(PostgresServer(settings=SETTINGS, env=self.env))

    async def open(self) -> None:
        """Start it, with the tables."""
        await super().open()
        await PostgresStorage(self.direct).apply_schema()
        if not (self.server.binaries / "pg_basebackup").exists():  # a wheel has no more than the server
            self.faults = tuple(kind for kind in self.faults if kind != "failover")

    def make_standby(self) -> PostgresServer:
        """Copy the server, and start the copy as a standby."""
        standby = PostgresServer(settings=SETTINGS, env=self.env)
        subprocess.run(
            [
                *other_user(), self.server.binaries / "pg_basebackup", "-d", self.server.url,
                "-D", standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            ],
            check=True, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return standby.start()

    def follows(self, standby: PostgresServer) -> bool:
        """Ask the server what it knows of its standby."""
        behind = "select pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) from pg_stat_replication"
        return any(size is not None and size < CLOSE for size in _query(self.server, behind))

    def promote(self, standby: PostgresServer) -> None:
        """End recovery, and wait until it takes writes."""
        _query(standby, "select pg_promote()")


def _query(server: PostgresServer, sql: str) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(server.url)
        try:
            return [row[0] for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return asyncio.run(run())


STORES: dict[str, Callable[[Path], Any]] = {
    "file": Files,
    "redis": lambda _directory: RedisLike("redis"),
    "valkey": lambda _directory: RedisLike("valkey"),
    "postgres": lambda _directory: Postgres(),
    "guard": lambda _directory: Guarded(),
}
