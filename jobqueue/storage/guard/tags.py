"""Names each job of a guarded store by a token, which travels in its headers.

The ledger has one row for each token. A job that the store has under an id is that of a row if it carries its
token; an earlier or later job of the same id carries another one.
"""

from __future__ import annotations

from typing import Any

from jobqueue.model.fast import make_tuple
from jobqueue.model.new_job import CheckedJob, NewJob
from jobqueue.runtime.ids import random_secret

__all__ = ["new_token", "new_tokens", "number_of", "tagged_job", "untag"]

_BEGIN = b'{"jobqueue-guard":"'
_AT = len(_BEGIN)
_END = _AT + 32
_HEADERS = NewJob._fields.index("headers")


_last = 0


def new_tokens(now: float, count: int) -> list[str]:
    """Return tokens: each a number that rises with the time, as indexes like it, and 72 bits.

    The bits are random. The number has 53: milliseconds, and eleven bits for those of one millisecond.
    """
    global _last  # noqa: PLW0603 - what came before in this process
    first = max(_last + 1, int(now * 1000) << 11)
    _last = first + count - 1
    bits = random_secret(9 * count)
    return [((first + at).to_bytes(7) + bits[9 * at : 9 * at + 9]).hex() for at in range(count)]


def new_token(now: float) -> str:
    """Return one token; see `new_tokens`."""
    return new_tokens(now, 1)[0]


def number_of(token: str) -> int:
    """Return the number in a token: callers know the incarnation of a job by it."""
    return int(token[:14], 16)


def tagged_job(token: str, job: NewJob) -> NewJob:
    """Return a job, whose fields were checked, with its token in front of its headers.

    Headers that are JSON stay JSON, so workers without a guard can read them. They may be as long as without
    a token: it is not the user's.
    """
    own = job.headers
    if not own:  # nearly always
        headers = b'{"jobqueue-guard":"%b"}' % token.encode()
    else:
        json = own[:1] == b"{" and own != b"{}"
        headers = _BEGIN + token.encode() + (b'",' + own[1:] if json else b'"}' + own)
    fields: tuple[Any, ...] = job
    return make_tuple(CheckedJob, fields[:_HEADERS] + (headers,) + fields[_HEADERS + 1 :])  # noqa: RUF005 - quicker


def untag(headers: bytes) -> tuple[str | None, bytes]:
    """Return the token of headers, ``None`` without one, and the headers that were tagged."""
    if not headers.startswith(_BEGIN):
        return None, headers
    token, joint, rest = headers[_AT:_END], headers[_END : _END + 2], headers[_END + 2 :]
    try:
        text = bytes.fromhex(token.decode("ascii")).hex()
    except ValueError:
        return None, headers
    if len(text) != _END - _AT or joint not in {b'",', b'"}'}:
        return None, headers
    return text, b"{" + rest if joint == b'",' else rest
