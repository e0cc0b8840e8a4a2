"""Reads store URLs."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote

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
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_OPTION = re.compile(r"[a-z_]{1,40}")
_BRACKET = re.compile(r"[\[\]]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_HOST = re.compile(
    r"""(?: (?P<name> [\w.-]* ) | \[ (?P<ipv6> [0-9A-Fa-f:.]+ (?: % [\w.%-]+ )? ) \] )
        (?: : (?P<port> [0-9]{1,9} ) )?""",
    re.VERBOSE,
)


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
    scheme, known, rest = url.partition("://")
    if not known or scheme not in _SCHEMES:
        raise InvalidArgumentError("url", f"must begin with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
    if not url.isprintable():
        raise _error("has a control character")
    kind, secure = _SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    options = _options(query, kind, secure=secure)
    credentials, _, hosts = authority.rpartition("@")
    if "#" in url or _BRACKET.search(credentials) or (kind != "unix" and "@" in path):
        raise _error("cannot be read")
    username, _, password = credentials.partition(":")
    service, db = _path(kind, path, options)
    return Target(
        kind=kind,
        addresses=_socket(hosts, slash + path) if kind == "unix" else _addresses(kind, hosts),
        db=db,
        service=service,
        username=_unquoted(username) or None,
        password=_unquoted(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if secure else None,
    )


def _error(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        "url", f"{problem}; in a user or password write / ? # [ ] % as %2F %3F %23 %5B %5D %25"
    )


def _unquoted(text: str) -> str:
    # A plus is a plus: only forms write a blank so.
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _error("has percent-encoded bytes that are not UTF-8") from None


def _options(query: str, kind: str, *, secure: bool) -> dict[str, str]:
    known = ["db", *(_SENTINEL_OPTIONS if kind == "sentinel" else ()), *(_TLS_OPTIONS if secure else ())]
    options: dict[str, str] = {}
    for item in query.split("&") if query else ():
        name, _, value = item.partition("=")
        if name not in known:
            # Behind an unquoted question mark it may be part of a password.
            shown = f" {name!r}" if _OPTION.fullmatch(name) and "@" not in query else ""
            raise _error(f"has an unknown option{shown}; known: {', '.join(known)}")
        if not value or name in options:
            raise _error(f"must give the option {name} once, and a value")
        options[name] = _unquoted(value)
    return options


def _path(kind: str, path: str, options: dict[str, str]) -> tuple[str, int]:
    """Return the service and the database."""
    segments = [] if kind == "unix" else [_unquoted(segment) for segment in path.split("/") if segment]
    service = ""
    if kind == "sentinel":
        if not segments:
            raise _error("must name the service: redis+sentinel://host,host/service/db")
        service = segments.pop(0)
    if "db" in options:
        segments.append(options["db"])
    text = segments[0] if segments else "0"
    if len(segments) > 1 or not _NUMBER.fullmatch(text) or (kind == "cluster" and int(text)):
        raise _error("must end with one database number (a cluster has only 0)")
    return service, int(text)


def _socket(hosts: str, path: str) -> tuple[Address, ...]:
    if hosts or not path.strip("/"):
        raise _error("must name a socket by its absolute path: unix:///path/to/socket")
    return (Address(_unquoted(path), 0),)


def _addresses(kind: str, hosts: str) -> tuple[Address, ...]:
    items = hosts.split(",")
    if kind == "single" and len(items) > 1:
        raise _error("names several hosts: only redis+cluster:// and redis+sentinel:// have more than one")
    return tuple(_address(item, _PORTS[kind], empty=len(items) == 1) for item in items)


def _address(item: str, default: int, *, empty: bool) -> Address:
    found = _HOST.fullmatch(item)
    if found is None:
        raise _error("has a host or port that cannot be read (IPv6 addresses stand in [brackets])")
    name, ipv6, port = found["name"], found["ipv6"], found["port"]
    if port is not None and not 0 < int(port) < 65536:
        raise _error("has a port that is not within 1 to 65535")
    try:
        if ipv6 is not None:
            host = unquote(ipv6)
            ip_address(host)
        elif name or empty:
            host = (name or "localhost").lower()
            host.encode("idna")
        else:
            raise _error("has an empty host")
    except ValueError:
        raise _error("has a host that is none") from None
    return Address(host, default if port is None else int(port))


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    """Return a context that verifies the certificate and the host name. There is no way around it."""
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise InvalidArgumentError("url", "names an ssl_keyfile without its ssl_certfile")
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if "ssl_certfile" in options:
            # With a password of none, or a key that has one would be asked for at the terminal.
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), password="")
    except (OSError, ValueError) as error:
        raise InvalidArgumentError("url", f"names TLS files that cannot be used: {error}") from error
    return context
