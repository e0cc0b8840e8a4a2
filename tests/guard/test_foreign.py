"""Guards of other libraries' queues that start beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobqueue import PostgresLedger
from jobqueue.guard.foreign import ForeignGuard, Kept
from jobqueue.model.states import JobState
from jobqueue.storage.postgres.migrations import quoted
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection


class QueueInMemory:
    """A queue without jobs, on a server that loses nothing."""

    name = "theirs"

    def __init__(self) -> None:
        self.asked = 0

    async def mark(self) -> tuple[bytes, int]:
        self.asked += 1
        return b"epoch", self.asked

    async def look(self, ids: Sequence[str]) -> list[JobState | None]:
        return [None] * len(ids)

    async def put(self, jobs: Sequence[Kept]) -> None:
        assert not jobs

    def check(self, job: Kept) -> None:
        """Take any."""


async def test_one_that_starts_while_another_looks_at_the_server_sees_no_loss(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, ledger = QueueInMemory(), PostgresLedger(postgres_url(), schema)
    early = ForeignGuard(queue, ledger, interval=60.0)
    await early.start()
    await early.reconcile()
    late = ledger.clone()
    noted = late.server

    async def noted_late(name: str) -> tuple[bytes, int] | None:
        await early.reconcile()
        return await noted(name)

    monkeypatch.setattr(late, "server", noted_late)
    monkeypatch.setattr(ledger, "clone", lambda: late)
    guard = ForeignGuard(queue, ledger, interval=60.0)
    await guard.start()
    await guard.reconcile()
    await guard.close()
    await early.close()
    async with connection() as admin:
        assert await admin.fetch(f"select losses, mended from {quoted(schema)}.server") == [(0, 0)]
