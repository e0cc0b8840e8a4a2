"""What the ledger does not have yet, beside a ledger that does what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from jobqueue.storage.guard.gate import Gate
from jobqueue.storage.guard.outbox import Outbox
from jobqueue.storage.guard.values import Change
from tests.support import until


class SlowLedger:
    """Takes no write until it is told to."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.errors: list[Exception] = []

    async def record(self, _changes: Sequence[Change]) -> None:
        if self.errors:
            raise self.errors.pop()
        await self.goes_on.wait()


async def test_what_is_on_its_way_to_the_ledger_counts_towards_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobqueue.storage.guard.outbox.MOST_BYTES", 10_000)
    ledger: Any = SlowLedger()
    outbox = Outbox(ledger, Gate(5, 60.0))
    outbox.start()
    for number in range(10):
        outbox.add(Change(f"{number:032x}"))
    await until(lambda: not outbox._changes)  # all are on their way
    for number in range(10, 30):
        outbox.add(Change(f"{number:032x}"))
    assert (len(outbox), outbox.lost) == (20, 10)
    ledger.goes_on.set()
    await until(lambda: not len(outbox))
    assert outbox._bytes == 0
    await outbox.close()


async def test_an_error_that_nobody_foresaw_does_not_end_the_writing() -> None:
    ledger: Any = SlowLedger()
    ledger.errors.append(RuntimeError("a bug"))
    ledger.goes_on.set()
    outbox = Outbox(ledger, Gate(5, 60.0))
    outbox.start()
    outbox.add(Change("0" * 32))
    await until(lambda: not len(outbox))
    assert (outbox._bytes, outbox.lost) == (0, 0)
    await outbox.close()
