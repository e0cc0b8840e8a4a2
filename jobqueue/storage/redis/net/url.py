"""Reads store URLs.

The form is checked here, more strictly than redis-py does: what can be meant in two ways, a database that is
no number or an unknown option is refused, and no error repeats the URL. The values of options are read by
redis-py, as its `from_url` would.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.redis.net.target import Address, Login, Target

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider

__all__ = ["parse_url"]

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
_OPTIONS = ("client_name", "socket_connect_timeout", "socket_timeout")
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_OPTION = re.compile(r"[a-z_]{1,40}")
_BRACKET = re.compile(r"[\[\]]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_HOST = re.compile(
    r"""(?: (?P<name> [\w.-]* ) | \[ (?P<ipv6> [0-9A-Fa-f:.]+ (?: % [\w.%-]+ )? ) \] )
        (?: : (?P<port> [0-9]{1,9} ) )?""",
    re.VERBOSE,
)


def parse_url(url: object, provider: CredentialProvider | None = None) -> Target:
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
    service, db = _path(kind, path, options.pop("db", None))
    if provider is not None and credentials:
        raise InvalidArgumentError("credential_provider", "is given, and a user or password in the URL too")
    login = Login(
        db=db,
        username=_unquoted(username) or None,
        password=_unquoted(password) or None,
        provider=provider,
    )
    addresses = _socket(hosts, slash + path) if kind == "unix" else _addresses(kind, hosts)
    target = Target(kind=kind, addresses=addresses, login=login, service=service)
    return _with_options(target, options, secure=secure)


def _with_options(target: Target, options: dict[str, str], *, secure: bool) -> Target:
    """Let redis-py read the options. A plain URL does not load it."""
    username, password = (options.pop(name, None) for name in _SENTINEL_OPTIONS)
    if options or secure or target.kind == "sentinel":
        from jobqueue.storage.redis.net import redis_py  # noqa: PLC0415 - loaded when it is used

        target = redis_py.configured(target, options, secure=secure)
        if target.kind == "sentinel":
            login = replace(target.login, db=0, username=username, password=password, provider=None)
            sentinel = redis_py.sentinel_of(target.addresses)
            return replace(target, sentinel=sentinel, sentinel_login=login)
    return target


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
    known = ["db", *_known_options(kind, secure=secure)] if query else []
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


def _known_options(kind: str, *, secure: bool) -> list[str]:
    known = [*_OPTIONS, *(() if kind == "unix" else ("socket_keepalive",))]
    if kind == "sentinel":
        known += _SENTINEL_OPTIONS
    if secure:
        from jobqueue.storage.redis.net import redis_py  # noqa: PLC0415 - loaded when it is used

        known += redis_py.tls_options()
    return known


def _path(kind: str, path: str, db: str | None) -> tuple[str, int]:
    """Return the service and the database."""
    segments = [] if kind == "unix" else [_unquoted(segment) for segment in path.split("/") if segment]
    service = ""
    if kind == "sentinel":
        if not segments:
            raise _error("must name the service: redis+sentinel://host,host/service/db")
        service = segments.pop(0)
    if db is not None:
        segments.append(db)
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
