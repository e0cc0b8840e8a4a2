"""The command ``worker``: runs the jobs of a queue, in this process or in several."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from jobqueue.cli.client import require_shared, run_fast
from jobqueue.cli.exits import Failure
from jobqueue.cli.fleet import Fleet
from jobqueue.cli.health import health_options
from jobqueue.cli.loading import load_queue
from jobqueue.cli.logs import configure_logging, log_options
from jobqueue.cli.notify import notifiers
from jobqueue.cli.opening import announced
from jobqueue.cli.options import option, seconds_or_zero, storage_option
from jobqueue.cli.serving import Service, serve
from jobqueue.queue import MAX_CONCURRENCY, Queue
from jobqueue.runtime import calm_collector

__all__ = ["worker"]


@click.command()
@click.argument("target", metavar="MODULE:QUEUE")
@storage_option(required=False, text="URL of a store to use instead of the queue's own.")
@option("--concurrency", type=click.IntRange(1, MAX_CONCURRENCY), show_default=False,
        help="Jobs that run at once, in each process.  [default: the queue's own]")  # fmt: skip
@option("--processes", type=click.IntRange(1, 1024), default=1,
        help="Processes; those that die are restarted.")  # fmt: skip
@option("--timeout", type=seconds_or_zero, metavar="SECONDS", show_default=False,
        help="Seconds that running jobs get to end at a stop.  [default: as long as they take]")  # fmt: skip
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
    health_port: int | None,
    health_host: str,
    log_level: str,
    log_format: str,
    reload: bool,
) -> None:
    """Run the jobs of a queue with its handler, until SIGTERM or Ctrl-C.

    MODULE:QUEUE names a Queue object with a handler, for example `tasks:queue` for the object `queue`
    of tasks.py in this directory. The first signal lets running jobs end, a second gives them back to
    the queue, a third exits at once.
    """
    configure_logging(log_level, log_format)
    if processes > 1 or reload:
        command = [target, "--log-level", log_level, "--log-format", log_format]
        command += [] if concurrency is None else ["--concurrency", str(concurrency)]
        command += [] if timeout is None else ["--timeout", str(timeout)]
        sources = Path.cwd() if reload else None
        asyncio.run(
            _serve_fleet(
                arguments=command,
                storage=storage,
                processes=processes,
                sources=sources,
                host=health_host,
                port=health_port,
            )
        )
    else:
        queue = load_queue(target)
        queue.configure(storage=storage, concurrency=concurrency)
        require_shared(announced(queue.storage), f"the store of {target}")
        calm_collector()
        run_fast(_serve_queue(queue, timeout, health_host, health_port))


async def _serve_queue(queue: Queue[Any, Any], timeout: float | None, host: str, port: int | None) -> None:
    service = Service(
        start=queue.start,
        stop=partial(queue.stop, timeout),
        hurry=queue.hurry,
        until_broken=queue.until_broken,
        ready=lambda: queue.ready,
    )
    await serve(service, notifiers(os.environ), host, port)


async def _serve_fleet(
    *,
    arguments: list[str],
    storage: str | None,
    processes: int,
    sources: Path | None,
    host: str,
    port: int | None,
) -> None:
    told = notifiers(os.environ)
    # The options that made this process a parent must not reach the children in their variables.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_WORKER_")}
    if storage is not None:
        environ["JOBQUEUE_STORAGE"] = storage  # not an argument: all users of the host see those
    debug = ["--debug"] if click.get_current_context().find_root().params["debug"] else []
    # -P: this directory is put on the path later, so that no file in it replaces a standard module.
    command = [sys.executable, "-P", "-m", "jobqueue", *debug, "worker", *arguments]
    fleet = Fleet(command, environ, processes, sources)
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
