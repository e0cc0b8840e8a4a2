"""Serdes: from values to bytes and back."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue import JsonSerde, MsgpackSerde, SerializationError, TooLargeError
from jobqueue.model.serde import dump, load

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_json_is_what_the_standard_library_writes(value: Any) -> None:
    serde = JsonSerde()
    data = serde.dumps(value)
    assert data == json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    assert serde.loads(data) == value
    assert serde.loads(json.dumps(value, indent=2).encode()) == value


@settings(max_examples=100, deadline=None)
@given(values | st.binary())
def test_msgpack_round_trips(value: Any) -> None:
    serde = MsgpackSerde()
    assert serde.loads(serde.dumps(value)) == value


@pytest.mark.parametrize(
    "value", [None, True, False, 0, 1, "", "a", [], {}, 1.5, -0.0, [None, True, False], {"a": None}]
)
def test_small_values_keep_their_type(value: Any) -> None:
    for serde in (JsonSerde(), MsgpackSerde()):
        again = serde.loads(serde.dumps(value))
        assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [-math.inf], object(), {1, 2}, b"x", {(1,): 2}, "\ud800", 1j]
)
def test_json_refuses(value: Any) -> None:
    with pytest.raises(SerializationError, match="the thing cannot be serialized by JsonSerde"):
        dump(JsonSerde(), value, "the thing", 1000)


@pytest.mark.parametrize("data", [b"", b" ", b"{", b"1 2", b"nul", b"\xff", b"[1,]", b'"a', b"1]"])
def test_json_refuses_to_read(data: bytes) -> None:
    with pytest.raises(SerializationError, match="the thing cannot be read by JsonSerde"):
        load(JsonSerde(), data, "the thing")


@pytest.mark.parametrize("data", [b" 1", b"1 ", b"\n[1, 2]\n", b'\t{"a" : 1} '])
def test_json_reads_around_white_space(data: bytes) -> None:
    assert load(JsonSerde(), data, "it") == json.loads(data)


def test_json_reads_what_is_too_deep_as_an_error() -> None:
    with pytest.raises(SerializationError):
        load(JsonSerde(), b"[" * 100_000, "it")
    deep: Any = []
    for _ in range(100_000):  # more than C code recurses, which from 3.12 on has a limit of its own
        deep = [deep]
    with pytest.raises(SerializationError):
        dump(JsonSerde(), deep, "it", 10**6)


class Rows(dict[str, Any]):
    pass


def in_itself(kind: str) -> Any:
    """Return 200 kB of rows that contain themselves somewhere."""
    rows: list[Any] = [{"name": f"row {n:07d}", "parts": [n]} for n in range(5_000)]
    whole: dict[str, Any] = {"rows": rows}
    inner = {
        "dict": whole,
        "list": rows,
        "row": rows[2_500],
        "tuple": (1, rows),
        "subclass": Rows(rows=whole),
    }
    rows[2_500]["parts"].append(inner[kind])
    return whole


@pytest.mark.parametrize("serde", [JsonSerde(), MsgpackSerde()], ids=repr)
@pytest.mark.parametrize("kind", ["dict", "list", "row", "tuple", "subclass"])
def test_a_value_that_contains_itself_is_refused_at_once(serde: Any, kind: str) -> None:
    value = in_itself(kind)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(SerializationError, match="Circular reference"):
            dump(serde, value, "it", 10**9)
        assert time.process_time() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    value["rows"][2_500]["parts"].pop()  # what was open when it failed is forgotten
    assert load(serde, dump(serde, value, "it", 10**9), "it") == value


@pytest.mark.parametrize("serde", [JsonSerde(), MsgpackSerde()], ids=repr)
def test_a_part_that_is_used_twice_is_no_circle(serde: Any) -> None:
    part = [{"a": []}]
    value = {"one": part, "two": [part, part]}
    assert load(serde, dump(serde, value, "it", 1000), "it") == value


@pytest.mark.parametrize("serde", [JsonSerde(), MsgpackSerde()], ids=repr)
def test_what_is_too_deep_is_an_error(serde: Any) -> None:
    deep: Any = "x" * 10_000
    for _ in range(100_000):
        deep = {"a": [deep]}
    began = time.process_time()
    with pytest.raises(SerializationError):
        dump(serde, deep, "it", 10**9)
    assert time.process_time() - began < 1


def test_one_value_may_be_written_by_several_threads() -> None:
    serde, value = JsonSerde(), [[n] for n in range(20_000)]
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(serde.dumps, [value] * 16))) == 1


def test_json_without_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    serde = JsonSerde()
    assert serde.dumps({"a": [1, None, "é"]}) == '{"a":[1,null,"é"]}'.encode()
    with pytest.raises(SerializationError):
        dump(serde, math.nan, "it", 100)


def test_the_cap_counts_bytes() -> None:
    assert dump(JsonSerde(), "é" * 4, "it", 10) == b'"' + "éééé".encode() + b'"'
    with pytest.raises(TooLargeError, match="it has 12 bytes, the limit is 10: store it elsewhere"):
        dump(JsonSerde(), "é" * 5, "it", 10)


def test_reprs_say_what_it_is() -> None:
    assert (repr(JsonSerde()), repr(MsgpackSerde())) == ("JsonSerde()", "MsgpackSerde()")


def test_nothing_is_executed_by_reading() -> None:
    import pickle

    for serde in (JsonSerde(), MsgpackSerde()):
        with pytest.raises(SerializationError):
            load(serde, pickle.dumps(object()) + b"\xc1", "it")
