"""Settlements that insert jobs: with the claims of their exchange they are one step."""

from __future__ import annotations

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.postgres.migrations import quoted
from jobqueue.storage.values import NewJob, SettleStatus
from tests.storage.postgres.support import connection, postgres_storage


async def test_an_exchange_whose_settlements_insert_jobs_is_one_transaction() -> None:
    async with postgres_storage() as store:
        await store.open()
        await store.insert("q", [NewJob(id, b"") for id in "abcd"])
        claimed = (await store.exchange("q", "w", [], 3, 60_000)).jobs
        done = [
            Settlement(job.id, job.fence, Action.COMPLETE, b"", 60_000, then=(NewJob(f"then-{job.id}", b""),))
            for job in claimed
        ]
        answer = await store.exchange("q", "w", done, 10, 60_000)
        assert answer.settled == [SettleStatus.ACCEPTED] * 3
        assert [job.id for job in answer.jobs] == ["d", "then-a", "then-b", "then-c"]
        name = quoted(store._settings.schema)
        async with connection() as admin:
            rows = await admin.fetch(
                f"select xmin::text from {name}.outcome union all select xmin::text from {name}.lease"
                f" union all select xmin::text from {name}.job where id like 'then-%'"
            )
        assert len(rows) == 3 + 4 + 3
        assert len({row[0] for row in rows}) == 1
        await store.close()
