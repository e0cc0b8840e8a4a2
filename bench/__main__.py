"""`python -m bench NAME`: run one benchmark."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "memory", "file", "redis", "redis-scale", "postgres", "postgres-bloat", "recovery", "schedules", "limits",
    "clear", "sync", "guard", "web", "chaos", "chaos-peers",
)  # fmt: skip


def main() -> None:
    """Run the benchmark that the command line names. Some take options of their own: `NAME --help`."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m bench {{{','.join(NAMES)}}}")
    importlib.import_module("bench." + sys.argv[1].replace("-", "_")).main()


main()
