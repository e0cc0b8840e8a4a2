"""Reports readiness to a process manager: systemd, or the parent fleet.

Two managers, one vocabulary: systemd, through the datagram socket that it names in
``NOTIFY_SOCKET`` (the protocol of ``sd_notify(3)``), and `jobqueue.cli.serving.fleet`, through a socket that
the child inherits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Protocol

__all__ = ["LINK_VARIABLE", "FleetLink", "Notifier", "Systemd", "notifiers"]

LINK_VARIABLE = "JOBQUEUE_FLEET_FD"
"""Environment variable with the descriptor of the link between a fleet and its child."""


class Notifier(Protocol):
    """The connection to one process manager."""

    watchdog: float | None
    """Seconds of silence after which this process counts as hung; ``None``: it is not watched."""

    def tell(self, *states: str) -> None:
        """Send assignments such as ``READY=1``. Never raises: a deaf manager stops no work."""

    async def follow(self) -> None:
        """Obey the manager's messages, until cancelled."""


class Systemd:
    """The service manager of the host."""

    def __init__(self, address: str, watchdog: float | None) -> None:
        self.watchdog = watchdog
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def tell(self, *states: str) -> None:
        """Send one datagram."""
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.settimeout(0)
            out.sendto("\n".join(states).encode(), self._address)

    async def follow(self) -> None:
        """Do nothing: systemd sends signals instead."""
        await asyncio.Event().wait()


class FleetLink:
    """The parent that started this process with ``--processes`` or ``--reload``."""

    watchdog: float | None = 2.0

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._socket.settimeout(0)

    def tell(self, *states: str) -> None:
        """Send one line for each."""
        with suppress(OSError):
            self._socket.send("".join(f"{state}\n" for state in states).encode())

    async def follow(self) -> None:
        """Stop this process when the parent has gone, since no other would end or restart it."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while await loop.sock_recv(self._socket, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)


def notifiers(environ: MutableMapping[str, str]) -> list[Notifier]:
    """Find the process managers; remove their variables, so that children do not report for us."""
    found: list[Notifier] = []
    link = environ.pop(LINK_VARIABLE, None)
    if link is not None and link.isdecimal():
        found.append(FleetLink(int(link)))
    address = environ.pop("NOTIFY_SOCKET", "")
    watchdog = environ.pop("WATCHDOG_USEC", "")
    for_pid = environ.pop("WATCHDOG_PID", "")
    if address.startswith(("/", "@")):
        watched = watchdog.isdecimal() and int(watchdog) > 0 and for_pid in {"", str(os.getpid())}
        found.append(Systemd(address, int(watchdog) / 1e6 if watched else None))
    return found
