"""The libraries of the comparison: how their workers start, with which settings, and what they promise."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers import CACHE, PEERS, Peer, install

__all__ = ["CONTENDERS", "Contender"]

OTHERS = Path(__file__).resolve().parent / "others"
ROOT = OTHERS.parents[2]
PYTHON = "python"
NODE = "node"


@dataclass(frozen=True)
class Contender:
    """A library, and how it is run as its documentation says for jobs that must not be lost."""

    peer: Peer
    slots: int
    """Jobs that a worker runs at once."""
    settings: str
    """What differs from its defaults."""
    promise: str
    """What its documentation says of a worker that dies."""
    worker: tuple[str, ...]
    """The command, beginning with a program of its environment."""
    environ: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        """Its short name."""
        return self.peer.name

    @property
    def directory(self) -> Path:
        """Where its processes start: a Node module finds its packages beside itself."""
        return CACHE / "node" if self.peer.node else OTHERS

    def install(self) -> None:
        """Install the library where it is missing."""
        install(self.peer)
        if self.peer.node:
            for module in OTHERS.glob("*.mjs"):
                (CACHE / "node" / module.name).write_bytes(module.read_bytes())

    def work(self) -> list[str]:
        """Return the command of a worker."""
        return [self._program(self.worker[0]), *self.worker[1:]]

    def produce(self) -> list[str]:
        """Return the command of the producer."""
        if self.peer.node:
            return [self._program(NODE), f"{self.name}_app.mjs", "produce"]
        return [self._program(PYTHON), f"{self.name}_app.py", "produce"]

    def _program(self, name: str) -> str:
        if self.peer.node:
            return str(CACHE / "node" / "node_modules" / ".bin" / name)
        return str(CACHE / f"{self.name}-py" / "bin" / name) if self.peer.python else sys.executable


def _python(name: str, title: str, *packages: str) -> Peer:
    """Return a library that the benchmarks of speed leave out."""
    return Peer(name, title, 0, 0, packages)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            PEERS["ours"],
            8,
            "lease 5 s, a `Reaper` in each worker, none elected, that sweeps every 1 s",
            "runs again when its lease is over; one outcome",
            (PYTHON, "ours_app.py", "work"),
            {"PYTHONPATH": str(ROOT)},
        ),
        Contender(
            PEERS["saq"],
            8,
            "`timeout` 5 s, `retries` 5, sweep timer 1 s",
            "the sweep retries jobs that are stuck longer than their timeout",
            ("saq", "saq_app.settings", "--quiet"),
        ),
        Contender(
            PEERS["arq"],
            8,
            "`job_timeout` 5 s, `poll_delay` 0.05 s",
            "jobs may run more than once; one of a dead worker runs again",
            ("arq", "arq_app.WorkerSettings"),
        ),
        Contender(
            PEERS["taskiq"],
            8,
            "stream broker, `idle_timeout` and lock timeout 5 s, `xread_count` 8, acknowledged when saved",
            "unacknowledged messages are claimed by another worker",
            ("taskiq", "worker", "--workers", "1", "--max-async-tasks", "8", "--ack-type", "when_saved",
             "--log-level", "ERROR", "taskiq_app:broker"),
        ),
        Contender(
            PEERS["streaq"],
            8,
            "`idle_timeout` 5 s, `max_tries` 5",
            "at least once, by default",
            ("streaq", "run", "streaq_app:worker"),
        ),
        Contender(
            _python("rq", "RQ 3.0.0", "rq==3.0.0"),
            1,
            "six workers, `Retry(max=5)`, `job_timeout` 5 s, monitoring and maintenance every 1 s",
            "an abandoned job is failed, or retried if it has retries left",
            (PYTHON, "rq_app.py", "work"),
        ),
        Contender(
            _python("celery", "Celery 5.7.0", "celery[redis]==5.7.0"),
            8,
            "`task_acks_late`, `task_reject_on_worker_lost`, prefetch 1, `visibility_timeout` and "
            "`unacked_mutex_expire` 5 s, restored every 1 s",
            "with late acknowledgement, runs again after the visibility timeout",
            ("celery", "--app", "celery_app", "worker", "--loglevel", "ERROR"),
        ),
        Contender(
            _python("dramatiq", "Dramatiq 2.2.1", "dramatiq[redis]==2.2.1"),
            8,
            "`heartbeat_timeout` 5 s, `maintenance_chance` 10 %, results middleware",
            "at least once: messages of dead workers are put back",
            ("dramatiq", "dramatiq_app", "--processes", "1", "--threads", "8"),
        ),
        Contender(
            PEERS["bullmq"],
            8,
            "`lockDuration` 5 s, `stalledInterval` 1 s, `maxStalledCount` 5",
            "at least once: stalled jobs are moved back to wait",
            (NODE, "bullmq_app.mjs", "work"),
        ),
        Contender(
            PEERS["platformatic"],
            8,
            "`visibilityTimeout` 5 s, a Reaper in each worker, elected, `lockTTL` 5 s",
            "the Reaper puts jobs of crashed workers back",
            (NODE, "platformatic_app.mjs", "work"),
        ),
    )
}  # fmt: skip
"""In the order of the table."""
