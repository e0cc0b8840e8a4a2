"""A handle for another thread: leases are renewed from one, whatever the main loop does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from jobqueue.errors import StorageError
from jobqueue.model.states import Action
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import LeaseStatus, Renewal, Reply
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, LIMIT, WAIT, Box, Jobs, job

__all__ = ["ThreadCases"]

_T = TypeVar("_T")


class ThreadCases(Cases):
    """Another thread's event loop."""

    async def in_thread(
        self, storage: Storage, use: Callable[[Storage, Callable[[], None]], Coroutine[Any, Any, _T]]
    ) -> asyncio.Task[_T]:
        """Use a clone in a thread of its own; return when ``use`` has called back that it is ready."""
        ready = threading.Event()
        clone = storage.clone()

        async def main() -> _T:
            await clone.open()
            try:
                async with asyncio.timeout(LIMIT):
                    return await use(clone, ready.set)
            finally:
                await clone.close()
                ready.set()

        task = asyncio.create_task(asyncio.to_thread(asyncio.run, main()))
        await asyncio.to_thread(ready.wait, LIMIT)
        return task

    async def test_leases_are_renewed_from_another_thread(self, jobs: Jobs) -> None:
        await jobs.put("a")
        run = await jobs.claim_one()
        jobs.clock.move(1)

        async def renew(store: Storage, ready: Callable[[], None]) -> list[LeaseStatus]:
            return await store.extend("q", "w", [Renewal("a", run.fence, b"half")], LEASE)

        assert await (await self.in_thread(jobs.storage, renew)) == [LeaseStatus.HELD]
        record = await jobs.record("a")
        assert (record.progress, record.lease_until) == (b"half", jobs.clock.now_ms() + LEASE)

    async def test_both_threads_work_at_once(self, jobs: Jobs) -> None:
        async def work(store: Storage, ready: Callable[[], None]) -> list[str]:
            ready()
            there = Jobs(store, jobs.clock)
            for n in range(40):
                await there.put(f"there-{n}")
            return [id for _ in range(40) for id in await there.claim_ids(1)]

        task = await self.in_thread(jobs.storage, work)
        for n in range(40):
            await jobs.put(f"here-{n}")
        here = [id for _ in range(40) for id in await jobs.claim_ids(1)]
        claimed = [*here, *await task, *await jobs.claim_ids()]
        assert sorted(claimed) == sorted(f"{where}-{n}" for where in ("here", "there") for n in range(40))

    async def test_a_wait_in_another_thread_is_woken(self, jobs: Jobs) -> None:
        async def wait(store: Storage, ready: Callable[[], None]) -> bool:
            waiting = asyncio.create_task(store.wait_for_work("q", "idle", WAIT))
            await asyncio.sleep(0)
            ready()
            return await waiting

        task = await self.in_thread(jobs.storage, wait)
        await jobs.put("a")
        assert await task is True

    async def test_a_sink_is_called_in_the_loop_that_subscribed(self, jobs: Jobs) -> None:
        threads: list[int] = []

        class Here(Box):
            def deliver(self, replies: Sequence[Reply]) -> None:
                threads.append(threading.get_ident())
                super().deliver(replies)

            def cancel_requested(self, queue: str, id: str, fence: int) -> None:
                threads.append(threading.get_ident())
                super().cancel_requested(queue, id, fence)

        async def listen(store: Storage, ready: Callable[[], None]) -> tuple[Box, int]:
            box = Here()
            await store.subscribe("q", "w", box)
            ready()
            await box.take(replies=1, cancels=1)
            await store.unsubscribe("q", "w", box)
            return box, threading.get_ident()

        task = await self.in_thread(jobs.storage, listen)
        await jobs.insert(job("a", wait=True), reply_to="w")
        run = await jobs.claim_one(worker="w")
        await jobs.cancel("a", running=True)
        await jobs.settle(run, Action.CANCEL)
        box, thread = await task
        assert ([reply.id for reply in box.replies], box.cancels) == (["a"], [("q", "a", run.fence)])
        assert set(threads) == {thread}

    async def test_a_thread_that_ended_without_a_word_harms_nobody(self, jobs: Jobs) -> None:
        async def subscribe(store: Storage, ready: Callable[[], None]) -> None:
            await store.subscribe("q", "me", Box())

        await (await self.in_thread(jobs.storage, subscribe))
        box = Box()
        await jobs.storage.subscribe("q", "me", box)
        await jobs.insert(job("a", wait=True), reply_to="me")
        await jobs.complete(await jobs.claim_one())
        assert (await box.reply()).id == "a"

    async def test_a_call_from_another_event_loop_is_answered_or_refused(self, jobs: Jobs) -> None:
        await jobs.put("a")

        def elsewhere() -> int | None:
            try:
                return asyncio.run(jobs.storage.counts("q")).queued
            except StorageError:
                return None

        assert await asyncio.to_thread(elsewhere) in {1, None}
        assert (await jobs.storage.counts("q")).queued == 1
