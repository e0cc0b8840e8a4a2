"""The dashboard: an ASGI application that shows queues and lets people act on them.

It needs starlette and jinja2: ``pip install 'jobqueue[web]'``.

application.py  `dashboard`, `Dashboard`: the application, and its options
server.py       `DashboardServer`: the dashboard served by uvicorn, alone or with an app
options.py      the options, and their checks
params.py       the arguments of a request, checked
security.py     what is refused before any page is made: hosts, credentials, origins, sizes; headers
source.py       the store, opened at the first request; `Desk`: one queue of it
counting.py     counts that are kept for a moment, where counting takes a store long
pages.py        a request for a page, its arguments, and its answer, errors included
views/          one file for each page: what it shows, and what of that is watched
actions.py      what a form does
bulk.py         actions on many jobs, in the background
pulse.py        watches what is looked at, and tells the open streams
events.py       the streams
samples.py      figures of the last minutes, for charts
charts.py       charts as SVG
values.py       payloads and results as text, and what a hook takes out of them
text.py         numbers, times and foreign text, fit to be shown
rendering.py    templates
assets.py       the stylesheet and the scripts
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    import jinja2 as jinja2
    import starlette as starlette
except ImportError as error:  # pragma: no cover - the tests have them
    raise ImportError("the dashboard needs starlette and jinja2: pip install 'jobqueue[web]'") from error

from jobqueue.web.application import Dashboard, dashboard
from jobqueue.web.options import Action, Authorize, Redact

if TYPE_CHECKING:
    from jobqueue.web.server import DashboardServer

__all__ = ["Action", "Authorize", "Dashboard", "DashboardServer", "Redact", "dashboard"]


def __getattr__(name: str) -> Any:
    # Loaded when it is used: an application that mounts the dashboard has a server of its own.
    if name == "DashboardServer":
        return importlib.import_module("jobqueue.web.server").DashboardServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
