"""Where the server is: the DSN, and connecting to it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from jobqueue.errors import InvalidArgumentError

__all__ = [
    "APPLICATION",
    "Connection",
    "Target",
    "Timeouts",
    "check_schema",
    "connect",
    "parse_dsn",
    "pinned",
]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

APPLICATION = "jobqueue"
"""How our connections are called in the server's list of them."""
_SCHEMA = re.compile(r"[^\x00-\x1f\x7f$]+")
_MOST_SCHEMA = 63


class Timeouts(NamedTuple):
    """Seconds after which something is given up."""

    connect: float
    statement: float
    """Of one statement; the client waits a little longer than the server. 0: none."""
    lock: float
    """Of waiting for a row that another transaction holds."""


class Target:
    """A server and a database, with what is needed to log in. Its text has no password."""

    __slots__ = ("dsn", "pooled", "shown")

    def __init__(self, dsn: str, shown: str) -> None:
        self.dsn = dsn
        self.shown = shown
        self.pooled: bool | None = None
        """Whether a pooler, which keeps no settings and statements, stands between; ``None``: unknown."""

    def __repr__(self) -> str:
        return f"Target({self.shown!r})"

    def __str__(self) -> str:
        return self.shown


def parse_dsn(dsn: object) -> tuple[Target, str | None]:
    """Return the target that a DSN names, and the schema if it has one.

    ``postgresql://user:password@host:port/database?sslmode=verify-full``; what is left out comes from the
    environment, as for psql. Raises `InvalidArgumentError` without quoting the DSN.
    """
    if not isinstance(dsn, str):
        raise InvalidArgumentError("dsn", f"must be a str, not {type(dsn).__name__}")
    scheme, known, rest = dsn.partition("://")
    if not known or scheme not in {"postgresql", "postgres"}:
        raise InvalidArgumentError("dsn", "must begin with postgresql:// or postgres://")
    try:
        parts = urlsplit(dsn)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidArgumentError("dsn", "is no URL: quote special characters, such as @ as %40") from None
    if "@" in rest[len(parts.netloc) :] or parts.fragment:
        raise InvalidArgumentError(
            "dsn", "has an unquoted /, ? or # in its user or password: write them as %2F, %3F and %23"
        )
    schema = dict(query).get("schema")
    left = urlencode([(key, value) for key, value in query if key != "schema"])
    host = parts.netloc.rpartition("@")[2]
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    shown = f"postgresql://{f'{user}@' if user else ''}{host}{parts.path}"
    return Target(urlunsplit(parts._replace(query=left)), shown), schema


def check_schema(schema: object) -> str:
    """Return a name fit for a schema."""
    if not isinstance(schema, str):
        raise InvalidArgumentError("schema", f"must be a str, not {type(schema).__name__}")
    if not _SCHEMA.fullmatch(schema) or len(schema.encode(errors="replace")) > _MOST_SCHEMA:
        raise InvalidArgumentError(
            "schema", f"must be 1 to {_MOST_SCHEMA} bytes without control characters and $"
        )
    return schema


async def connect(target: Target, timeouts: Timeouts) -> Connection:
    """Connect and log in. A pooler is found out by the first connection, and used without its traps after."""
    try:
        connection = await _connect(target, timeouts)
    except asyncpg.PostgresError as error:
        if target.pooled or "startup parameter" not in str(error):
            raise
        target.pooled = True
        return await _connect(target, timeouts)
    if target.pooled is None:
        try:
            target.pooled = await _is_pooled(connection)
        except BaseException:
            connection.terminate()
            raise
        if target.pooled:
            connection.terminate()
            return await _connect(target, timeouts)
    return connection


async def _is_pooled(connection: Connection) -> bool:
    """Return whether a pooler stands between: it invents the process that clients are told."""
    try:
        async with connection.transaction():
            answering = int(await connection.fetchval("select pg_backend_pid()"))
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
        return True  # the statement of another client has its name
    return answering != connection.get_server_pid()


async def _connect(target: Target, timeouts: Timeouts) -> Connection:
    options: dict[str, Any] = {"server_settings": {"application_name": APPLICATION}}
    if target.pooled:
        options["statement_cache_size"] = 0
    else:
        options["server_settings"] |= _settings(timeouts)
    if "target_session_attrs" not in target.dsn:
        options["target_session_attrs"] = "read-write"
    limit = timeouts.statement + 5.0 if timeouts.statement else None
    return await asyncpg.connect(target.dsn, timeout=timeouts.connect, command_timeout=limit, **options)


def _settings(timeouts: Timeouts) -> dict[str, str]:
    return {
        "statement_timeout": _millis(timeouts.statement),
        "lock_timeout": _millis(timeouts.lock),
        "idle_in_transaction_session_timeout": _millis(timeouts.statement),
        "default_transaction_isolation": "read committed",  # what a call has waited for, it must see
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
    }


@asynccontextmanager
async def pinned(connection: Connection, target: Target, timeouts: Timeouts) -> AsyncGenerator[None]:
    """Keep one server behind a pooler for a call, with our settings; do nothing without a pooler.

    Else the pooler may hand the parts of a call, which are "parse this" and "carry it out", to two servers,
    and the second one carries out what another client had it parse.
    """
    if not target.pooled:
        yield
        return
    settings = "; ".join(f"set local {name} = '{value}'" for name, value in _settings(timeouts).items())
    await connection.execute(f"begin isolation level read committed; {settings}")
    try:
        yield
    except BaseException:
        with suppress(Exception):  # then the connection is given up
            await connection.execute("rollback")
        raise
    await connection.execute("commit")


def _millis(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)) if seconds else 0)
