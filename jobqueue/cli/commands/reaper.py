"""The command ``reaper``: recovers the jobs of dead workers."""

from __future__ import annotations

import os

import click

from jobqueue.cli.banner import reaper_banner
from jobqueue.cli.client import shared_storage
from jobqueue.cli.exits import Failure
from jobqueue.cli.logs import configure_logging, log_options
from jobqueue.cli.options import option, queue_name, seconds, storage_option
from jobqueue.cli.running import run_fast
from jobqueue.cli.serving.health import health_options
from jobqueue.cli.serving.metrics import exporter
from jobqueue.cli.serving.notify import notifiers
from jobqueue.cli.serving.serving import serve
from jobqueue.maintenance.leadership import LeaderElection
from jobqueue.maintenance.reaper import Reaper

__all__ = ["reaper"]


@click.command()
@storage_option()
@option("-q", "--queue", type=queue_name, metavar="NAME", multiple=True, show_default=False,
        help="Only this queue; may be repeated.  [default: all in the store]")  # fmt: skip
@option("--sweep-interval", type=seconds, default=5.0, help="Seconds between two sweeps.")
@option("--leader-election", is_flag=True, help="Sweep only while this is the elected reaper of several.")
@option("--lock-ttl", type=seconds, show_default=False,
        help="Seconds that leadership outlives a dead leader.  [default: 30]")  # fmt: skip
@option("--renewal-interval", type=seconds, show_default=False,
        help="Seconds between two renewals by the leader.  [default: a third of --lock-ttl]")  # fmt: skip
@option("--acquire-retry-interval", type=seconds, show_default=False,
        help="Seconds between two tries of a follower.  [default: a sixth of --lock-ttl]")  # fmt: skip
@health_options()
@log_options()
def reaper(
    *,
    storage: str,
    queue: tuple[str, ...],
    sweep_interval: float,
    lock_ttl: float | None,
    renewal_interval: float | None,
    acquire_retry_interval: float | None,
    health_port: int | None,
    health_host: str,
    log_level: str,
    log_format: str,
    leader_election: bool,
) -> None:
    """Recover the jobs of dead workers and delete expired ones, until SIGTERM or Ctrl-C.

    Any number of reapers may run; with --leader-election one of them works and the others stand by.
    """
    configure_logging(log_level, log_format)
    intervals = (lock_ttl, renewal_interval, acquire_retry_interval)
    if leader_election:
        election = _election(*intervals)
    elif any(interval is not None for interval in intervals):
        raise Failure.usage("lock and renewal intervals say nothing without --leader-election: add it")
    else:
        election = None

    async def run() -> None:
        store = shared_storage(storage, make=True)
        made = Reaper(store, queue or None, sweep_interval=sweep_interval, leader_election=election)
        reaper_banner(store, queue, sweep_interval, election=leader_election)
        metrics = None if health_port is None else exporter(made)
        await serve(made, made.stop, notifiers(os.environ), health_host, health_port, metrics)

    run_fast(run())


def _election(ttl: float | None, renewal: float | None, retry: float | None) -> LeaderElection:
    lock_ttl = LeaderElection().lock_ttl if ttl is None else ttl
    return LeaderElection(
        lock_ttl=lock_ttl,
        renewal_interval=lock_ttl / 3 if renewal is None else renewal,
        acquire_retry_interval=lock_ttl / 6 if retry is None else retry,
    )
