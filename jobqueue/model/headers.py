"""The headers of a job, texts by name that travel beside its payload: to bytes and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.new_job import MAX_HEADERS

__all__ = ["decode_headers", "encode_headers"]


def encode_headers(headers: object) -> bytes:
    """Return the bytes to store: JSON, readable in any store's own tools. Raises `InvalidArgumentError`.

    No headers are no bytes.
    """
    if not isinstance(headers, Mapping):
        raise InvalidArgumentError("headers", f"must be a mapping of texts, not {type(headers).__name__}")
    for name, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(name, str) or not isinstance(value, str):
            kinds = f"{type(name).__name__} to {type(value).__name__}"
            raise InvalidArgumentError("headers", f"must map texts to texts, not {kinds}")
    if not headers:
        return b""
    # ASCII escapes carry even a lone surrogate, which UTF-8 would refuse.
    data = json.dumps(dict(cast("Mapping[str, str]", headers)), separators=(",", ":")).encode("ascii")
    if len(data) > MAX_HEADERS:
        problem = f"have {len(data)} bytes as JSON, the limit is {MAX_HEADERS}: use the payload"
        raise InvalidArgumentError("headers", problem)
    return data


def decode_headers(data: bytes) -> dict[str, str]:
    """Read the bytes of `encode_headers`. Never raises: leaves out foreign bytes and what is no text."""
    if not data:
        return {}
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    headers = cast("dict[str, object]", found)
    return {name: value for name, value in headers.items() if isinstance(value, str)}
