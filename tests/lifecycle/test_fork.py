"""What a child that is forked after the start may not use, and what it is told."""

from __future__ import annotations

from tests.lifecycle.processes import Start

CALLS = [
    "enqueue",
    "enqueue_and_wait",
    "start",
    "reaper.start",
    "storage.open",
    "storage.holder",
    "another queue",
    "start after stop",
]


async def test_a_forked_child_is_told_to_make_its_own(shared, start: Start) -> None:
    process = await start.script("forking.py", shared.url)
    for name in CALLS:
        told = await process.expect(f"^{name}: ")
        assert "before a fork: make a new" in told.string, process.said
        assert "in the child" in told.string
    # Nothing that the child did has harmed the parent, and one of its own works.
    await process.expect(r"^own queue: \d+")
    await process.expect("^child exit 0")
    await process.expect("^parent: True")
    await process.expect("^parent ended")
    assert await process.wait() == 0
