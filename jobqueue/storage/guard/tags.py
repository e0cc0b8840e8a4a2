"""Names each job of a guarded store by a token, which travels in its headers.

The ledger has one row for each token. A job that the store has under an id is that of a row if it carries its
token; an earlier or later job of the same id carries another one.
"""

from __future__ import annotations

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
    bits = random_secret(9 * count).hex()
    return [f"{first + at:014x}{bits[18 * at : 18 * at + 18]}" for at in range(count)]


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
    headers = _BEGIN + token.encode()
    json = job.headers[:1] == b"{" and job.headers != b"{}"
    headers += b'",' + job.headers[1:] if json else b'"}' + job.headers
    return make_tuple(CheckedJob, (*job[:_HEADERS], headers, *job[_HEADERS + 1 :]))


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
