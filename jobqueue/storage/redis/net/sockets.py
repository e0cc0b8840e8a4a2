"""Socket options."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["KEEPALIVE", "is_self_connected", "keep_alive", "unsent"]

_IDLE, _INTERVAL, _PROBES = 30, 10, 3

KEEPALIVE: dict[int, int | bytes] = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", _IDLE), ("TCP_KEEPINTVL", _INTERVAL), ("TCP_KEEPCNT", _PROBES))
    if hasattr(socket, name)  # not every platform has all of them
}
"""Makes the kernel notice a vanished peer within a minute instead of two hours."""


def keep_alive(transport: asyncio.BaseTransport, options: Mapping[int, int | bytes]) -> None:
    """Turn TCP keepalive on. Raises `OSError` or `TypeError` for options that the system refuses."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def is_self_connected(transport: asyncio.BaseTransport) -> bool:
    """Return whether both ends are the same socket.

    TCP allows that when nobody listens on a local port from the range that the kernel gives to clients.
    """
    name: object = transport.get_extra_info("sockname")
    return isinstance(name, tuple) and name == transport.get_extra_info("peername")


def unsent(transport: asyncio.Transport) -> int:
    """Return how many bytes were written and not delivered yet, as far as that is known."""
    sock = transport.get_extra_info("socket")
    queued = 0 if sock is None or sock.fileno() < 0 else _queued(sock.fileno())
    return transport.get_write_buffer_size() + queued


def _queued(fd: int) -> int:
    """Return the bytes in the kernel's own queue: megabytes, which take a minute over a slow link."""
    with suppress(ImportError, OSError):  # not every platform tells
        import fcntl  # noqa: PLC0415
        import termios  # noqa: PLC0415

        size: int = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4))[0]
        return size
    return 0
