"""Callers know a job by the number that its store gave it, also when it is brought back under another one.

So the numbers of jobs that somebody in this process waits for are remembered. The token of a job tells when
it was asked for: one that was there when a caller began to wait is the one it waits for, whatever its number
is now. A pushed reply has no token: one with a number that is not known makes the listener read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobqueue.storage.contract import Sink
from jobqueue.storage.guard.tags import number_of
from jobqueue.storage.values import Reply

__all__ = ["GuardedSink", "Numbers"]

MOST = 100_000
"""Jobs whose numbers are remembered."""


class _Awaited(NamedTuple):
    """A job that somebody waits for."""

    known: int
    """Its number as callers know it."""
    present: int
    """Its number in the store, as last seen."""
    latest: int
    """The number in the latest token that can be its own."""


class Numbers:
    """The numbers of jobs that somebody in this process waits for."""

    def __init__(self) -> None:
        self._awaited: OrderedDict[tuple[str, str], _Awaited] = OrderedDict()

    def note(self, queue: str, id: str, seq: int, token: str) -> None:
        """Note a job that somebody waits for from now on; ``token`` is of this instant."""
        self._awaited[queue, id] = _Awaited(seq, seq, number_of(token))
        if len(self._awaited) > MOST:
            self._awaited.popitem(last=False)

    def forget(self, queue: str, id: str) -> None:
        """Forget a job whose number has changed for its callers too: it was revived."""
        self._awaited.pop((queue, id), None)

    def known(self, queue: str, id: str, seq: int, token: str) -> int:
        """Return the number by which callers know a job that was read."""
        awaited = self._awaited.get((queue, id))
        if awaited is None or number_of(token) > awaited.latest:
            return seq
        if seq != awaited.present:
            self._awaited[queue, id] = awaited._replace(present=seq)
        return awaited.known

    def translate(self, reply: Reply) -> tuple[Reply, bool]:
        """Return a reply with the number that callers know, and whether that may have to be read."""
        awaited = self._awaited.get((reply.queue, reply.id))
        if awaited is None:
            return reply, False
        if reply.seq == awaited.present:
            return reply._replace(seq=awaited.known), False
        return reply, True


@dataclass(slots=True, eq=False)
class GuardedSink:
    """Hands on what a store pushes."""

    sink: Sink
    numbers: Numbers

    def deliver(self, replies: Sequence[Reply]) -> None:
        """Receive replies for jobs that the address waits for."""
        translated = [self.numbers.translate(reply) for reply in replies]
        self.sink.deliver([reply for reply, _ in translated])
        if any(doubtful for _, doubtful in translated):
            self.sink.resync()

    def cancel_requested(self, queue: str, id: str, fence: int) -> None:
        """Receive a request to end a running job."""
        self.sink.cancel_requested(queue, id, fence)

    def resync(self) -> None:
        """Read everything waited for again."""
        self.sink.resync()
