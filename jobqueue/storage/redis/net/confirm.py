"""Waiting until new jobs are on replicas or on the disk: ``WAIT`` and ``WAITAOF``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobqueue.errors import InvalidArgumentError, Reached, StorageError
from jobqueue.model.checks import check_bool, check_count, check_seconds, millis
from jobqueue.storage.redis.net.server_checks import version_of

__all__ = ["Confirm", "check_confirm", "check_server"]

WAITAOF_VERSION = (7, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """The safety that new jobs must have before their insertion is answered.

    ``replicas`` (default 0) copies of the data have them: in memory, or with ``local_fsync=True``
    on their disks. ``local_fsync`` (default False): the server itself has them on its disk, by its
    append-only file; needs Redis 7.2 or Valkey. All that within ``timeout`` seconds (default 1), else
    `NotConfirmedError`.

    Raises `InvalidArgumentError` if nothing is asked for, or a value is out of range.
    """

    replicas: int = 0
    local_fsync: bool = False
    timeout: float = 1.0

    def __post_init__(self) -> None:
        check_count("replicas", self.replicas, low=0, high=1000)
        check_bool("local_fsync", self.local_fsync)
        check_seconds("timeout", self.timeout)
        if not self.replicas and not self.local_fsync:
            raise InvalidArgumentError(
                "replicas", "must be at least 1, or local_fsync True: nothing is asked"
            )

    @property
    def command(self) -> tuple[bytes | int, ...]:
        """The command that waits; a connection that sends it is blocked meanwhile."""
        most = max(1, millis(self.timeout))  # 0 would be for ever
        return (b"WAITAOF", 1, self.replicas, most) if self.local_fsync else (b"WAIT", self.replicas, most)

    @property
    def trial(self) -> tuple[bytes, ...]:
        """The same command, asking for nothing: it fails where the real one would be refused."""
        return (b"WAITAOF", b"0", b"0", b"1") if self.local_fsync else (b"WAIT", b"0", b"1")

    def read(self, reply: Any) -> Reached:
        """Read the answer of `command`."""
        local, replicas = reply if self.local_fsync else (0, reply)
        return Reached(bool(local), int(replicas))


def check_confirm(confirm: object) -> Confirm | None:
    """Return a valid ``confirm`` option. Raises `InvalidArgumentError`."""
    if confirm is not None and not isinstance(confirm, Confirm):
        raise InvalidArgumentError("confirm", f"must be a Confirm or None, not {type(confirm).__name__}")
    return confirm


def check_server(confirm: Confirm, info: Mapping[str, str]) -> None:
    """Raise `StorageError` if a server, by its INFO, can never confirm."""
    if not confirm.local_fsync:
        return
    version = version_of(info)
    if (0, 0) < version < WAITAOF_VERSION:
        raise StorageError(
            f"Confirm(local_fsync=True) needs WAITAOF, which Redis {version[0]}.{version[1]} lacks: "
            "use Redis 7.2 or later, or Valkey; or Confirm(replicas=...) alone"
        )
    if info.get("aof_enabled", "1") != "1":
        raise StorageError("Confirm(local_fsync=True) needs an append-only file: set appendonly yes")
