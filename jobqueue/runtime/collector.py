"""The tuning of Python's cycle collector."""

from __future__ import annotations

import gc

__all__ = ["calm_collector"]


def calm_collector() -> None:
    """Tune Python's cycle collector for a process that serves jobs.

    Objects that exist now are never scanned again (`gc.freeze`), and a collection waits for 50,000 new
    objects instead of 700: a worker makes many and holds few, and hardly any are in cycles. Measured on
    the memory store: a fifth more jobs per second. `jobqueue worker` calls it; call it in a process of
    your own after its imports.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
