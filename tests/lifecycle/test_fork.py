"""What a child that is forked after the start may not use, and what it is told."""

from __future__ import annotations

from tests.lifecycle.processes import Process, Start

CALLS = [
    "enqueue",
    "enqueue_and_wait",
    "start",
    "reaper.start",
    "storage.open",
    "storage.lock_holder",
    "another queue",
    "start after stop",
]
MEMORY_CALLS = [
    "open",
    "insert",
    "exchange",
    "lock_acquire",
    "wait_for_work",
    "queue",
    "closed",
    "after close",
]


async def test_a_memory_store_is_of_one_process() -> None:
    process = await Process.start("-W", "ignore::DeprecationWarning", "forking_memory.py")
    try:
        for name in MEMORY_CALLS:
            told = await process.expect(f"^{name}: ")
            assert "before a fork" in told.string, process.said
            assert "make a new MemoryStorage in the child" in told.string
        await process.expect("^fresh: 42")  # nobody had opened it before the fork: it is the child's own
        await process.expect("^child exit 0")
        await process.expect(r"^parent: \['a'\]")
        assert await process.wait() == 0
    finally:
        await process.end()


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
    await process.expect("^start during the parent's stop: WrongLoopError")
    await process.expect("^second child exit 0")
    await process.expect("^parent ended")
    assert await process.wait() == 0
