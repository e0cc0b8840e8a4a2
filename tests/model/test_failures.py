"""What a handler raised, as text and as a decision."""

from __future__ import annotations

import pytest

from jobqueue import Fatal, Retry
from jobqueue.model.failures import deciding, error_info


def nested(depth: int, leaf: Exception) -> Exception:
    error = leaf
    for _ in range(depth):
        error = ExceptionGroup("deeper", [error])
    return error


def test_what_is_no_group_decides_itself() -> None:
    for error in (ValueError(), Fatal(), Retry(), KeyboardInterrupt()):
        assert deciding(error) is error


def test_fatal_decides_before_retry_and_the_group_if_there_is_neither() -> None:
    retry, later, fatal = Retry(), Retry(5), Fatal()
    assert deciding(ExceptionGroup("", [ValueError(), retry, later])) is retry
    assert deciding(ExceptionGroup("", [retry, ExceptionGroup("", [fatal])])) is fatal
    plain = ExceptionGroup("", [ValueError()])
    assert deciding(plain) is plain


def test_groups_may_be_deep() -> None:
    fatal = Fatal("no")
    deep = nested(5_000, fatal)
    assert deciding(deep) is fatal
    assert error_info(deep, with_traceback=True).message.endswith("jobqueue.Fatal: no")


def test_the_message_of_a_group_names_its_parts_the_deciding_one_first() -> None:
    info = error_info(ExceptionGroup("both", [ValueError("bad"), ExceptionGroup("in", [Fatal("no")])]))
    assert info.type == "ExceptionGroup"
    assert info.message == "both (2 sub-exceptions): jobqueue.Fatal: no; ValueError: bad"
    many = error_info(ExceptionGroup("many", [ValueError(str(n)) for n in range(500)]))
    assert many.message.endswith("ValueError: 9; and 490 more")


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error", [Broken(), ExceptionGroup("in a group", [Broken()])], ids=["alone", "group"]
)
def test_a_text_is_made_whatever_the_exception_does(error: Exception) -> None:
    info = error_info(error, with_traceback=True)
    assert "<str() of this exception raised RuntimeError>" in info.message
    assert info.traceback
