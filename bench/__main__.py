"""`python -m bench NAME`: run one benchmark."""

from __future__ import annotations

import sys

from bench import file, memory, recovery

BENCHES = {"file": file.main, "memory": memory.main, "recovery": recovery.main}


def main() -> None:
    """Run the benchmark that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in BENCHES:
        sys.exit(f"usage: python -m bench {{{','.join(BENCHES)}}}")
    BENCHES[sys.argv[1]]()


main()
