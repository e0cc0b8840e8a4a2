"""Does the duties of process 1, which a command is in a container: reap orphans, pass signals on.

The kernel gives a process whose parent has ended to process 1. If nobody waits for it there, it stays
as a zombie. The command itself cannot wait for processes that it does not know: it would take the
exit codes of children that handlers wait for. So process 1 is a parent of the command that does nothing
else. Elsewhere there is no such parent.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

__all__ = ["split"]

_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
"""Signals that a process raises by its own faults: not passed on."""


def split() -> None:
    """Return in a child if this is process 1, and stay its parent; do nothing in any other process.

    Call it before anything is loaded and any thread is started: the parent keeps what there is.
    """
    if os.getpid() != 1:
        return
    signals = signal.valid_signals() - _FAULTS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        os._exit(_serve(child, signals))
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_terminal() -> None:
    # In a group of its own it gets Ctrl-C once, from the terminal, and not from the parent again.
    os.setpgid(0, 0)
    with suppress(OSError):  # there is no terminal
        os.tcsetpgrp(0, os.getpgrp())


def _serve(child: int, signals: set[signal.Signals]) -> int:
    """Pass signals on and reap until the child ends; return its exit code, as shells have it."""
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(child, number)
        elif (code := _reap(child)) is not None:
            return code


def _reap(child: int) -> int | None:
    """Wait for all processes that have ended; return the exit code of the child if it is one of them."""
    code: int | None = None
    with suppress(ChildProcessError):  # there are none left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
    return 128 - code if code is not None and code < 0 else code
