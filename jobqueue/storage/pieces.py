"""Cuts batches into pieces of the size of one script call.

Larger ones would hold up other calls, in the server and on the way there; and a slow link would have to carry
all of it before the first sign of life comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from jobqueue.model.fast import field_of
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.runtime.batching import MOST_BYTES, MOST_ITEMS
from jobqueue.storage.values import NewJob

__all__ = ["MOST", "chunks", "in_pieces", "job_sizes", "settling_pieces"]

MOST = MOST_ITEMS
"""Items of a piece, and `MOST_BYTES` unless it is one item. Scripts read and answer as many bytes at most."""

_T = TypeVar("_T")
_R = TypeVar("_R")
_payload, _headers = field_of(NewJob, "payload"), field_of(NewJob, "headers")


def chunks(items: Sequence[_T], sizes: Sequence[int]) -> Iterator[Sequence[_T]]:
    """Cut a batch into pieces, given the bytes of each item."""
    start = 0
    while start < len(items):
        end = _end(sizes, start, MOST)
        yield items[start:end]
        start = end


def job_sizes(jobs: Sequence[NewJob]) -> list[int]:
    """Count the bytes of each new job, those of its payload and its headers."""
    sizes = list(map(len, map(_payload, jobs)))
    if any(map(_headers, jobs)):
        sizes = [size + len(job.headers) for size, job in zip(sizes, jobs, strict=True)]
    return sizes


def settling_pieces(settlements: Sequence[Settlement]) -> list[Sequence[int]]:
    """Cut settlements into pieces, given by their places.

    Releases come last, latest claims first: each piece goes in front of what the pieces before have released.
    """
    sizes = [
        len(s.data) + sum(len(job.payload) for job in s.then) if s.then else len(s.data) for s in settlements
    ]
    if len(sizes) <= MOST and sum(sizes) <= MOST_BYTES:
        return [range(len(sizes))] if sizes else []

    def turn(at: int) -> tuple[bool, int]:
        released = settlements[at].action is Action.RELEASE
        return released, -settlements[at].fence if released else at

    order = sorted(range(len(sizes)), key=turn)
    return list(chunks(order, [sizes[at] for at in order]))


async def in_pieces(
    items: Sequence[_T], sizes: Sequence[int], send: Callable[[Sequence[_T]], Awaitable[Sequence[_R]]]
) -> list[_R]:
    """Send a batch in pieces and return all answers in order.

    ``send`` may answer only the first items of its piece, one at least, since its answer would be too large.
    """
    answers: list[_R] = []
    most = MOST
    while len(answers) < len(items):
        piece = items[len(answers) : _end(sizes, len(answers), most)]
        some = await send(piece)
        answers += some
        most = MOST if len(some) == len(piece) else min(MOST, 2 * len(some))
    return answers


def _end(sizes: Sequence[int], start: int, most: int) -> int:
    """Find where a piece ends that begins at ``start``."""
    piece = sizes[start : start + most]
    total = sum(piece)
    end = len(piece)
    while total > MOST_BYTES and end > 1:
        end -= 1
        total -= piece[end]
    return start + end
