"""Reads the messages about the jobs of a queue, and decides how far to believe them.

A message is a row of frames; ``lua/lib/ended.lua`` describes them. Every user who may publish on the server
can send one to any mailbox. So a store object draws a secret, which its clones share, and leaves it in the
store beside the mailbox wherever it waits for a job. A message that begins with this secret is believed.

Every other message is hearsay, which only says where to look. Of a reply only the id is left: its waiters
read the store. A cancel request is passed on if the store says that the run was asked to end; the true
ones come this way too, since a script that asks for an end knows the worker by its name only. Hearsay is
looked at at once, and then every `LOOK_EVERY` seconds at no more than `HEARSAY` bytes of it: a flood costs
little, and at most delays a cancel request until the lease is renewed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from hmac import compare_digest
from itertools import compress
from typing import Any, NamedTuple

from jobqueue.model.states import JobState
from jobqueue.runtime.batching import MOST_ITEMS
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.contract import Sink
from jobqueue.storage.redis.keys import SECRET_BYTES
from jobqueue.storage.values import Reply

__all__ = ["HEARSAY", "LOOK_EVERY", "CancelRequest", "SinkListener", "read_message"]

log = get_logger("jobqueue.storage.redis")

LOOK_EVERY = 0.05
"""Seconds between two looks at the messages without the secret."""
HEARSAY = 131_072
"""Bytes of such messages that are read in that time; the last of them may exceed it."""
_LONGEST = 300_000
"""Size in bytes that no message of the scripts has."""
_LATER = (1 << 56) - 1
"""The seq of no job, and later than all."""

_SIGNED, _REPLY, _CANCEL = b"src"
_BODY = 1 + SECRET_BYTES
_ENDS = {ord("C"): JobState.COMPLETED, ord("F"): JobState.FAILED, ord("X"): JobState.CANCELLED}
_int = int.from_bytes


class CancelRequest(NamedTuple):
    """A run that is to end, according to a message."""

    queue: str
    id: str
    fence: int


def read_message(message: bytes, at: int = 0) -> tuple[list[Reply], list[CancelRequest]]:
    """Read the frames of a message from ``at`` on. Raises `ValueError` if it is not one of ours."""
    replies: list[Reply] = []
    requests: list[CancelRequest] = []
    end = len(message)
    try:
        while at < end:
            kind, size = message[at], message[at + 1]
            at += 2 + size
            queue = message[at - size : at].decode()
            size = _int(message[at : at + 2])
            at += 2 + size
            id = message[at - size : at].decode()
            number = _int(message[at : at + 7])
            at += 7
            if kind == _REPLY:
                state, attempts = _ENDS[message[at]], _int(message[at + 1 : at + 5])
                size = _int(message[at + 5 : at + 9])
                at += 9
                data = message[at : at + size - 1] if size else None
                at += max(0, size - 1)
                replies.append(Reply(queue, id, number, state, data, attempts))
            elif kind == _CANCEL:
                requests.append(CancelRequest(queue, id, number))
            else:
                raise ValueError(f"an unknown kind of frame: {kind}")
            if at > end:
                raise ValueError("a frame is cut off")
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"not a message of a job queue: {error}") from error
    return replies, requests


Confirm = Callable[[str, Sequence[CancelRequest]], Awaitable[Sequence[bool]]]
"""Ask the store which runs of a queue were asked to end."""
Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class SinkListener:
    """Hands the messages about one queue to a `Sink`."""

    __slots__ = ("_hearsay", "_queue", "_secret", "_sink", "_told")

    def __init__(self, queue: str, sink: Sink, secret: bytes, confirm: Confirm, spawn: Spawn) -> None:
        self._queue = queue
        self._sink = sink
        self._secret = secret
        self._hearsay = _Hearsay(queue, sink, confirm, spawn)
        self._told = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SinkListener) and other._sink is self._sink and other._queue == self._queue

    def __hash__(self) -> int:
        return hash((self._queue, id(self._sink)))

    def message(self, data: bytes) -> None:
        signed = data[:1] == b"s"
        believed = signed and compare_digest(data[1:_BODY], self._secret)
        if not believed and not self._hearsay.takes(len(data)):
            return
        try:
            replies, requests = read_message(data, _BODY if signed else 0)
        except ValueError as error:
            self._tell(error)
            return
        # The address may be used in other queues too.
        replies = [reply for reply in replies if reply.queue == self._queue]
        requests = [request for request in requests if request.queue == self._queue]
        if not believed:
            self._hearsay.add(replies, requests)
        elif replies:
            self._sink.deliver(replies)

    def _tell(self, error: ValueError) -> None:
        # Whoever sends one can send thousands.
        log.log(logging.DEBUG if self._told else logging.WARNING, "a message was dropped: %s", error)
        self._told = True

    def resync(self) -> None:
        self._sink.resync()

    def close(self) -> None:
        self._hearsay.close()


def _unsaid(queue: str, id: str) -> Reply:
    """Return a reply without content that makes every waiter for a job read the store."""
    return Reply(queue, id, _LATER, JobState.COMPLETED, None, 0)


class _Hearsay:
    """The messages without the secret since the last look."""

    def __init__(self, queue: str, sink: Sink, confirm: Confirm, spawn: Spawn) -> None:
        self._queue = queue
        self._sink = sink
        self._confirm = confirm
        self._spawn = spawn
        self._ended: dict[str, None] = {}
        self._requests: dict[CancelRequest, None] = {}
        self._taken = 0
        """Bytes since the last look."""
        self._looking = False
        self._closed = False

    def takes(self, size: int) -> bool:
        """Whether another message of so many bytes is to be read now; a look at it follows."""
        if self._closed or self._taken >= HEARSAY or size > _LONGEST:
            return False
        self._taken += size
        if not self._looking:
            self._looking = True
            self._spawn(self._look(), "looking at a cancel request")
        return True

    def add(self, replies: Sequence[Reply], requests: Sequence[CancelRequest]) -> None:
        """Add the content of a message."""
        self._ended.update((reply.id, None) for reply in replies)
        self._requests.update(dict.fromkeys(requests))

    def close(self) -> None:
        """Stop passing anything on."""
        self._closed = True

    async def _look(self) -> None:
        try:
            while self._taken and not self._closed:
                self._taken = 0
                await self._pass_on()
                await SYSTEM_CLOCK.sleep(LOOK_EVERY)
        finally:
            self._looking = False

    async def _pass_on(self) -> None:
        ended, self._ended = self._ended, {}
        requests, self._requests = tuple(self._requests), {}
        if ended:
            self._sink.deliver([_unsaid(self._queue, id) for id in ended])
        for at in range(0, len(requests), MOST_ITEMS):
            some = requests[at : at + MOST_ITEMS]
            confirmed = await self._confirm(self._queue, some)
            for request in compress(some, confirmed):
                if not self._closed:
                    self._sink.cancel_requested(*request)
