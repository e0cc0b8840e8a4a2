"""Redis Cluster: finds the node of a key, and follows keys that move.

All keys of a queue have one hash tag and so one slot; a call goes to the node of that slot. ``MOVED``
corrects the map and the call goes on at once; ``ASK`` is followed for the one call; a lost node makes the
map be read again from any other. Messages use sharded pub/sub: they stay on the node of their queue or lock,
where plain ones are sent to every other node of the cluster.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Sequence
from typing import Any, Protocol

from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.net.connection import Connection, ReplyError
from jobqueue.storage.redis.net.faults import ConnectionLostError, Remedy, remedy_for
from jobqueue.storage.redis.net.login import Timeouts, connect
from jobqueue.storage.redis.net.routes import PubSubCommands
from jobqueue.storage.redis.net.scripts import Script
from jobqueue.storage.redis.net.shared_connection import SharedConnection, run_confirmed, run_script
from jobqueue.storage.redis.net.target import Address, Target
from jobqueue.storage.redis.net.transport import Retries

__all__ = ["ClusterNodes", "ClusterTransport", "ShardRoute", "slot_of"]

log = get_logger("jobqueue.storage.redis")

SLOTS = 16384
_MOST_REDIRECTS = 5


def slot_of(key: bytes) -> int:
    """Return the slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


class ClusterNodes:
    """The map of the slots, and connections to the nodes. Also the `Connector` of other connections."""

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._seeds = target.addresses
        self._login = target.login
        self._remap = target.remap
        self._timeouts = timeouts
        self._slots: dict[int, Address] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._links: dict[tuple[Address, str], SharedConnection] = {}
        self._suspects: set[Address] = set()
        """Nodes that did not answer the last time: the others are asked first where the slots are."""

    async def __call__(self, kind: str, key: bytes | None = None) -> Connection:
        """Connect outside the shared connections; the map is read anew, since this follows a fault."""
        await self.refresh()
        return await self.connect(self._node(None if key is None else slot_of(key)), kind)

    async def node(self, slot: int | None) -> Address:
        """Return the node of a slot, or any node."""
        if not self._slots or (slot is not None and slot not in self._slots):
            await self.refresh()
        return self._node(slot)

    async def masters(self) -> list[Address]:
        """Return all nodes that hold slots, read anew."""
        await self.refresh()
        return list(dict.fromkeys(self._slots.values()))

    def link_to(self, address: Address, kind: str = "command") -> SharedConnection:
        """Return the shared connection to a node, one for each kind of use."""
        link = self._links.get((address, kind))
        if link is None:
            link = self._links[address, kind] = SharedConnection(lambda: self.connect(address, kind))
        return link

    async def connect(self, address: Address, kind: str) -> Connection:
        """Connect to a node, outside the shared connections."""
        try:
            connection = await connect(address, self._login, kind, self._timeouts)
        except ConnectionLostError:
            self.suspect(address)
            raise
        self._suspects.discard(address)
        return connection

    def suspect(self, address: Address) -> None:
        """Note that a node does not answer: its slots may be at another one now."""
        self._suspects.add(address)
        self.doubt()

    def move(self, slot: int, address: Address) -> None:
        """Note the new node of a slot."""
        self._slots[slot] = address

    def reachable(self, host: str, port: int) -> Address:
        """Return the address to connect to for one that the cluster tells."""
        if self._remap is None:
            return Address(host, port)
        try:
            host, port = self._remap((host, port))
            return Address(str(host), int(port))
        except Exception as error:
            raise ConnectionLostError(f"address_remap of the client failed: {error}") from error

    def doubt(self) -> None:
        """Forget the slot map; the next use re-reads it."""
        self._slots.clear()

    async def refresh(self) -> None:
        """Read the map of the slots from any node. Callers at the same time share one reading."""
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._read())
        reading = self._refreshing
        await asyncio.wait([reading])
        if self._refreshing is reading:
            self._refreshing = None
        if reading.cancelled():
            raise ConnectionLostError("the store was closed")
        reading.result()

    async def close(self) -> None:
        """End all shared connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def _node(self, slot: int | None) -> Address:
        if slot is None:
            return next(iter(self._slots.values()))
        address = self._slots.get(slot)
        if address is None:
            raise ConnectionLostError(f"no node of the cluster holds slot {slot} now")
        return address

    async def _read(self) -> None:
        problem = "no node was asked"
        known = dict.fromkeys((*(address for address, _ in self._links), *self._seeds))
        for address in sorted(known, key=self._suspects.__contains__):
            try:
                connection = await self.link_to(address).connected()
                ranges = await connection.send(b"CLUSTER", b"SLOTS")
            except (ConnectionLostError, ReplyError) as error:
                problem = f"{address}: {error}"
                continue
            slots: dict[int, Address] = {}
            for first, last, (host, port, *_), *_replicas in ranges:
                # A node that does not know its own address leaves it out: it is the one that was asked.
                node = self.reachable(host.decode(), port) if host else Address(address.host, port)
                slots.update(dict.fromkeys(range(first, last + 1), node))
            if slots:
                self._slots = slots
                self._forget_others({*slots.values(), *self._seeds})
                return
            problem = f"{address} knows no slots"
        raise ConnectionLostError(f"no node tells where the slots are; the last problem: {problem}")

    def _forget_others(self, nodes: set[Address]) -> None:
        """Drop the connections to nodes that have left the cluster."""
        self._links = {key: link for key, link in self._links.items() if key[0] in nodes or link.in_use}
        self._suspects &= nodes


class _Send(Protocol):
    async def __call__(self, connection: Connection, *, asking: bool) -> Any: ...


def _redirect(message: str, asked: Address, nodes: ClusterNodes) -> tuple[int, Address]:
    """Read ``MOVED slot host:port``; without a host, it is the host of the node that answered."""
    _, slot, address = message.split()[:3]
    host, _, port = address.rpartition(":")
    return int(slot), nodes.reachable(host, int(port)) if host else Address(asked.host, int(port))


class ShardRoute:
    """Messages come to the node of their channel's slot."""

    words = PubSubCommands(b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"smessage")

    def __init__(self, nodes: ClusterNodes) -> None:
        self._nodes = nodes

    async def find(self, channel: bytes) -> Address:
        return await self._nodes.node(slot_of(channel))

    async def connect(self, place: Address) -> Connection:
        return await self._nodes.connect(place, "pubsub")

    def doubt(self) -> None:
        self._nodes.doubt()


class ClusterTransport:
    """A transport to the nodes of a cluster."""

    def __init__(self, nodes: ClusterNodes, retries: Retries, where: str) -> None:
        self._nodes = nodes
        self._retries = retries
        self._where = where
        self.flags = True

    async def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        confirm: Confirm | None = None,
    ) -> Any:
        async def send(connection: Connection, *, asking: bool) -> Any:
            if confirm is None:
                return await run_script(connection, script, keys, args, flags=self.flags, asking=asking)
            return await run_confirmed(
                connection, script, keys, args, confirm, flags=self.flags, asking=asking
            )

        kind = "command" if confirm is None else "confirm"
        return await self._follow(send, slot_of(keys[0]), script.name, kind)

    async def command(self, *command: bytes, key: bytes | None = None) -> Any:
        async def send(connection: Connection, *, asking: bool) -> Any:
            if asking:
                await connection.send(b"ASKING")
            return await connection.send(*command)

        return await self._follow(send, None if key is None else slot_of(key), command[0].decode())

    async def everywhere(self, *command: bytes) -> dict[str, Any]:
        async def ask(address: Address) -> Any:
            try:
                # Of its own: most processes never need a shared one to every node.
                connection = await self._nodes.connect(address, "check")
                try:
                    return await connection.send(*command)
                finally:
                    await connection.close("asked")
            except (ConnectionLostError, ReplyError) as error:
                if isinstance(error, ReplyError) and remedy_for(error.code) is not Remedy.PAUSE:
                    raise
                log.debug("%s: %s does not answer: %s", self._where, address, error)
                return None

        async def attempt() -> dict[str, Any]:
            masters = await self._nodes.masters()
            replies = await asyncio.gather(*map(ask, masters))
            if all(reply is None for reply in replies):
                self._nodes.doubt()
                raise ConnectionLostError("no master answers")
            return dict(zip(map(str, masters), replies, strict=True))

        replies: dict[str, Any] = await self._retries.run(attempt, f"{self._where}: {command[0].decode()}")
        return replies

    async def close(self) -> None:
        await self._nodes.close()

    async def _follow(self, send: _Send, slot: int | None, what: str, kind: str = "command") -> Any:
        async def attempt() -> Any:
            node, asking = await self._nodes.node(slot), False
            for _ in range(_MOST_REDIRECTS):
                try:
                    return await send(await self._nodes.link_to(node, kind).connected(), asking=asking)
                except ConnectionLostError:
                    self._nodes.suspect(node)
                    raise
                except ReplyError as error:
                    code = error.code
                    if code in {"CLUSTERDOWN", "READONLY", "MASTERDOWN"}:
                        self._nodes.doubt()
                    if code not in {"MOVED", "ASK"}:
                        raise
                    moved, node = _redirect(str(error), node, self._nodes)
                    asking = code == "ASK"
                    if not asking:
                        self._nodes.move(moved, node)
            raise ConnectionLostError("the nodes send each other's clients around in a circle")

        return await self._retries.run(attempt, f"{self._where}: {what}")
