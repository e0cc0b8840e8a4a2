"""PgBouncer for tests: from PATH, or unpacked from Debian's packages into a directory of our own."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.services import STARTS_WITHIN, free_port, unavailable
from tests.storage.postgres.server import PostgresServer, other_user

PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
_APT_WITHIN = 60


def pgbouncer() -> tuple[str, dict[str, str]]:
    """Return the program, and the environment that it needs."""
    if (found := shutil.which("pgbouncer")) is not None:
        return found, {}
    root = Path(tempfile.gettempdir()) / f"jobqueue-pgbouncer-{os.getuid()}"
    program = root / "usr/sbin/pgbouncer"
    if not program.exists() and not _unpack(root):
        unavailable("pgbouncer")
    libraries = root / "usr/lib" / f"{platform.machine()}-linux-gnu"
    return str(program), {"LD_LIBRARY_PATH": str(libraries)}


def _unpack(root: Path) -> bool:
    """Unpack the packages without installing them; whether that could be done."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return False
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        directory.chmod(0o777)
        with suppress(subprocess.SubprocessError):
            if not _apt(directory, "download", *PACKAGES):  # it may know of no packages yet
                _apt(directory, "update")
                _apt(directory, "download", *PACKAGES)
        unpacked = directory / "root"
        for package in directory.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, unpacked], check=True)
        if not (unpacked / "usr/sbin/pgbouncer").exists():
            return False
        unpacked.chmod(0o755)
        shutil.copytree(unpacked, root, symlinks=True, dirs_exist_ok=True)
    return True


def _apt(directory: Path, *command: str) -> bool:
    ended = subprocess.run(
        ["apt-get", "-q", *command], cwd=directory, capture_output=True, timeout=_APT_WITHIN, check=False
    )
    return ended.returncode == 0


class Pooler:
    """A PgBouncer in transaction mode before a server. ``settings`` are lines of its section."""

    def __init__(self, server: PostgresServer, **settings: str) -> None:
        program, environment = pgbouncer()
        self.port = free_port()
        self.dir = Path(tempfile.mkdtemp(prefix="jobqueue-pgbouncer-"))
        self.dir.chmod(0o777)
        lines = {
            "listen_addr": "127.0.0.1", "listen_port": str(self.port), "unix_socket_dir": "",
            "auth_type": "any", "pool_mode": "transaction", "default_pool_size": "3", **settings,
        }  # fmt: skip
        config = self.dir / "pgbouncer.ini"
        database = f"host=127.0.0.1 port={server.port} dbname=postgres user=jq"
        config.write_text(
            f"[databases]\npostgres = {database}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        with (self.dir / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*other_user(), program, "-q", config], cwd="/", env={**os.environ, **environment},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"postgresql://jq@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def start(self) -> Pooler:
        """Wait until it answers."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"pgbouncer ended: {(self.dir / 'log').read_text()[-2000:]}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return self
            time.sleep(0.02)
        raise RuntimeError("pgbouncer did not start in time")

    def remove(self) -> None:
        self.process.kill()
        self.process.wait(10)
        shutil.rmtree(self.dir, ignore_errors=True)
