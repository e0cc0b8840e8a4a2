"""What the tests of the Redis store share."""

from __future__ import annotations

from typing import Any

from jobqueue.storage.redis.connection import Connection, Login, connect
from jobqueue.storage.redis.url import parse_url


async def raw_connection(url: str, name: str = "jobqueue-test") -> Connection:
    """Connect as the store does, to send plain commands."""
    target = parse_url(url)
    return await connect(target.addresses[0], Login(target), name, connect_timeout=5.0, reply_timeout=10.0)


async def run(url: str, *command: bytes | str | int) -> Any:
    """Run one command on a connection of its own."""
    connection = await raw_connection(url)
    try:
        return await connection.send(*command)
    finally:
        await connection.close("done")


async def keys_of(url: str, prefix: str) -> list[bytes]:
    """List the keys of a prefix."""
    found: list[bytes] = []
    connection = await raw_connection(url)
    try:
        for pattern in (f"{{{prefix}:*", f"{prefix}:*"):
            cursor = b"0"
            while True:
                cursor, some = await connection.send(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", 1000)
                found += some
                if cursor == b"0":
                    break
    finally:
        await connection.close("done")
    return found


async def drop_keys(url: str, prefix: str) -> None:
    """Delete what a test has left."""
    keys = await keys_of(url, prefix)
    if keys:
        await run(url, b"UNLINK", *keys)
