"""The command ``worker``: runs the jobs of queues, in this process or in several."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from jobqueue.cli.banner import fleet_banner, worker_banner
from jobqueue.cli.client import require_shared
from jobqueue.cli.exits import Failure
from jobqueue.cli.find_queue import load_app, working_directory
from jobqueue.cli.loading_bar import announced
from jobqueue.cli.logs import configure_logging, log_options
from jobqueue.cli.options import label, option, queue_name, seconds_or_zero, storage_option, worker_name
from jobqueue.cli.running import run, run_fast
from jobqueue.cli.serving.burst import Burst
from jobqueue.cli.serving.fleet import Fleet
from jobqueue.cli.serving.fleet_metrics import metrics_link
from jobqueue.cli.serving.health import health_options
from jobqueue.cli.serving.metrics import can_export, exporter
from jobqueue.cli.serving.notify import Notifier, notifiers
from jobqueue.cli.serving.serving import serve
from jobqueue.runtime.collector import calm_collector
from jobqueue.storage.urls import STORAGE_VARIABLE
from jobqueue.worker.options import MAX_CONCURRENCY

__all__ = ["worker"]


@click.command()
@click.argument("targets", metavar="MODULE:QUEUE|APP...", nargs=-1, required=True)
@storage_option(required=False, text="Store to use instead of the queues' own.")
@option("--concurrency", type=click.IntRange(1, MAX_CONCURRENCY), show_default=False,
        help="Jobs of each queue that run at once, in each process.  [default: the queue's own]")  # fmt: skip
@option("--processes", type=click.IntRange(1, 1024), default=1,
        help="Processes; those that die are restarted.")  # fmt: skip
@option("--timeout", type=seconds_or_zero, metavar="SECONDS", show_default=False,
        help="Seconds that running jobs get to end at a stop.  [default: as long as they take]")  # fmt: skip
@option("--name", type=worker_name, show_default=False,
        help="Name in `stats` and records; several processes add a number.  [default: unique]")  # fmt: skip
@option("--reaper/--no-reaper", default=None, show_default=False,
        help="Also be the reaper of the store, if no other worker or reaper leads.  "
             "[default: yes, or as the App says]")  # fmt: skip
@option("--web/--no-web", default=None, show_default=False,
        help="Also serve the dashboard of the App; of several processes the first one does.  "
             "[default: as the App says]")  # fmt: skip
@option("-q", "--queue", type=queue_name, metavar="NAME", multiple=True, show_default=False,
        help="Only this one of the queues; may be repeated.  [default: all]")  # fmt: skip
@option("--task", type=label, metavar="NAME", multiple=True, show_default=False,
        help="Only this task; other jobs are left to other workers. May be repeated.  [default: all]",
        )  # fmt: skip
@option("--burst", is_flag=True, help="Exit as soon as no job is ready and none runs.")
@option("--reload", is_flag=True, help="Restart when a Python file below this directory changes.")
@health_options()
@log_options()
def worker(
    *,
    targets: tuple[str, ...],
    storage: str | None,
    concurrency: int | None,
    processes: int,
    timeout: float | None,
    name: str | None,
    health_port: int | None,
    health_host: str,
    log_level: str,
    log_format: str,
    queue: tuple[str, ...],
    task: tuple[str, ...],
    reaper: bool | None,
    web: bool | None,
    reload: bool,
    burst: bool,
) -> None:
    """Run the jobs of one or several queues with their handlers, until SIGTERM or Ctrl-C.

    MODULE:QUEUE names a Queue object with a handler, for example `tasks:queue` for the object `queue`
    of tasks.py in this directory; several share one store, one process and its signals. MODULE:APP names
    an App object, which has queues of its own. The first signal lets running jobs end, a second gives
    them back to their queues, a third exits at once.
    """
    configure_logging(log_level, log_format)
    if burst and reload:
        raise Failure.usage("--burst ends and --reload goes on: give one of them")
    if storage is not None:
        # For `Queue()` in the module, too. And no argument of a child: all users of the host see those.
        os.environ[STORAGE_VARIABLE] = storage
    if processes > 1 or reload:
        fleet_banner(targets, processes, storage)
        arguments = [*targets, "--log-level", log_level, "--log-format", log_format]
        arguments += [] if concurrency is None else ["--concurrency", str(concurrency)]
        arguments += [] if timeout is None else ["--timeout", str(timeout)]
        arguments += [] if reaper is None else ["--reaper" if reaper else "--no-reaper"]
        arguments += [word for each in queue for word in ("--queue", each)]
        arguments += [word for each in task for word in ("--task", each)]
        arguments += ["--burst"] if burst else []
        told = notifiers(os.environ)  # before the children get these variables
        measured = health_port is not None and can_export()
        sources = working_directory() if reload else None
        fleet = _fleet(arguments, name, processes, sources, burst=burst, measured=measured, web=web)
        run(_serve_fleet(fleet, processes, told, health_host, health_port))
        return
    app, own_store = load_app(targets, storage)
    app.configure(
        concurrency=concurrency, worker_id=name, reaper=reaper, queues=queue or None, tasks=task or None,
        web=web,
    )  # fmt: skip
    require_shared(announced(app.storage), f"the store of {' '.join(targets)}")
    worker_banner(targets, app, own_store, task)
    calm_collector()
    served = Burst(app, timeout) if burst else app
    told = [*notifiers(os.environ), *metrics_link(os.environ, app)]
    metrics = None if health_port is None else exporter(app)
    run_fast(serve(served, partial(app.stop, timeout), told, health_host, health_port, metrics))


def _fleet(
    arguments: list[str],
    name: str | None,
    processes: int,
    sources: Path | None,
    *,
    burst: bool,
    measured: bool,
    web: bool | None,
) -> Fleet:
    debug = ["--debug"] if click.get_current_context().find_root().params["debug"] else []
    # -P: this directory is put on the path later, so that no file in it replaces a standard module.
    command = [sys.executable, "-P", "-m", "jobqueue", *debug, "worker", *arguments]

    def command_of(slot: int) -> list[str]:
        # An address can be served once.
        served = [] if web is None and not slot else ["--web" if web and not slot else "--no-web"]
        if name is None:
            return [*command, *served]
        return [*command, *served, "--name", name if processes == 1 else f"{name}-{slot + 1}"]

    # The options that made this process a parent must not reach the children in their variables.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_WORKER_")}
    return Fleet(command_of, environ, processes, sources, burst=burst, measured=measured)


async def _serve_fleet(
    fleet: Fleet, processes: int, told: Sequence[Notifier], host: str, port: int | None
) -> None:
    await serve(fleet, fleet.stop, told, host, port, fleet.metrics)
    if fleet.unclean:
        raise Failure(f"{fleet.unclean} of {processes} worker processes did not end cleanly")
