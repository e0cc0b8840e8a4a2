"""Applying the schema, and checking which one a database has.

The schema is the numbered files in ``schema/``; its version is the number of the last one. They are applied
in one transaction, under a lock that lets one process at a time do so.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from jobqueue.errors import StorageError
from jobqueue.storage.postgres.faults import APPLY
from jobqueue.storage.postgres.target import Connection

__all__ = ["apply", "check", "latest", "quoted", "script", "version_of"]

STORE = "jobqueue.storage.postgres"
"""The package whose ``schema/`` has the tables of the store; other packages may have tables of their own."""
_LOCK = 5_411_093_376_216_207_466
"""Advisory lock of whoever applies a schema in this database."""
_FILE = re.compile(r"(\d{4})_\w+\.sql")
# In a literal first: there the quoted name is quoted once more.
_NAMED = re.compile(r"'jobqueue\.(\w+)'|\bjobqueue\.(?=\w)")

_RANDOM = "encode(sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')), 'hex')"
"""Drawn by the server: the script may be printed, and be kept where others read it."""


def quoted(schema: str) -> str:
    """Return the name of a schema as an identifier of SQL."""
    return '"' + schema.replace('"', '""') + '"'


@cache
def _files(package: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for file in files(package).joinpath("schema").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            assert int(match[1]) not in found, f"two files of the schema have the number {match[1]}"
            found[int(match[1])] = file.read_text(encoding="utf-8")
    return dict(sorted(found.items()))


def latest(package: str = STORE) -> int:
    """Return the version of the schema that this release works with."""
    return max(_files(package))


def script(schema: str, after: int = 0, package: str = STORE) -> str:
    """Return the SQL that brings a schema from a version to the latest; from 0: that makes it."""
    name = quoted(schema)
    parts = [] if after else [f"create schema if not exists {name};"]

    def named(match: re.Match[str]) -> str:
        if match[1] is None:
            return f"{name}."
        return "'" + f"{name}.{match[1]}".replace("'", "''") + "'"

    parts += [_NAMED.sub(named, text) for number, text in _files(package).items() if number > after]
    if after:
        parts.append(f"update {name}.meta set version = {latest(package)};")  # noqa: S608 - quoted
    else:
        values = f"values ({latest(package)}, {_RANDOM})"
        parts.append(f"insert into {name}.meta (version, secret) {values};")
    return "\n".join(parts)


async def version_of(connection: Connection, schema: str) -> int:
    """Return the version of the schema in the database, 0 if there is none."""
    exists = await connection.fetchval("select to_regclass($1)", f"{quoted(schema)}.meta")
    if exists is None:
        return 0
    version = await connection.fetchval(f"select version from {quoted(schema)}.meta")  # noqa: S608 - quoted
    return int(version or 0)


async def apply(connection: Connection, schema: str, package: str = STORE) -> tuple[int, int]:
    """Bring the schema to the latest version; return the versions before and after.

    Raises `StorageError` if the database has a newer one than this release knows.
    """
    async with connection.transaction():
        await connection.execute("set local statement_timeout = 0")
        await connection.execute("set local lock_timeout = '30s'")
        await connection.execute("set local client_min_messages = warning")
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        before = await version_of(connection, schema)
        _refuse_newer(before, schema, package)
        if before < latest(package):
            await connection.execute(script(schema, before, package))
    return before, latest(package)


async def check(connection: Connection, schema: str, package: str = STORE) -> None:
    """Raise `StorageError` unless the database has the schema of this release."""
    version = await version_of(connection, schema)
    _refuse_newer(version, schema, package)
    if version == 0:
        raise StorageError(f"the database has no schema {schema!r} of jobqueue: {APPLY}")
    if version < latest(package):
        raise StorageError(
            f"the schema {schema!r} has version {version}, and this release needs {latest(package)}: {APPLY}"
        )


def _refuse_newer(version: int, schema: str, package: str) -> None:
    if version > latest(package):
        raise StorageError(
            f"the schema {schema!r} has version {version}, and this release knows up to {latest(package)}: "
            "use a newer release of jobqueue"
        )
