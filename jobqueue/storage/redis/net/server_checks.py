"""Judges whether a server may hold jobs, at start-up and for ``jobqueue doctor``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.redis.net.faults import RIGHTS

__all__ = [
    "is_modern",
    "judge",
    "judge_all",
    "judge_rights",
    "parse_info",
    "version_of",
]

MIN_VERSION = (6, 2)
"""The first version with ``LMOVE`` and ``LPOP count``."""
MODERN_VERSION = (7, 0)
"""The first version with script flags and sharded pub/sub."""

PUBLISHES = frozenset({"PUBLISH", "SPUBLISH"})
WRITES = frozenset({"HSET", "HDEL", "RPUSH", "ZADD"})
"""Commands that every user with any right to write has."""


def parse_info(reply: bytes) -> dict[str, str]:
    """Read the answer of INFO."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def version_of(info: Mapping[str, str]) -> tuple[int, int]:
    """Return the version of Redis that the server behaves like; (0, 0) if it does not say."""
    # Valkey gives the Redis version that it is compatible with.
    found = re.match(r"(\d+)\.(\d+)", info.get("redis_version", ""))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def is_modern(infos: Mapping[str, bytes | None]) -> bool:
    """Return whether all masters, by their INFOs, know script flags and sharded pub/sub.

    A master without an answer counts as a current one.
    """
    known = (parse_info(reply) for reply in infos.values() if reply is not None)
    return all(version_of(info) >= MODERN_VERSION for info in known if info)


def judge_all(infos: Mapping[str, bytes | None], *, allow_eviction: bool) -> list[Finding]:
    """Judge all masters by their INFOs: for each check the worst finding, which names masters that differ.

    Where a master did not answer (``None``), that is a finding too.
    """
    found: dict[str, dict[Finding, list[str]]] = {}
    for address, reply in infos.items():
        if reply is not None:
            for finding in judge(parse_info(reply), allow_eviction=allow_eviction):
                found.setdefault(finding.name, {}).setdefault(finding, []).append(address)
    findings = [_merged(name, alike) for name, alike in found.items()]
    silent = [address for address, reply in infos.items() if reply is None]
    if silent:
        text = f"no answer from {', '.join(silent)}: not checked, and calls for its queues wait"
        findings.append(Finding("nodes", Severity.WARNING, text))
    return findings


def _merged(name: str, alike: Mapping[Finding, list[str]]) -> Finding:
    if len(alike) == 1:
        return next(iter(alike))
    worst = max((finding.severity for finding in alike), key=list(Severity).index)
    text = "; ".join(f"{', '.join(addresses)}: {finding.text}" for finding, addresses in alike.items())
    return Finding(name, worst, text)


def judge(info: Mapping[str, str], *, allow_eviction: bool) -> list[Finding]:
    """Judge a server by its INFO."""
    return [
        _version(info),
        _eviction(info, allow_eviction=allow_eviction),
        _role(info),
        _persistence(info),
    ]


def judge_rights(refused: Mapping[str, str]) -> Finding:
    """Judge the commands of the scripts that the server refuses, given with its errors.

    Without `PUBLISHES` everything works, by polling. A user who may write nothing at all is there to look.
    """
    if not refused:
        return Finding("rights", Severity.OK, "every command of the scripts is allowed")
    text = f"the server refuses {', '.join(refused)} ({next(iter(refused.values()))}). {RIGHTS}"
    if PUBLISHES.issuperset(refused):
        text = f"results and cancel requests are not pushed but come by polling: {text}"
    elif not WRITES.issubset(refused):
        return Finding("rights", Severity.ERROR, text)
    return Finding("rights", Severity.WARNING, text)


def _version(info: Mapping[str, str]) -> Finding:
    version = version_of(info)
    valkey = info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"Redis {version[0]}.{version[1]}"
    if version == (0, 0):
        return Finding("version", Severity.WARNING, "the server does not tell its version: 6.2 is needed")
    if version < MIN_VERSION:
        return Finding("version", Severity.ERROR, f"{name} is too old: use Redis 6.2 or later, or Valkey")
    return Finding("version", Severity.OK, name)


def _eviction(info: Mapping[str, str], *, allow_eviction: bool) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return Finding("eviction", Severity.OK, "maxmemory-policy is noeviction")
    if policy == "unknown":
        text = "the server does not tell its maxmemory-policy: it must be noeviction"
        return Finding("eviction", Severity.WARNING, text)
    text = (
        f"maxmemory-policy is {policy}: the server may drop jobs. Run CONFIG SET maxmemory-policy noeviction"
    )
    if allow_eviction:
        return Finding("eviction", Severity.WARNING, f"{text} (allowed by allow_eviction=True)")
    return Finding("eviction", Severity.ERROR, f"{text}, or pass allow_eviction=True to take the risk")


def _role(info: Mapping[str, str]) -> Finding:
    if info.get("role", "master") == "master":
        return Finding("role", Severity.OK, "the server is a master")
    return Finding(
        "role",
        Severity.WARNING,
        "the server is a replica, which refuses writes: connect to the master, or through redis+sentinel://",
    )


def _persistence(info: Mapping[str, str]) -> Finding:
    if info.get("aof_enabled") == "1":
        return Finding("persistence", Severity.OK, "appendonly is on")
    if "aof_enabled" not in info:
        return Finding("persistence", Severity.WARNING, "the server does not tell whether it keeps its data")
    return Finding(
        "persistence",
        Severity.WARNING,
        "appendonly is off: a restart loses the jobs since the last snapshot. Set appendonly yes, and "
        "appendfsync always if no acknowledged job may be lost",
    )
