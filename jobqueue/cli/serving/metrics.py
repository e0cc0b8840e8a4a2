"""The metrics that ``--health-port`` serves, if ``prometheus_client`` is installed."""

from __future__ import annotations

from importlib.util import find_spec

from jobqueue.app import App
from jobqueue.cli.serving.health import Exporter
from jobqueue.maintenance.reaper import Reaper

__all__ = ["can_export", "exporter"]


def can_export() -> bool:
    """Return whether there can be metrics."""
    return find_spec("prometheus_client") is not None


def exporter(source: App | Reaper) -> Exporter | None:
    """Count what happens here from now on; return what shows it, ``None`` if there can be no metrics."""
    if not can_export():
        return None
    from jobqueue.observe.prometheus import instrument

    return instrument(source).render
