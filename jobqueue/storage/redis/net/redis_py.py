"""Reads from redis-py the configuration of users: options of a URL, their own client, credentials.

Only the configuration: sockets and the protocol are ours, see docs/design.md. redis-py makes a connection
object and never connects it; what that object says by its public names is what our connections do. So
redis-py is loaded by those who use something of it, and not for a plain ``redis://host``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from ssl import SSLContext
from typing import Any, cast
from urllib.parse import quote

import redis
from redis.asyncio import Redis, RedisCluster, Sentinel, SentinelConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import check_seconds
from jobqueue.runtime.threads import start_thread
from jobqueue.storage.redis.net.connection import Argument
from jobqueue.storage.redis.net.faults import ConnectionLostError
from jobqueue.storage.redis.net.sockets import KEEPALIVE
from jobqueue.storage.redis.net.target import Address, Login, Target

__all__ = ["ask", "configured", "sentinel_of", "target_of", "tls_options"]

_KNOWN_CONNECTIONS = {
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
}


# -- from a URL ------------------------------------------------------------------------------------


def tls_options() -> list[str]:
    """Return the names of the options for TLS that this version of redis-py knows."""
    return [name for name in inspect.signature(SSLConnection).parameters if name.startswith("ssl_")]


def configured(target: Target, options: Mapping[str, str], *, secure: bool) -> Target:
    """Return a target with the options of a URL. Raises `InvalidArgumentError`."""
    scheme = "rediss" if secure else "unix" if target.kind == "unix" else "redis"
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
    try:
        read = cast("dict[str, Any]", parse_url(f"{scheme}://localhost/0?{query}"))
        kind = read.pop("connection_class", Connection)
        for unused in ("host", "path", "db"):
            read.pop(unused, None)
        # Text as it was decoded by us: redis-py 7 decodes it twice.
        known = {name: options[name] if isinstance(value, str) else value for name, value in read.items()}
        connection = kind(**known, protocol=2)
    except (RedisError, TypeError, ValueError) as error:
        raise InvalidArgumentError("url", f"has an option that cannot be used: {error}") from None
    return replace(
        target,
        login=_login(connection, known, target.login, "url"),
        connect_timeout=_seconds("url.socket_connect_timeout", known.get("socket_connect_timeout")),
        reply_timeout=_seconds("url.socket_timeout", known.get("socket_timeout")),
    )


def sentinel_of(addresses: tuple[Address, ...]) -> Sentinel:
    """Return redis-py's choice of a master among what these sentinels say."""
    sentinel: Sentinel = cast("Any", Sentinel)([tuple(address) for address in addresses])
    return sentinel


# -- from a client ---------------------------------------------------------------------------------


def target_of(client: object) -> Target:
    """Return the target of a user's client, which is only read. Raises `InvalidArgumentError`."""
    if isinstance(client, RedisCluster):
        return _target_of_cluster(client)
    if isinstance(client, redis.Redis | redis.RedisCluster):
        raise _error(f"is synchronous: make it by redis.asyncio.{type(client).__name__}")
    if not isinstance(client, Redis):
        raise _error(f"must be a redis.asyncio.Redis or RedisCluster, not {type(client).__name__}")
    pool: Any = client.connection_pool
    connection = _made(pool.make_connection)
    if getattr(connection, "redis_connect_func", None) is not None:
        raise _error(
            "has a redis_connect_func, which logs in on a connection of redis-py: use credential_provider="
        )
    login = _login(connection, pool.connection_kwargs, Login(), "client")
    target = _timed(Target(kind="single", addresses=(_address(connection),), login=login), connection)
    if isinstance(pool, SentinelConnectionPool):
        return _with_sentinels(target, pool)
    return replace(target, kind="unix") if isinstance(connection, UnixDomainSocketConnection) else target


def _with_sentinels(target: Target, pool: Any) -> Target:
    if not pool.is_master:
        raise _error("reads from replicas: make it by Sentinel.master_for")
    sentinels = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    if not sentinels:
        raise _error("knows no sentinel")
    made = [_made(sentinel.make_connection) for sentinel in sentinels]
    return replace(
        target,
        kind="sentinel",
        service=str(pool.service_name),
        addresses=tuple(map(_address, made)),
        sentinel=pool.sentinel_manager,
        # Sentinel() gives all of them the same options.
        sentinel_login=_login(made[0], sentinels[0].connection_kwargs, Login(), "client"),
    )


def _target_of_cluster(client: Any) -> Target:
    nodes = list(client.nodes_manager.startup_nodes.values())
    if not nodes:
        raise _error("knows no node of its cluster")
    made = [_made(partial(node.connection_class, **node.connection_kwargs)) for node in nodes]
    target = Target(
        kind="cluster",
        addresses=tuple(map(_address, made)),
        login=_login(made[0], nodes[0].connection_kwargs, Login(), "client"),
        remap=client.nodes_manager.address_remap,
    )
    return _timed(target, made[0])


def _made(make: Callable[[], Any]) -> Any:
    """Let redis-py make a connection object, which is not connected."""
    try:
        connection = make()
    except (RedisError, TypeError, ValueError) as error:
        raise _error(f"cannot make connections: {error}") from error
    if type(connection) not in _KNOWN_CONNECTIONS:
        raise _error(
            f"has connections of another class, {type(connection).__qualname__}, whose way to connect "
            "cannot be taken over: give a url"
        )
    return connection


def _address(connection: Any) -> Address:
    if isinstance(connection, UnixDomainSocketConnection):
        return Address(str(connection.path), 0)
    return Address(str(connection.host), int(connection.port))


def _timed(target: Target, connection: Any) -> Target:
    return replace(
        target,
        connect_timeout=_seconds("client.socket_connect_timeout", connection.socket_connect_timeout),
        reply_timeout=_seconds("client.socket_timeout", connection.socket_timeout),
    )


def _error(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError("client", problem)


# -- for both --------------------------------------------------------------------------------------


def _login(connection: Any, options: Mapping[str, Any], base: Login, argument: str) -> Login:
    """Return a login like that of ``connection``; ``base`` has what the connection does not say."""
    try:
        db = int(connection.db or base.db)
    except (TypeError, ValueError):
        raise InvalidArgumentError(argument, "must have a database that is a number") from None
    return Login(
        db=db,
        username=connection.username or base.username,
        password=connection.password or base.password,
        provider=connection.credential_provider or base.provider,
        tls=_tls(connection, argument),
        name=connection.client_name or base.name,
        keepalive=_keepalive(options),
    )


def _keepalive(options: Mapping[str, Any]) -> Mapping[int, int | bytes] | None:
    """Return what was asked for, not a default of redis-py: 7 has it off."""
    if options.get("socket_keepalive") is False:
        return None
    asked = options.get("socket_keepalive_options")
    return cast("Mapping[int, int | bytes]", asked) if isinstance(asked, Mapping) else KEEPALIVE


def _tls(connection: Any, argument: str) -> SSLContext | None:
    settings = getattr(connection, "ssl_context", None)
    if settings is None:
        return None
    if settings.password is None:
        settings.password = ""  # or a key that has one would be asked for at the terminal
    if settings.keyfile and not settings.certfile:
        raise InvalidArgumentError(argument, "names an ssl_keyfile without its ssl_certfile")
    try:
        context: SSLContext = settings.get()
    except (OSError, TypeError, ValueError) as error:
        raise InvalidArgumentError(argument, f"names TLS files that cannot be used: {error}") from error
    return context


def _seconds(option: str, value: object) -> float | None:
    return None if value is None else check_seconds(option, value)


async def ask(provider: CredentialProvider) -> tuple[Argument, ...]:
    """Return what a provider says, as arguments of ``AUTH``. Raises `ConnectionLostError`.

    One that can only block is asked in a thread.
    """
    inherited = getattr(type(provider), "get_credentials_async", None)
    blocking = inherited in {None, CredentialProvider.get_credentials_async}
    try:
        if blocking:
            raised, said = await start_thread(provider.get_credentials, "jobqueue-credentials")
            if raised:
                raise said
        else:
            said = await provider.get_credentials_async()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code
        said, failed = None, type(error).__name__
    else:
        failed = ""
    if failed:  # raised here, apart from the error: its text, and so a traceback with it, may hold a token
        raise ConnectionLostError(f"the credential provider failed: {failed}")
    match said:
        case (str() | bytes() as password,):
            return (password,)
        case (str() | bytes() as user, str() | bytes() as password):
            return (user, password)
        case _:
            raise ConnectionLostError("the credential provider must return (password,) or (user, password)")
