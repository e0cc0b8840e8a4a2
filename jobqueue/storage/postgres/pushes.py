"""Messages for the addresses that wait for jobs or run them.

A message names jobs that have ended, or a run that is to end. It is believed, because the name of its channel
is made with a secret of the schema (see ``jobqueue.channel``); its form is checked all the same. Results are
not in it: they are read, for all messages that came meanwhile in one statement.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

from jobqueue.errors import JobQueueError
from jobqueue.model.states import JobState
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Sink
from jobqueue.storage.postgres.rows import ENDED
from jobqueue.storage.values import Reply

__all__ = ["SinkReceiver", "read_message"]

log = get_logger("jobqueue.storage.postgres")

_MOST_READ = 200
"""Outcomes that are read at once."""

Read = Callable[[Sequence[int]], Awaitable[dict[int, bytes | None]]]
Spawn = Callable[[Coroutine[Any, Any, None], str], object]


def read_message(payload: str, queue: str) -> tuple[list[Reply], list[tuple[str, int]]]:
    """Read the ended jobs and the runs to end of a message about a queue; nothing, if it is about another.

    Raises `ValueError` if it is none of ours.
    """
    try:
        match json.loads(payload):
            case ["ended", str(about), [*ended]]:
                if about != queue:
                    return [], []
                return [_reply(queue, *one) for one in cast("list[list[object]]", ended)], []
            case ["cancel", str(about), str(id), int(fence)]:
                return [], [(id, fence)] if about == queue else []
            case _:
                raise ValueError("unknown form")
    except (TypeError, KeyError, RecursionError, ValueError) as error:
        raise ValueError(f"not a message of a job queue: {error!r:.200}") from None


def _reply(queue: str, id: object, seq: object, state: object, attempts: object) -> Reply:
    if not (isinstance(id, str) and type(seq) is int and type(state) is int and type(attempts) is int):
        raise ValueError("an ended job of a wrong type")
    return Reply(queue, id, seq, ENDED[state], None, attempts)


class SinkReceiver:
    """Hands the messages for an address about one queue to a `Sink`."""

    def __init__(self, queue: str, sink: Sink, read: Read, spawn: Spawn) -> None:
        self._queue = queue
        self._sink = sink
        self._read = read
        self._spawn = spawn
        self._unread: dict[int, Reply] = {}
        self._reading = False
        self._closed = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SinkReceiver) and other._sink is self._sink and other._queue == self._queue

    def __hash__(self) -> int:
        return hash((self._queue, id(self._sink)))

    def message(self, payload: str) -> None:
        """Receive a notification."""
        try:
            replies, requests = read_message(payload, self._queue)
        except ValueError as error:
            log.warning("a message was dropped: %s", error)
            return
        for id, fence in requests:
            self._sink.cancel_requested(self._queue, id, fence)
        self._unread.update((reply.seq, reply) for reply in replies)
        if self._unread and not self._reading:
            self._reading = True
            self._spawn(self._deliver(), "reading results")

    def resync(self) -> None:
        """Have the sink read everything again."""
        self._sink.resync()

    async def _deliver(self) -> None:
        try:
            while self._unread and not self._closed:
                some = [self._unread.pop(seq) for seq in list(self._unread)[:_MOST_READ]]
                try:
                    found = await self._read([r.seq for r in some if r.state is not JobState.CANCELLED])
                except JobQueueError:
                    found = {}  # then the waiters read
                if not self._closed:
                    self._sink.deliver([reply._replace(data=found.get(reply.seq)) for reply in some])
        finally:
            self._reading = False

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
