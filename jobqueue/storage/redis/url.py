"""Reads store URLs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from jobqueue.errors import InvalidArgumentError

__all__ = ["Address", "Target", "parse_url"]

_SCHEMES = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "valkey": ("single", False),
    "valkeys": ("single", True),
    "unix": ("unix", False),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "valkey+cluster": ("cluster", False),
    "valkeys+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "valkey+sentinel": ("sentinel", False),
    "valkeys+sentinel": ("sentinel", True),
}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_QUOTE = "in a user or password write / ? # as %2F %3F %23"
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}


class Address(NamedTuple):
    """A TCP address, or a Unix socket (then ``host`` is its path and ``port`` 0)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The content of a URL. Credentials are in no repr."""

    kind: str
    """``single``, ``unix``, ``cluster`` or ``sentinel``."""
    addresses: tuple[Address, ...]
    db: int = 0
    service: str = ""
    """Name of the master that the sentinels watch."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        where = ",".join(map(str, self.addresses))
        tail = f"/{self.service}/{self.db}" if self.kind == "sentinel" else f"/{self.db}"
        kind = f"{self.kind} " if self.kind in {"cluster", "sentinel"} else ""
        return f"{kind}{where}{tail}" + (" with TLS" if self.tls else "")


def parse_url(url: object) -> Target:
    """Read a URL. Raises `InvalidArgumentError`, which never repeats the URL: it may hold a password."""
    if not isinstance(url, str):
        raise InvalidArgumentError("url", f"must be a str, not {type(url).__name__}")
    scheme, _, _ = url.partition("://")
    if scheme not in _SCHEMES or "://" not in url:
        raise InvalidArgumentError("url", f"must begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
    kind, secure = _SCHEMES[scheme]
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise InvalidArgumentError("url", f"is not a valid URL: {_QUOTE}") from None
    known = {"db", "sentinel_username", "sentinel_password", *(_TLS_OPTIONS if secure else ())}
    if unknown := sorted(set(options) - known):
        raise InvalidArgumentError("url", f"has an unknown option {unknown[0]!r:.40}; known: {sorted(known)}")
    username, password, hosts = _authority(parts)
    service, db = _path(kind, parts.path, options)
    return Target(
        kind=kind,
        addresses=(Address(unquote(parts.path), 0),) if kind == "unix" else _addresses(hosts, _PORTS[kind]),
        db=db,
        service=service,
        username=username,
        password=password,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if secure else None,
    )


def _authority(parts: SplitResult) -> tuple[str | None, str | None, str]:
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    return unquote(username) or None, unquote(password) or None, hosts


def _path(kind: str, path: str, options: dict[str, str]) -> tuple[str, int]:
    """Return the service and the database."""
    segments = [unquote(s) for s in path.split("/") if s] if kind != "unix" else []
    service = ""
    if kind == "unix" and not path.strip("/"):
        raise InvalidArgumentError("url", "must name a socket: unix:///path/to/socket")
    if kind == "sentinel":
        if not segments:
            raise InvalidArgumentError("url", "must name the service: redis+sentinel://host,host/service/db")
        service = segments.pop(0)
    text = segments.pop(0) if segments else options.get("db", "0")
    if segments or not text.isdigit() or (kind == "cluster" and text != "0"):
        raise InvalidArgumentError("url", f"must end with a database number (a cluster has only 0); {_QUOTE}")
    return service, int(text)


def _addresses(hosts: str, default: int) -> tuple[Address, ...]:
    found: list[Address] = []
    for item in hosts.split(",") if hosts else ["localhost"]:
        try:
            one = urlsplit(f"//{item}")
            found.append(Address(one.hostname or "localhost", one.port or default))
        except ValueError:
            raise InvalidArgumentError("url", f"has a host or port that cannot be read; {_QUOTE}") from None
    return tuple(found)


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    """Return a context that verifies the certificate and the host name. It cannot be turned off."""
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    except OSError as error:
        raise InvalidArgumentError("url", f"names TLS files that cannot be used: {error}") from error
    return context
