"""Headers: texts by name, as bounded JSON, and back from whatever a store holds."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import InvalidArgumentError
from jobqueue.model.headers import decode_headers, encode_headers
from jobqueue.model.new_job import MAX_HEADERS

ANY_TEXT = st.text(st.characters(codec=None), max_size=20)


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=5))
def test_any_texts_come_back(headers: dict[str, str]) -> None:
    assert decode_headers(encode_headers(headers)) == headers


def test_no_headers_are_no_bytes() -> None:
    assert encode_headers({}) == b""
    assert decode_headers(b"") == {}


def test_they_are_readable_in_the_tools_of_a_store() -> None:
    assert (
        encode_headers(MappingProxyType({"trace": "a-1", "é": "ü"})) == b'{"trace":"a-1","\\u00e9":"\\u00fc"}'
    )


@pytest.mark.parametrize(
    "bad", [None, 7, "x", [("a", "b")], {"a": 1}, {"a": None}, {1: "a"}, {"a": b"b"}, {"a": {}}]
)
def test_others_are_refused(bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^headers: must "):
        encode_headers(bad)


def test_they_are_bounded_in_bytes() -> None:
    fits = "x" * (MAX_HEADERS - len('{"a":""}'))
    assert len(encode_headers({"a": fits})) == MAX_HEADERS
    with pytest.raises(InvalidArgumentError, match=f"have {MAX_HEADERS + 1} bytes as JSON, the limit"):
        encode_headers({"a": fits + "x"})
    with pytest.raises(InvalidArgumentError, match="limit"):
        encode_headers({"a": "é" * MAX_HEADERS})


@given(st.binary(max_size=50))
def test_foreign_bytes_are_no_headers(data: bytes) -> None:
    headers = decode_headers(data)
    assert all(isinstance(part, str) for pair in headers.items() for part in pair)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (b"\xff", {}),
        (b"[" * 100_000, {}),
        (b"[1]", {}),
        (b"7", {}),
        (json.dumps({"a": "b", "c": 7, "d": None, "e": {"f": "g"}}).encode(), {"a": "b"}),
    ],
    ids=["no text", "too deep", "list", "number", "mixed"],
)
def test_what_is_no_text_is_left_out(stored: bytes, read: dict[str, str]) -> None:
    assert decode_headers(stored) == read
