"""The libraries that are compared: their versions, where they are installed, and how their runner starts.

Nothing is installed into this repository or its environment: each Python library gets an environment of its
own, the Node ones share a `node_modules`, all in ``~/.cache/jobqueue-bench`` (``JOBQUEUE_BENCH_CACHE`` names
another directory).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("JOBQUEUE_BENCH_CACHE") or Path.home() / ".cache" / "jobqueue-bench")
NODE = ("node@22.23.3", "ioredis@6.0.0", "bullmq@6.7.0", "@platformatic/job-queue@0.5.0", "pg@8.23.1")


@dataclass(frozen=True)
class Peer:
    """A library and the amount of work that takes it a few seconds."""

    name: str
    title: str
    warmup: int
    jobs: int
    packages: tuple[str, ...] = ()
    """What pip installs for it; empty for Node and for this library."""

    @property
    def node(self) -> bool:
        """Whether it is a Node library."""
        return self.name in {"bullmq", "platformatic"}

    @property
    def python(self) -> bool:
        """Whether it is another Python library."""
        return bool(self.packages)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", "jobqueue", 20_000, 100_000),
        Peer("bullmq", "BullMQ 6.7.0 (Node)", 5_000, 25_000),
        Peer("platformatic", "@platformatic/job-queue 0.5.0 (Node)", 5_000, 25_000),
        Peer("saq", "SAQ 0.26.4", 1_500, 6_000, ("saq[redis,hiredis]==0.26.4", "typing_extensions")),
        Peer("taskiq", "taskiq-redis 1.2.4", 1_500, 6_000, ("taskiq-redis==1.2.4", "hiredis", "orjson")),
        Peer("arq", "arq 0.28.0", 1_500, 6_000, ("arq==0.28.0", "redis[hiredis]")),
        Peer("streaq", "streaQ 7.2.0", 1_500, 6_000, ("streaq==7.2.0",)),
    )
}
"""Each has just under a power of two in jobs, 2¹⁷, 2¹⁵ or 2¹³, so that the server's hash tables, which grow
by doubling, are as full for one as for another."""

POSTGRES_PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", "jobqueue", 2_000, 20_000),
        Peer("awa", "awa 0.6.9 (Rust core)", 500, 3_000, ("awa-pg==0.6.9",)),
        Peer("pgqueuer", "PgQueuer 1.6.0", 1_000, 8_000, ("pgqueuer==1.6.0", "asyncpg==0.32.0")),
        Peer(
            "procrastinate", "Procrastinate 3.10.0", 200, 1_000,
            ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
        ),
        Peer("platformatic", "@platformatic/job-queue 0.5.0 (Node)", 200, 1_000),
    )
}  # fmt: skip
"""Those that are compared on PostgreSQL."""


def install(peer: Peer) -> None:
    """Install a library, unless it is there in this version."""
    if peer.node:
        _install(CACHE / "node", NODE, ["npm", "install", "--no-audit", "--no-fund", "--silent"])
    elif peer.python:
        directory = CACHE / f"{peer.name}-py"
        if not (directory / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _install(directory, (*peer.packages, "uvloop"), pip)


def _install(directory: Path, packages: tuple[str, ...], command: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    note = directory / "installed"
    wanted = "\n".join(packages)
    if not note.exists() or note.read_text() != wanted:
        subprocess.run([*command, *packages], cwd=directory, check=True, timeout=600)
        note.write_text(wanted)


def command(peer: Peer) -> list[str]:
    """Return how its runner is started, after `install`."""
    if peer.node:
        # A Node module finds its packages beside itself.
        for module in HERE.glob("*.mjs"):
            shutil.copy(module, CACHE / "node")
        program = CACHE / "node" / f"run_{peer.name}.mjs"
        return [str(CACHE / "node" / "node_modules" / ".bin" / "node"), str(program)]
    python = str(CACHE / f"{peer.name}-py" / "bin" / "python") if peer.python else sys.executable
    return [python, str(HERE / f"run_{peer.name}.py")]
