"""Named locks with terms."""

from __future__ import annotations

import asyncio

import pytest

from jobqueue.storage.contract import Storage
from jobqueue.storage.values import LockInfo
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LIMIT, WAIT, Jobs, run_out

__all__ = ["LockCases"]

TTL = 10_000


class LockCases(Cases):
    """Locks."""

    async def test_a_free_lock_is_taken(self, jobs: Jobs) -> None:
        store = jobs.storage
        assert await store.lock_holder("lock") is None
        term = await store.lock_acquire("lock", "me", TTL)
        assert term is not None
        assert term > 0
        assert await store.lock_holder("lock") == LockInfo("me", term, jobs.clock.now_ms() + TTL)

    async def test_a_held_lock_is_refused(self, jobs: Jobs) -> None:
        store = jobs.storage
        term = await store.lock_acquire("lock", "me", TTL)
        before = await store.lock_holder("lock")
        jobs.clock.move(1)
        assert await store.lock_acquire("lock", "you", TTL) is None
        assert await store.lock_renew("lock", "you", TTL) is False
        assert await store.lock_release("lock", "you") is False
        assert await store.lock_holder("lock") == before
        assert before is not None
        assert before.term == term

    async def test_the_holder_gets_its_own_term_again(self, jobs: Jobs) -> None:
        store = jobs.storage
        term = await store.lock_acquire("lock", "me", TTL)
        jobs.clock.move(3)
        assert await store.lock_acquire("lock", "me", TTL) == term
        held = await store.lock_holder("lock")
        assert held is not None
        assert held.expires_at == jobs.clock.now_ms() + TTL

    async def test_renew(self, jobs: Jobs) -> None:
        store = jobs.storage
        term = await store.lock_acquire("lock", "me", TTL)
        jobs.clock.move(TTL / 1000 - 0.001)
        assert await store.lock_renew("lock", "me", 2 * TTL) is True
        assert await store.lock_holder("lock") == LockInfo("me", term or 0, jobs.clock.now_ms() + 2 * TTL)
        jobs.clock.move(2 * TTL / 1000 - 0.001)
        assert await store.lock_acquire("lock", "you", TTL) is None
        jobs.clock.move(0.001)
        assert await store.lock_renew("lock", "me", TTL) is False

    async def test_a_lock_ends_at_its_instant(self, jobs: Jobs) -> None:
        store = jobs.storage
        term = await store.lock_acquire("lock", "me", TTL) or 0
        jobs.clock.move(TTL / 1000 - 0.001)
        assert await store.lock_holder("lock") is not None
        assert await store.lock_acquire("lock", "you", TTL) is None
        jobs.clock.move(0.001)
        assert await store.lock_holder("lock") is None
        assert await store.lock_renew("lock", "me", TTL) is False
        assert await store.lock_release("lock", "me") is False
        assert (await store.lock_acquire("lock", "you", TTL) or 0) > term
        assert await store.lock_acquire("lock", "me", TTL) is None

    async def test_release(self, jobs: Jobs) -> None:
        store = jobs.storage
        assert await store.lock_release("lock", "me") is False
        term = await store.lock_acquire("lock", "me", TTL) or 0
        assert await store.lock_release("lock", "me") is True
        assert await store.lock_holder("lock") is None
        assert await store.lock_release("lock", "me") is False
        assert await store.lock_renew("lock", "me", TTL) is False
        assert (await store.lock_acquire("lock", "you", TTL) or 0) > term

    async def test_nobody_renews_what_nobody_holds(self, jobs: Jobs) -> None:
        assert await jobs.storage.lock_renew("lock", "me", TTL) is False
        assert await jobs.storage.lock_holder("lock") is None

    async def test_terms_rise_with_every_change_of_hands(self, jobs: Jobs) -> None:
        store = jobs.storage
        terms: list[int] = []
        for owner in ("a", "b", "a", "c"):
            terms.append(await store.lock_acquire("lock", owner, TTL) or 0)
            await store.lock_release("lock", owner)
        for owner in ("a", "b", "a"):
            terms.append(await store.lock_acquire("lock", owner, TTL) or 0)
            jobs.clock.move(TTL / 1000)
        assert terms == sorted(set(terms))
        assert terms[0] > 0

    async def test_an_owner_that_lost_its_lock_gets_a_new_term(self, jobs: Jobs) -> None:
        term = await jobs.storage.lock_acquire("lock", "me", TTL) or 0
        jobs.clock.move(TTL / 1000)
        assert (await jobs.storage.lock_acquire("lock", "me", TTL) or 0) > term

    @pytest.mark.parametrize("names", [("a", "b"), ("a", "A"), ("a:b", "a"), ("{a}", "a"), ("é", "e\u0301")])
    async def test_locks_are_independent(self, jobs: Jobs, names: tuple[str, str]) -> None:
        one, two = names
        assert await jobs.storage.lock_acquire(one, "me", TTL) is not None
        assert await jobs.storage.lock_holder(two) is None
        assert await jobs.storage.lock_acquire(two, "you", TTL) is not None
        assert await jobs.storage.lock_release(one, "me") is True
        held = await jobs.storage.lock_holder(two)
        assert held is not None
        assert held.owner == "you"

    async def test_of_many_that_want_it_one_gets_it(self, jobs: Jobs, other: Storage) -> None:
        handles = [jobs.storage, other]
        calls = [handles[n % 2].lock_acquire("lock", f"{n}", TTL) for n in range(16)]
        terms = await asyncio.gather(*calls)
        (winner,) = [n for n, term in enumerate(terms) if term is not None]
        held = await other.lock_holder("lock")
        assert held is not None
        assert (held.owner, held.term) == (f"{winner}", terms[winner])

    # -- waiting ----------------------------------------------------------------------------------

    async def test_waiting_for_a_free_lock_returns_at_once(self, jobs: Jobs) -> None:
        async with asyncio.timeout(LIMIT):
            assert await jobs.storage.wait_for_lock("lock", WAIT) is True

    async def test_a_release_wakes_who_waits(self, jobs: Jobs, other: Storage) -> None:
        await jobs.storage.lock_acquire("lock", "me", TTL)
        waits = [asyncio.create_task(store.wait_for_lock("lock", WAIT)) for store in (jobs.storage, other)]
        await jobs.clock.settle()
        assert not any(wait.done() for wait in waits)
        await jobs.storage.lock_release("lock", "me")
        async with asyncio.timeout(LIMIT):
            assert await asyncio.gather(*waits) == [True, True]

    async def test_waiting_for_a_held_lock_times_out(self, jobs: Jobs) -> None:
        await jobs.storage.lock_acquire("lock", "me", TTL)
        assert await run_out(jobs.clock, jobs.storage.wait_for_lock("lock", 0.05), 0.05) is False
        held = await jobs.storage.lock_holder("lock")
        assert held is not None
        assert held.owner == "me"

    async def test_a_wait_for_a_lock_can_be_cancelled(self, jobs: Jobs) -> None:
        await jobs.storage.lock_acquire("lock", "me", TTL)
        wait = asyncio.create_task(jobs.storage.wait_for_lock("lock", WAIT))
        await jobs.clock.settle()
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert await jobs.storage.lock_release("lock", "me") is True
        async with asyncio.timeout(LIMIT):
            assert await jobs.storage.wait_for_lock("lock", WAIT) is True
