"""A private PostgreSQL server with fsync on, and what it has used."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg

__all__ = ["Database", "Load", "Server"]

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """Readings of the server's counters, or the difference of two."""

    cpu: float
    """Seconds of processor time, user and system, of all its processes."""
    wal: int
    """Bytes of write-ahead log."""

    def __sub__(self, earlier: Load) -> Load:
        return Load(self.cpu - earlier.cpu, self.wal - earlier.wal)


@dataclass(frozen=True)
class Size:
    """The tables of a database."""

    bytes: int
    dead: int
    """Dead rows that are still there, as the server estimates."""


class Server:
    """Lives as long as its context, on a free port of the loopback."""

    def __init__(self) -> None:
        # The tests start one too; by name, since they are not held to the types of the benchmarks.
        start: Any = importlib.import_module("tests.storage.postgres.server").PostgresServer
        settings = {"shared_buffers": "256MB", "max_wal_size": "4GB", "client_min_messages": "error"}
        self._server = start(fsync=True, settings=settings)

    def __enter__(self) -> Self:
        self._server.start()
        self.version = str(self.query("show server_version")[0][0]).partition(" ")[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.remove()

    def query(self, sql: str, database: str = "postgres") -> Sequence[Any]:
        """Run one statement on a connection of its own."""

        async def run() -> Sequence[Any]:
            connection = await asyncpg.connect(self.url(database))
            try:
                return await connection.fetch(sql)
            finally:
                await connection.close()

        return asyncio.run(run())

    def url(self, database: str) -> str:
        """Return where a database is."""
        port: int = self._server.port
        return f"postgresql://jq@127.0.0.1:{port}/{database}?sslmode=disable"

    def load(self) -> Load:
        """Read the counters."""
        wal = int(self.query("select pg_current_wal_insert_lsn() - '0/0'")[0][0])
        pid: int = self._server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ticks = sum(_ticks(pid)) + sum(sum(_ticks(int(child))[:2]) for child in children)
        return Load(ticks / _TICK, wal)


class Database:
    """An empty database of a server, deleted with its context."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name

    def create(self) -> Self:
        """Make it anew."""
        self._server.query(f'drop database if exists "{self.name}" with (force)')
        self._server.query(f'create database "{self.name}"')
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.query(f'drop database if exists "{self.name}" with (force)')

    @property
    def url(self) -> str:
        """Where it is."""
        return self._server.url(self.name)

    def query(self, sql: str) -> Sequence[Any]:
        """Run one statement on a connection of its own."""
        return self._server.query(sql, self.name)

    def size(self) -> Size:
        """Measure the tables."""
        (found,) = self.query(
            "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint,"
            " coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables"
        )
        return Size(int(found[0]), int(found[1]))


def _ticks(pid: int) -> tuple[int, ...]:
    """Return the ticks of a process and of its children that have ended; none if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return (0, 0, 0, 0)
    return tuple(map(int, fields[11:15]))
