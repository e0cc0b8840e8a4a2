"""`python -m tests.fuzz MODULE TEST`: feed a property test from atheris, which follows the coverage of code.

    pip install atheris
    python -m tests.fuzz tests.test_decoders test_errors -max_total_time=600

What follows the test are options of libFuzzer. What it finds is printed, and kept in a file that, given as an
argument after the test, repeats it. Without atheris, or in CI, Hypothesis draws the same inputs by itself.
"""

from __future__ import annotations

import importlib
import sys

import atheris  # type: ignore[import-not-found]


def main() -> None:
    """Fuzz one test until an option or a failure ends it."""
    module, test, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["jobqueue"]):
        function = getattr(importlib.import_module(module), test)
    atheris.Setup([sys.argv[0], *options], function.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
