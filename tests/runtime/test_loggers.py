"""Loggers whose lines no foreign text can forge."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

import jobqueue
from jobqueue.runtime.loggers import get_logger

FORGED = "x\n2026-01-01 ERROR all is lost\r\x1b[2J"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.DEBUG, "jobqueue.test")
    return get_logger("jobqueue.test")


def shown(caplog: pytest.LogCaptureFixture) -> str:
    return logging.Formatter("%(levelname)s %(message)s").format(caplog.records[-1])


class Odd:
    def __str__(self) -> str:
        return FORGED

    def __repr__(self) -> str:
        return FORGED


@pytest.mark.parametrize("value", [FORGED, ValueError(FORGED), Odd()], ids=["text", "error", "object"])
@pytest.mark.parametrize("form", ["%s", "%r"])
def test_an_argument_makes_no_line_of_its_own(
    log: logging.Logger, caplog: pytest.LogCaptureFixture, value: object, form: str
) -> None:
    log.warning(f"it is {form}, %d times in %.3g s: %s", value, 3, 0.25, None)  # noqa: G004
    text = shown(caplog)
    assert text.startswith("WARNING it is ")
    assert text.endswith(", 3 times in 0.25 s: None")
    assert not re.search(r"^2026", text, re.MULTILINE)
    assert not {"\r", "\x1b"} & set(text)


def test_nor_does_an_exception(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("it broke")
    first, *lines = shown(caplog).splitlines()
    assert first == "ERROR it broke"
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines)


def test_a_message_of_any_size_is_cut(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("y" * 1_000_000)
    except ValueError:
        log.exception("it broke")
    assert "Traceback" in shown(caplog)
    assert len(shown(caplog)) < 40_000


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_without_a_text_is_logged(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise Broken
    except Broken:
        log.exception("it broke")
    assert "Broken" in shown(caplog)


def test_a_logger_is_made_safe_once(log: logging.Logger) -> None:
    assert get_logger("jobqueue.test") is log
    assert len(log.filters) == 1


def test_every_logger_of_the_package_is_safe() -> None:
    package = Path(jobqueue.__file__).parent
    unsafe = [
        path.name
        for path in package.rglob("*.py")
        if "logging.getLogger(" in path.read_text() and path.name != "loggers.py"
    ]
    assert unsafe == []
