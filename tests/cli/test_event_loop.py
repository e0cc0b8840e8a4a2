"""The event loop that commands run on."""

from __future__ import annotations

import asyncio
import sys

import pytest

from jobqueue.cli.running import run_fast


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


async def broken() -> None:
    raise ZeroDivisionError


def test_uvloop_is_used_where_it_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert run_fast(loop_module()).startswith("uvloop")


def test_without_uvloop_an_error_shows_nothing_of_the_search_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_fast(loop_module()).startswith("asyncio")
    with pytest.raises(ZeroDivisionError) as raised:
        run_fast(broken())
    assert raised.value.__context__ is None
