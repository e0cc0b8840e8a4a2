"""What the tests of the Redis store share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from jobqueue.storage.redis.net.connection import Connection
from jobqueue.storage.redis.net.login import Timeouts, connect
from jobqueue.storage.redis.net.url import parse_url
from tests.services import unavailable


async def raw_connection(url: str, kind: str = "test") -> Connection:
    """Connect as the store does, to send plain commands."""
    target = parse_url(url)
    return await connect(target.addresses[0], target.login, kind, Timeouts(5.0, 10.0))


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


def certificate(directory: Path, *names: str) -> None:
    """Make a self-signed certificate for some host names."""
    if shutil.which("openssl") is None:
        unavailable("openssl")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=test",
        "-addext", f"subjectAltName={','.join(names)}",
    ]  # fmt: skip
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
