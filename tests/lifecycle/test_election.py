"""Reapers as processes: who leads, when they die, freeze or stop, and what two leaders do."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from jobqueue import Queue
from jobqueue.model.names import REAPER_LOCK
from jobqueue.storage.contract import Storage
from tests.lifecycle.processes import BOUND, Process, Start, eventually, state_of, within

LEADS = r"reaper (\S+) leads, term (\d+)"
LOST = r"reaper \S+ no longer leads term (\d+): (.*)"


async def elected(start: Start, ttl: float, *options: str) -> tuple[Process, Process, int]:
    """Start two reapers; return the leader, the follower and the term."""
    election = ("--leader-election", "--lock-ttl", str(ttl), *options)
    leader = await start.reaper(*election)
    found = await leader.expect(LEADS)
    follower = await start.reaper("--health-port", "0", *election)
    await follower.expect("health on")
    return leader, follower, int(found[2])


async def term_of(process: Process) -> int:
    return int((await process.expect(LEADS))[2])


async def test_a_follower_leads_when_the_lock_of_a_killed_leader_expires(
    storage: Storage, start: Start
) -> None:
    # By its own tries the follower would come after a minute: it knows when the lock is to expire.
    leader, follower, term = await elected(start, 2.0, "--acquire-retry-interval", "60")
    holder = await storage.lock_holder(REAPER_LOCK)
    assert holder is not None
    assert holder.term == term
    began = time.monotonic()
    await leader.kill()
    assert await term_of(follower) > term
    assert time.monotonic() - began < 2.0 + 2.0  # the lock's TTL, and what a busy machine takes
    assert follower.count(LEADS) == 1


async def test_a_leader_that_stops_hands_over_at_once(storage: Storage, start: Start) -> None:
    # By its own tries the follower would come after a quarter of an hour: it is told.
    leader, follower, term = await elected(start, 3600.0, "--acquire-retry-interval", "900")
    await waiting(follower)
    began = time.monotonic()
    leader.signal(signal.SIGTERM)
    assert await term_of(follower) > term
    assert time.monotonic() - began < 5.0
    assert (await leader.expect(LOST))[2] == "stopped"
    assert await leader.wait() == 0


async def waiting(follower: Process) -> None:
    """Wait until a follower has asked for the lock, been refused, and waits for it."""
    port = next(line for line in follower.lines if "health on" in line).rpartition(":")[2].partition("/")[0]

    async def ready() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return b" 200 " in answer

    await eventually(ready)


async def test_a_leader_frozen_beyond_its_lock_steps_down(
    storage: Storage, queue: Queue[Any, Any], start: Start
) -> None:
    frozen, follower, term = await elected(start, 1.5)
    await frozen.freeze(storage)
    second = await term_of(follower)
    assert second > term
    doomed = await start.worker()
    await queue.enqueue_many([(f"job-{number}", {"forever": 1}) for number in range(4)])
    await doomed.expect("^run job-3 1")
    await doomed.kill()
    frozen.thaw()  # two believe that they lead, for a moment, and sweep
    assert int((await frozen.expect(LOST))[1]) == term
    await start.worker(lease=60.0)
    for number in range(4):
        assert (await queue.wait(f"job-{number}", timeout=BOUND))["attempt"] == 2
    holder = await storage.lock_holder(REAPER_LOCK)
    assert holder is not None
    assert holder.term == second
    await follower.kill()
    assert await term_of(frozen) > second


async def test_any_number_of_reapers_at_once_recover_each_job_once(
    queue: Queue[Any, Any], start: Start
) -> None:
    ids = [f"job-{number}" for number in range(40)]
    reapers = [await start.reaper("--sweep-interval", "0.02") for _ in range(3)]
    await queue.enqueue_many([(id, {"forever": 1}) for id in ids])
    doomed = await start.worker(concurrency=len(ids), lease=3.0)
    for _ in ids:
        await doomed.expect("^run ")
    await doomed.kill()
    await start.worker(concurrency=len(ids), lease=60.0)  # which no pause of this machine ends
    results = await within(asyncio.gather(*(queue.wait(id, timeout=BOUND) for id in ids)))
    assert {result["attempt"] for result in results} == {2}
    for process in reapers:
        process.signal(signal.SIGTERM)
        assert await process.wait() == 0
    for id in ids:
        assert sum(process.count(f"job '{id}' of q: .* lost its lease") for process in reapers) == 1
        assert await state_of(queue, id) == ("completed", 2)
