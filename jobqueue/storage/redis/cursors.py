"""The cursors of listings as text: base64 of a mark, which names the listing, and of the place in it."""

from __future__ import annotations

import base64

from jobqueue.errors import InvalidArgumentError

__all__ = ["DOCUMENTS", "decode_cursor", "encode_cursor"]

DOCUMENTS = b"D"
"""Names the listing of documents, as the letter of a state does that of its jobs."""
_VERSION = b"jq1"
_MOST_CURSOR = 500
"""Characters of a cursor, at the most."""


def encode_cursor(listing: bytes, place: bytes) -> str:
    """Return the cursor behind a place."""
    return base64.urlsafe_b64encode(_VERSION + listing + place).decode()


def decode_cursor(listing: bytes, cursor: str, what: str, *, low: int) -> bytes:
    """Return the place, of ``low`` bytes at least.

    Raises `InvalidArgumentError` for a cursor of anything else.
    """
    mark = _VERSION + listing
    try:
        place = base64.b64decode(cursor[:_MOST_CURSOR].encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        place = b""
    if len(cursor) > _MOST_CURSOR or not place.startswith(mark) or len(place) < len(mark) + low:
        raise InvalidArgumentError("cursor", f"was not made by this store for {what}")
    return place.removeprefix(mark)
