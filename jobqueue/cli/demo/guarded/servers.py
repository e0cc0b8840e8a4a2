"""The servers of the demo: a Redis that keeps nothing, and a PostgreSQL where none is given."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobqueue.cli.exits import Failure
from jobqueue.runtime.clock import SYSTEM_CLOCK

__all__ = ["Postgres", "Redis", "postgres_binaries", "redis_binary"]

STARTS_WITHIN = 15.0
ENDS_WITHIN = 10.0
_DEBIAN = Path("/usr/lib/postgresql")


def redis_binary() -> str:
    """Return the path of ``redis-server`` or ``valkey-server``. Raises `Failure`."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise Failure("demo --guard starts a Redis of its own: install redis-server or valkey-server")
    return found


def postgres_binaries() -> Path | None:
    """Return where ``postgres`` and ``initdb`` are; ``None`` if they are not found."""
    found = shutil.which("postgres")
    places = [] if found is None else [Path(found).resolve().parent]
    places += sorted(_DEBIAN.glob("*/bin"), reverse=True)
    return next(
        (place for place in places if all((place / name).exists() for name in ("postgres", "initdb"))), None
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class _Server:
    """A process with a directory of its own, which goes with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = _free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"jobqueue-demo-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def _spawn(self, command: list[str], **options: Any) -> None:
        with (self.directory / "log").open("ab") as log:
            start: Any = subprocess.Popen  # with options that no overload of it names
            process: subprocess.Popen[bytes] = start(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **options
            )
        self._process = process
        give_up_at = SYSTEM_CLOCK.monotonic() + STARTS_WITHIN
        while not self._answers():
            if process.poll() is not None or SYSTEM_CLOCK.monotonic() > give_up_at:
                text = (self.directory / "log").read_text(errors="replace")[-500:]
                raise Failure(f"{self.name} does not start: {text.strip() or 'it says nothing'}")
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """End it, and delete what it has."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)


class Redis(_Server):
    """A server without persistence: whatever it has is gone with its process."""

    def __init__(self, binary: str) -> None:
        super().__init__("redis")
        self._binary = binary
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty, and wait until it answers. Raises `Failure`."""
        self._spawn([
            self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self.directory), "--loglevel", "warning",
        ])  # fmt: skip


class Postgres(_Server):
    """A server with the durability that it has by default."""

    def __init__(self, binaries: Path) -> None:
        super().__init__("postgres")
        self._binaries = binaries
        self.url = f"postgresql://demo@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def start(self) -> None:
        """Make its data, start it and wait until it answers. Raises `Failure`."""
        options, data = self._user(), str(self.directory / "data")
        call: Any = subprocess.run  # with options that no overload of it names
        made: subprocess.CompletedProcess[bytes] = call(
            [
                str(self._binaries / "initdb"), "-D", data, "-U", "demo", "-A", "trust", "-E", "UTF8",
                "--no-sync",
            ],
            capture_output=True, stdin=subprocess.DEVNULL, check=False, cwd="/",
            env={**os.environ, "LC_ALL": "C"}, **options,
        )  # fmt: skip
        if made.returncode:
            raise Failure(f"PostgreSQL makes no data: {made.stderr.decode(errors='replace').strip()[-500:]}")
        self._spawn(
            [
                str(self._binaries / "postgres"), "-D", data, "-p", str(self.port), "-h", "127.0.0.1",
                "-k", str(self.directory), "-c", "logging_collector=off",
            ],
            cwd="/", **options,
        )  # fmt: skip

    def _user(self) -> dict[str, Any]:
        """Return what runs a command as somebody who is not root, whom PostgreSQL refuses."""
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                user = pwd.getpwnam(name)
                os.chown(self.directory, user.pw_uid, user.pw_gid)
                return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        raise Failure(
            "PostgreSQL does not run as root, and there is no user postgres or nobody: use --ledger"
        )

    def _answers(self) -> bool:
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"
