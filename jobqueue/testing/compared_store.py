"""A store beside the `Reference`: everything visible of both is the same after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from jobqueue.model.states import JobState
from jobqueue.storage.capabilities import Admission, Documents, Limiting
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import LockInfo, Record
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.contract.support import Box
from jobqueue.testing.programs import (
    ADDRESSES,
    GROUPS,
    IDS,
    LOCKS,
    NAMES,
    QUEUES,
    SPACES,
    WORKERS,
    Numbers,
    Run,
)
from jobqueue.testing.reference import Reference

__all__ = ["ComparedStore"]

_T = TypeVar("_T")


class ComparedStore(RuleBasedStateMachine):
    """Opens the store, asks its handles in turns, and compares all that can be seen after each step."""

    make_storage: Callable[[FakeClock], AbstractAsyncContextManager[Storage]]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.reference = Reference()
        self.seqs, self.fences = Numbers(), Numbers()
        self.terms = {lock: Numbers() for lock in LOCKS}
        self.versions = Numbers()
        self.runs: list[Run] = []
        self.boxes = {address: Box() for address in (*ADDRESSES, *WORKERS)}
        self.step = 0
        self.loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.context = type(self).make_storage(self.clock)
        self.handles: list[Storage] = []
        self.loop.run(self.open())

    async def open(self) -> None:
        storage = await self.context.__aenter__()
        self.handles = [storage, storage.clone()]
        self.reference.limiting = isinstance(storage, Limiting)
        for handle in self.handles:
            await handle.open()
        for address, box in self.boxes.items():
            for queue in QUEUES:
                await storage.subscribe(queue, address, box)

    def teardown(self) -> None:
        async def close() -> None:
            for handle in self.handles:
                await handle.close()
            await self.context.__aexit__(None, None, None)

        self.loop.run(close())
        self.loop.close()

    # -- plumbing ---------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    @property
    def store(self) -> Storage:
        """Take the two handles in turns: they must agree."""
        self.step += 1
        return self.handles[self.step % 2]

    def wait(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run(call)

    def normal(self, record: Record | None) -> Record | None:
        """Write a record in the numbers of the reference."""
        if record is None:
            return None
        assert record.created_at <= record.updated_at <= self.now
        return record._replace(seq=self.seqs(record.seq), fence=self.fences(record.fence), updated_at=0)

    def meet(self, queue: str, ids: Sequence[str]) -> None:
        """Learn the sequence numbers of jobs that a call has made without telling them."""
        records = self.wait(self.store.get(queue, ids))
        expected = self.reference.get(queue, ids, self.now)
        given: dict[int, int] = {}
        for record, wanted in zip(records, expected, strict=True):
            assert (record is None) == (wanted is None)
            if record is not None and wanted is not None and wanted.seq not in self.seqs.pairs.values():
                given[wanted.seq] = record.seq
        for seq in sorted(given):
            self.seqs.pair(given[seq], seq)

    def pick(self, queue: str, choice: int) -> Run | None:
        """Choose among the latest claims of a queue, of which most are lost."""
        runs = [run for run in self.runs if run.queue == queue][-8:]
        return runs[-1 - choice % len(runs)] if runs else None

    # -- what must hold after every step ----------------------------------------------------------

    @invariant()
    def all_that_can_be_seen_is_right(self) -> None:
        self.wait(self.look(self.store))

    async def look(self, store: Storage) -> None:
        for queue in QUEUES:
            await self.look_at_jobs(store, queue)
            await self.look_at_counts(store, queue)
            if isinstance(store, Admission):
                assert await store.get_rules(queue) == self.reference.get_rules(queue, self.now)
            if isinstance(store, Limiting):
                assert await store.usage(queue, GROUPS) == self.reference.usage(queue, GROUPS, self.now)
            assert await store.workers(queue) == self.reference.workers(queue, self.now)
        named = await store.queues()
        assert named == sorted(set(named))
        assert set(named) <= set(QUEUES)
        assert set(named) >= {queue for queue in QUEUES if self.reference.present(queue, self.now)}
        for lock in LOCKS:
            held = await store.lock_holder(lock)
            normal = held and LockInfo(held.owner, self.terms[lock](held.term), held.expires_at)
            assert normal == self.reference.lock_holder(lock, self.now)
        if isinstance(store, Documents):
            await self.look_at_documents(store)
        await self.look_at_pushes()

    async def look_at_documents(self, store: Documents) -> None:
        for space in SPACES:
            found = await store.read_documents(space, NAMES)
            normal = [one and one._replace(version=self.versions(one.version)) for one in found]
            assert normal == [self.reference.documents.get((space, name)) for name in NAMES]
            page = await store.list_documents(space, 100)
            assert sorted(page.documents) == sorted(one for one in found if one is not None)

    async def look_at_jobs(self, store: Storage, queue: str) -> None:
        records = await store.get(queue, IDS, payload=True)
        expected = self.reference.get(queue, IDS, self.now)
        assert [self.normal(one) for one in records] == expected
        for state in JobState:
            listed = await scan(store, queue, state)
            assert len({record.id for record in listed}) == len(listed)
            assert {one.id: self.normal(one) for one in listed} == self.reference.scan(queue, state, self.now)

    async def look_at_counts(self, store: Storage, queue: str) -> None:
        counts, expected = await store.counts(queue), self.reference.counts(queue, self.now)
        assert counts._replace(oldest=None) == expected._replace(oldest=None)
        ready = self.reference.ready(queue, self.now)
        if isinstance(store, Limiting) and any(job.new.group for job in ready):
            assert counts.oldest in {job.created_at for job in ready}
        else:
            assert counts.oldest == expected.oldest

    async def look_at_pushes(self) -> None:
        for address, box in self.boxes.items():
            replies = [reply for to, reply in self.reference.replies if to == address]
            wanted = {request[1:] for request in self.reference.requests if request[0] == address}
            await box.take(replies=len(replies), cancels=len(wanted))
            sent = [reply._replace(seq=self.seqs(reply.seq)) for reply in box.replies]
            assert sorted(sent, key=str) == sorted(replies, key=str)
            asked = {(queue, id, self.fences(fence)) for queue, id, fence in box.cancels}
            assert asked == wanted


async def scan(store: Storage, queue: str, state: JobState, limit: int = 2) -> list[Record]:
    """List a state by small pages."""
    listed: list[Record] = []
    cursor = None
    while True:
        page = await store.scan(queue, state, limit, cursor)
        listed += page.records
        cursor = page.cursor
        if cursor is None:
            return listed
        assert len(listed) <= len(IDS), "the pages do not end"
