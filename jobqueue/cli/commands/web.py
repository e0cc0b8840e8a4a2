"""The command ``web``: serves the dashboard."""

from __future__ import annotations

import importlib
import ipaddress
import os
from typing import TYPE_CHECKING

import click

from jobqueue.cli.client import require_shared, shared_storage
from jobqueue.cli.exits import Failure
from jobqueue.cli.find_queue import load_app
from jobqueue.cli.loading_bar import announced
from jobqueue.cli.logs import configure_logging, log_options
from jobqueue.cli.options import SERDES, option, serde_option, storage_option
from jobqueue.cli.running import run_fast
from jobqueue.cli.serving.notify import notifiers
from jobqueue.cli.serving.serving import serve

if TYPE_CHECKING:
    from jobqueue.web import DashboardServer

__all__ = ["web"]


@click.command()
@click.argument("targets", metavar="[MODULE:QUEUE|APP]...", nargs=-1)
@storage_option(required=False)
@option("--host", default="127.0.0.1", help="Address to listen on. Others need --credentials.")
@option("--port", type=click.IntRange(0, 65535), default=8787, help="Port; 0: any free one.")
@option("--credentials", metavar="USER:PASSWORD", show_default=False,
        help="Ask for these. Prefer the variable: others can read arguments.  [default: ask for none]",
        )  # fmt: skip
@option("--allow-host", metavar="NAME", multiple=True, show_default=False,
        help="Name under which it is reached; may be repeated.  "
             "[default: any with --credentials, else localhost]")  # fmt: skip
@option("--read-only", is_flag=True, help="Allow nothing that changes anything.")
@option("--root-path", metavar="PATH", show_default=False,
        help="Path under which a proxy serves it, such as /jobs.  [default: none]")  # fmt: skip
@option("--title", default="jobqueue", help="Name on each page.")
@serde_option()
@log_options()
def web(
    *,
    targets: tuple[str, ...],
    storage: str | None,
    host: str,
    port: int,
    credentials: str | None,
    allow_host: tuple[str, ...],
    read_only: bool,
    root_path: str | None,
    title: str,
    serde: str,
    log_level: str,
    log_format: str,
) -> None:
    """Serve the dashboard, until SIGTERM or Ctrl-C.

    MODULE:QUEUE and MODULE:APP, as `jobqueue worker` takes them, say how the payloads and results of their
    queues are read; those of others are read by --serde.
    """
    configure_logging(log_level, log_format)
    if credentials is None and not _is_loopback(host):
        raise Failure.usage(
            f"--host {host} can be reached from elsewhere: set JOBQUEUE_WEB_CREDENTIALS to USER:PASSWORD, or "
            "serve on 127.0.0.1 behind a proxy that asks who it is"
        )
    if root_path and not root_path.startswith("/"):
        raise Failure.usage(f"--root-path {root_path!r} must begin with /")
    server = _server(
        targets, storage, serde, credentials, allow_host, title,
        host=host, port=port, root_path=root_path or "", read_only=read_only,
    )  # fmt: skip

    async def main() -> None:
        await serve(server, server.stop, notifiers(os.environ), "127.0.0.1", None)

    run_fast(main())


def _server(
    targets: tuple[str, ...],
    storage: str | None,
    serde: str,
    credentials: str | None,
    allow_host: tuple[str, ...],
    title: str,
    *,
    host: str,
    port: int,
    root_path: str,
    read_only: bool,
) -> DashboardServer:
    try:
        importlib.import_module("uvicorn")
        from jobqueue.web import DashboardServer
        from jobqueue.web.options import LOOPBACK
    except ImportError as error:
        raise Failure(f"`jobqueue web` needs {error.name}: pip install 'jobqueue[web]'") from error
    hosts = {*LOOPBACK, *allow_host} if allow_host or credentials is None else None
    source = load_app(targets, storage)[0] if targets else None
    if source is not None:
        require_shared(announced(source.storage), f"the store of {' '.join(targets)}")
    elif storage is None:
        raise Failure.usage("name a store with --storage, or the queues that are on it")
    return DashboardServer(
        source if source is not None else shared_storage(storage or ""),
        host=host,
        port=port,
        root_path=root_path,
        credentials=credentials,
        hosts=hosts,
        payload_serde=SERDES[serde](),
        read_only=read_only,
        result_serde=SERDES[serde](),
        title=title,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
