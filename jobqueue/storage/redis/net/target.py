"""The place of a store's server and the way to log in there, as a URL or a client of redis-py tells them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from jobqueue.storage.redis.net.sockets import KEEPALIVE

if TYPE_CHECKING:
    from redis.asyncio import Sentinel
    from redis.credentials import CredentialProvider

__all__ = ["Address", "Login", "Target"]


class Address(NamedTuple):
    """A TCP address, or a Unix socket (then ``host`` is its path and ``port`` 0)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How each connection is opened, and introduces itself. Credentials are in no repr."""

    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    provider: CredentialProvider | None = field(default=None, repr=False)
    """Asked for the credentials of each new connection, instead of ``username`` and ``password``."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    name: str = "jobqueue"
    """The beginning of the names of connections."""
    keepalive: Mapping[int, int | bytes] | None = field(default_factory=KEEPALIVE.copy, repr=False)
    """TCP keepalive: socket options and their values; ``None`` leaves it off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server, or servers, of a store."""

    kind: str
    """``single``, ``unix``, ``cluster`` or ``sentinel``."""
    addresses: tuple[Address, ...]
    """Of the server or its sentinels; of a cluster, the nodes to ask first."""
    login: Login = field(default_factory=Login)
    service: str = ""
    """Name of the master that the sentinels watch."""
    sentinel_login: Login = field(default_factory=Login)
    sentinel: Sentinel | None = field(default=None, repr=False)
    """The rules of redis-py by which a master is chosen. Its own connections are not used."""
    remap: Callable[[tuple[str, int]], tuple[str, int]] | None = field(default=None, repr=False)
    """Translates the addresses that a cluster tells into those that are reachable from here."""
    connect_timeout: float | None = None
    reply_timeout: float | None = None
    """Time limits that were given together with the address, in seconds."""

    @property
    def weakness(self) -> str:
        """What TLS does not verify; empty if it verifies all, or there is none."""
        tls = self.login.tls
        if tls is None or (tls.check_hostname and tls.verify_mode is ssl.CERT_REQUIRED):
            return ""
        what = "host name" if tls.verify_mode is ssl.CERT_REQUIRED else "certificate"
        return f"TLS does not verify the server's {what}: whoever is between can read and change all"

    def __str__(self) -> str:
        where = ",".join(map(str, self.addresses))
        tail = f"/{self.service}/{self.login.db}" if self.kind == "sentinel" else f"/{self.login.db}"
        kind = f"{self.kind} " if self.kind in {"cluster", "sentinel"} else ""
        return f"{kind}{where}{tail}" + (" with TLS" if self.login.tls else "")
