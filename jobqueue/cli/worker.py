"""The command ``worker``: runs the jobs of a queue, in this process or in several."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from jobqueue.cli.banner import fleet_banner, store_name, worker_banner
from jobqueue.cli.client import require_shared
from jobqueue.cli.exits import Failure
from jobqueue.cli.fleet import Fleet
from jobqueue.cli.health import health_options
from jobqueue.cli.loading import load_queue, working_directory
from jobqueue.cli.logs import configure_logging, log_options
from jobqueue.cli.notify import Notifier, notifiers
from jobqueue.cli.opening import announced
from jobqueue.cli.options import option, seconds_or_zero, storage_option, worker_name
from jobqueue.cli.reaper import reaper_service
from jobqueue.cli.running import run, run_fast
from jobqueue.cli.serving import Service, serve, together
from jobqueue.options import LeaderElection
from jobqueue.queue import MAX_CONCURRENCY, Queue
from jobqueue.reaper import Reaper
from jobqueue.runtime import calm_collector
from jobqueue.storage.urls import STORAGE_VARIABLE

__all__ = ["worker"]


@click.command()
@click.argument("target", metavar="MODULE:QUEUE")
@storage_option(required=False, text="Store to use instead of the queue's own.")
@option("--concurrency", type=click.IntRange(1, MAX_CONCURRENCY), show_default=False,
        help="Jobs that run at once, in each process.  [default: the queue's own]")  # fmt: skip
@option("--processes", type=click.IntRange(1, 1024), default=1,
        help="Processes; those that die are restarted.")  # fmt: skip
@option("--timeout", type=seconds_or_zero, metavar="SECONDS", show_default=False,
        help="Seconds that running jobs get to end at a stop.  [default: as long as they take]")  # fmt: skip
@option("--name", type=worker_name, show_default=False,
        help="Name in `stats` and records; several processes add a number.  [default: unique]")  # fmt: skip
@option("--reaper/--no-reaper", default=True,
        help="Also be the reaper of the store, if no other worker or reaper leads.")  # fmt: skip
@option("--reload", is_flag=True, help="Restart when a Python file below this directory changes.")
@health_options()
@log_options()
def worker(
    *,
    target: str,
    storage: str | None,
    concurrency: int | None,
    processes: int,
    timeout: float | None,
    name: str | None,
    health_port: int | None,
    health_host: str,
    log_level: str,
    log_format: str,
    reaper: bool,
    reload: bool,
) -> None:
    """Run the jobs of a queue with its handler, until SIGTERM or Ctrl-C.

    MODULE:QUEUE names a Queue object with a handler, for example `tasks:queue` for the object `queue`
    of tasks.py in this directory. The first signal lets running jobs end, a second gives them back to
    the queue, a third exits at once.
    """
    configure_logging(log_level, log_format)
    if storage is not None:
        # For `Queue()` in the module, too. And no argument of a child: all users of the host see those.
        os.environ[STORAGE_VARIABLE] = storage
    if processes > 1 or reload:
        fleet_banner(target, processes, storage)
        arguments = [target, "--log-level", log_level, "--log-format", log_format]
        arguments += [] if concurrency is None else ["--concurrency", str(concurrency)]
        arguments += [] if timeout is None else ["--timeout", str(timeout)]
        arguments += [] if reaper else ["--no-reaper"]
        told = notifiers(os.environ)  # before the children get these variables
        fleet = _fleet(arguments, name, processes, working_directory() if reload else None)
        run(_serve_fleet(fleet, processes, told, health_host, health_port))
        return
    queue = load_queue(target)
    own_store = store_name(queue.storage)
    queue.configure(storage=storage, concurrency=concurrency, worker_id=name)
    require_shared(announced(queue.storage), f"the store of {target}")
    worker_banner(target, queue, own_store, reaper=reaper)
    calm_collector()
    run_fast(_serve_queue(queue, timeout, health_host, health_port, reaper=reaper))


async def _serve_queue(
    queue: Queue[Any, Any], timeout: float | None, host: str, port: int | None, *, reaper: bool
) -> None:
    service = Service(
        start=queue.start,
        stop=partial(queue.stop, timeout),
        hurry=queue.hurry,
        until_broken=queue.until_broken,
        ready=lambda: queue.ready,
    )
    if reaper:
        sweeping = Reaper(queue.storage, leader_election=LeaderElection())
        service = together(service, reaper_service(sweeping))
    await serve(service, notifiers(os.environ), host, port)


def _fleet(arguments: list[str], name: str | None, processes: int, sources: Path | None) -> Fleet:
    debug = ["--debug"] if click.get_current_context().find_root().params["debug"] else []
    # -P: this directory is put on the path later, so that no file in it replaces a standard module.
    command = [sys.executable, "-P", "-m", "jobqueue", *debug, "worker", *arguments]

    def command_of(slot: int) -> list[str]:
        if name is None:
            return command
        return [*command, "--name", name if processes == 1 else f"{name}-{slot + 1}"]

    # The options that made this process a parent must not reach the children in their variables.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_WORKER_")}
    return Fleet(command_of, environ, processes, sources)


async def _serve_fleet(
    fleet: Fleet, processes: int, told: Sequence[Notifier], host: str, port: int | None
) -> None:
    service = Service(
        start=fleet.start,
        stop=fleet.stop,
        hurry=fleet.hurry,
        until_broken=fleet.until_broken,
        ready=lambda: fleet.ready,
    )
    await serve(service, told, host, port)
    if fleet.unclean:
        raise Failure(f"{fleet.unclean} of {processes} worker processes did not end cleanly")
