"""Starts the compacting process, independent of the working directory and environment of this one.

It compacts the directory that it is given, on behalf of a program that may have been started anywhere.
So neither the working directory nor the environment may choose its modules, and no key or signal meant
for the program ends it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["start_process"]

_SOURCE = str(Path(__file__).absolute().parents[4])
"""Where this package was imported from: a directory or an archive, known perhaps to this program alone."""
_INTERPRETER = re.compile(r"(python|pypy)[\w.+-]*")
_PROGRAM = """\
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_, source, directory, path = sys.argv
sys.path.append(source)  # at the end: nothing that lies there stands in for a standard module
spec = PathFinder.find_spec("jobqueue", [source])
package = sys.modules["jobqueue"] = module_from_spec(spec)
spec.loader.exec_module(package)

from jobqueue.storage.file.upkeep.compact import main
main(int(directory), path)
"""


def start_process(directory: int, path: Path) -> subprocess.Popen[bytes] | None:
    """Start a process that compacts the store in an open directory; ``None`` where none can be started.

    It inherits the descriptor, so that it works in this directory wherever that is moved; ``path`` is for
    messages. Raises `OSError`.
    """
    if not _is_interpreter():
        return None
    return subprocess.Popen(  # noqa: S603 - this interpreter and this package
        [sys.executable, "-P", "-c", _PROGRAM, _SOURCE, str(directory), str(path)],
        pass_fds=[directory],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env=_environment(),
        start_new_session=True,
    )


def _is_interpreter() -> bool:
    """Whether `sys.executable` runs Python programs.

    A frozen application, or a server that embeds Python, would start itself again.
    """
    frozen = getattr(sys, "frozen", False)
    return not frozen and _INTERPRETER.fullmatch(Path(sys.executable or "").name.lower()) is not None


def _environment() -> dict[str, str]:
    """Return the environment without variables that change the imports or behaviour of an interpreter."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") or name == "PYTHONHOME"
    }
