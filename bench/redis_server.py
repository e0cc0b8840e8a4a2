"""A private Redis server, and what it has used."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import hiredis

STARTS_WITHIN = 10.0


@dataclass(frozen=True)
class Load:
    """Readings of the server's counters, or the difference of two."""

    cpu: float
    """Seconds of processor time, user and system."""
    commands: int
    """What it has run, with what scripts call."""
    memory: int
    """Bytes in use."""

    def __sub__(self, earlier: Load) -> Load:
        return Load(self.cpu - earlier.cpu, self.commands - earlier.commands, self.memory - earlier.memory)


class RedisServer:
    """Lives as long as its context, on a free port of the loopback; no persistence but by ``options``."""

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> Self:
        binary = shutil.which("redis-server")
        if binary is None:
            raise SystemExit("redis-server is not on PATH: install it first")
        self._directory = tempfile.TemporaryDirectory(prefix="jobqueue-bench-")
        self.socket_path = str(Path(self._directory.name) / "redis.sock")
        self.port = _free_port()
        self._command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket_path,
            "--dir", self._directory.name, "--save", "", "--loglevel", "warning", *self._options,
        ]  # fmt: skip
        self.start()
        self.version = self._info("server")["redis_version"]
        return self

    def start(self) -> None:
        """Start it (again) on its port, with the data that it has on disk, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def _wait(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                if self.command("PING") == b"PONG":  # and not that it is still loading
                    return
            time.sleep(0.01)
        self.__exit__()
        raise SystemExit("redis-server did not start")

    def command(self, *words: str) -> object:
        """Run one command on a connection of its own."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(self.socket_path)
            command: tuple[Any, ...] = words
            sock.sendall(hiredis.pack_command(command))
            reader = hiredis.Reader()
            while (reply := reader.gets()) is False:
                reader.feed(sock.recv(65_536))
        return reply

    def empty(self) -> None:
        """Delete everything."""
        self.command("FLUSHALL", "SYNC")

    def load(self) -> Load:
        """Read the counters."""
        cpu, stats, memory = self._info("cpu"), self._info("commandstats"), self._info("memory")
        commands = sum(int(text.partition("calls=")[2].partition(",")[0]) for text in stats.values())
        seconds = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return Load(seconds, commands, int(memory["used_memory"]))

    def settled(self) -> Load:
        """Read the counters once the connections of a process that has ended are cleared away."""
        deadline = time.monotonic() + 5
        while int(self._info("clients")["connected_clients"]) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        return self.load()

    def _info(self, section: str) -> dict[str, str]:
        info = self.command("INFO", section)
        assert isinstance(info, bytes)
        return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
