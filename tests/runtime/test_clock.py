"""The clock of the system."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock


async def test_the_system_clock() -> None:
    assert isinstance(SYSTEM_CLOCK, Clock)
    assert not SYSTEM_CLOCK.virtual
    woken = asyncio.Event()
    SYSTEM_CLOCK.call_later(0.001, woken.set)
    before = SYSTEM_CLOCK.monotonic()
    await SYSTEM_CLOCK.sleep(0.002)
    await asyncio.wait_for(woken.wait(), 5)
    assert SYSTEM_CLOCK.monotonic() > before
    assert abs(SYSTEM_CLOCK.time() - datetime.now(UTC).timestamp()) < 5
    assert 1 <= SYSTEM_CLOCK.uniform(1, 2) <= 2
