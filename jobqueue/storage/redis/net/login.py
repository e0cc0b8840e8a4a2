"""Opens a connection: the socket, the login, and the name by which the server's administrator knows it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from jobqueue.storage.redis.net.connection import Argument, Connection, ReplyError
from jobqueue.storage.redis.net.faults import REFUSALS, ConnectionLostError
from jobqueue.storage.redis.net.sockets import keep_alive
from jobqueue.storage.redis.net.target import Address, Login

__all__ = ["Timeouts", "connect"]

_COURTESY = REFUSALS | {"ERR"}
"""Codes of a refused name. Any other error is about the connection, not about its name."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of I/O, in seconds."""

    connect: float
    """For opening a connection and logging in."""
    reply: float
    """For the reply to a command; a blocking command has its own time on top."""


async def connect(address: Address, login: Login, kind: str, timeouts: Timeouts) -> Connection:
    """Open a connection for a ``kind`` of use and log in. Raises `ConnectionLostError` or a `ReplyError`."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeouts.connect):
            credentials = await _credentials(login)
            connection = await _open(address, login, timeouts)
            await _introduce(connection, credentials, login.db, f"{login.name}-{kind}-{os.getpid()}")
    except BaseException as error:
        if connection is not None:
            await connection.close("the login failed")
        if isinstance(error, TimeoutError):
            raise ConnectionLostError(f"no connection within {timeouts.connect} s") from None
        if isinstance(error, OSError | UnicodeError):  # the latter for a name that cannot be one of a host
            raise ConnectionLostError(f"cannot connect: {error}") from error
        raise
    connection.reply_timeout = timeouts.reply
    connection.logged_in = True
    return connection


async def _open(address: Address, login: Login, timeouts: Timeouts) -> Connection:
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        return Connection(address, timeouts.connect)

    if not address.port:
        return (await loop.create_unix_connection(protocol, address.host))[1]
    hostname = address.host if login.tls else None
    transport, connection = await loop.create_connection(
        protocol, address.host, address.port, ssl=login.tls, server_hostname=hostname
    )
    if login.keepalive is not None:
        try:
            keep_alive(transport, login.keepalive)
        except (OSError, TypeError) as error:
            await connection.close("its socket options are refused")
            raise ConnectionLostError(f"socket_keepalive_options: {error}") from error
    return connection


async def _credentials(login: Login) -> tuple[Argument, ...]:
    """Return the arguments of ``AUTH``; none if no login is needed."""
    if login.provider is not None:
        from jobqueue.storage.redis.net.redis_py import ask  # noqa: PLC0415 - loaded when it is used

        return await ask(login.provider)
    if login.username is None and login.password is None:
        return ()
    user = () if login.username is None else (login.username,)
    # A user without a password is let in with any, or with none.
    return (*user, login.password or "")


async def _introduce(connection: Connection, credentials: tuple[Argument, ...], db: int, name: str) -> None:
    """Log in, choose the database and set the client's name."""
    steps: list[asyncio.Future[object]] = []
    if credentials:
        steps.append(connection.send(b"AUTH", *credentials))
    if db:
        steps.append(connection.send(b"SELECT", db))
    named = connection.send(b"CLIENT", b"SETNAME", name)
    try:
        for step in steps:
            await step
    finally:
        for step in (*steps, named):
            step.add_done_callback(_seen)
    try:
        await named
    except ReplyError as error:
        if error.code not in _COURTESY:
            raise


def _seen(future: asyncio.Future[object]) -> None:
    if not future.cancelled():
        future.exception()
