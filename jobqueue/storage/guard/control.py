"""What an operator asks a guard."""

from __future__ import annotations

from collections.abc import Callable

from jobqueue.model.checks import check_callable, check_count, check_id, check_queue_name
from jobqueue.model.states import JobState
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.notices import Notices
from jobqueue.storage.guard.session import GuardSession
from jobqueue.storage.guard.values import CODES, GuardEvent, GuardNotice, GuardStats, Reconciled

__all__ = ["Guard"]


class Guard:
    """The operator's view of a `GuardedStorage`. Its calls need an open store.

    They raise `StorageUnavailableError` while PostgreSQL is away; the properties always answer.
    """

    def __init__(self, session: Callable[[], GuardSession], ledger: PostgresLedger, notices: Notices) -> None:
        self._session = session
        self._ledger = ledger
        self._notices = notices

    def listen(self, listener: Callable[[GuardNotice], None]) -> None:
        """Call a function with what befalls the guard of this process, also before the store is opened.

        In the event loop: it must not block. What it raises is logged.
        """
        check_callable("listener", listener)
        self._notices.add(listener)

    @property
    def breaker(self) -> str:
        """Whether the ledger is asked: ``closed`` (it is), ``open``, or ``half_open`` (one call tries)."""
        return self._session().gate.state.value

    @property
    def buffered(self) -> int:
        """Number of writes of this process that the ledger does not have yet."""
        return len(self._session().outbox)

    @property
    def lost(self) -> int:
        """Number of writes of this process that found no room while the ledger was away, or were refused."""
        return self._session().outbox.lost

    @property
    def waited(self) -> float:
        """Seconds that callers in this process have waited for the ledger to catch up, all together."""
        return self._session().outbox.waited

    @property
    def brought_back(self) -> int:
        """Number of jobs that this process has given back to the store."""
        return self._session().reconciler.brought_back

    @property
    def losses(self) -> int:
        """How often this process has found the store wiped or set back."""
        return self._session().losses

    async def stats(self, queue: str | None = None) -> GuardStats:
        """Count the jobs of the ledger, or those of one queue in it."""
        if queue is not None:
            check_queue_name(queue, "queue")
        counts = await self._ledger.counts(queue)
        beat = await self._ledger.beat()

        def of(*states: JobState) -> int:
            return sum(counts.get(CODES[state], 0) for state in states)

        return GuardStats(
            of(JobState.QUEUED, JobState.SCHEDULED), of(JobState.PROCESSING), of(JobState.COMPLETED),
            of(JobState.FAILING), beat.stuck, of(JobState.FAILED), sum(counts.values()), self.buffered,
            self.breaker,
        )  # fmt: skip

    async def reconcile(self, queue: str | None = None) -> Reconciled:
        """Compare the ledger with the store now, without a limit to the rate; return what was done."""
        if queue is not None:
            check_queue_name(queue, "queue")
        return await self._session().reconciler.once(loss=True, queue=queue)

    async def history(self, queue: str, id: str, *, limit: int = 10) -> list[GuardEvent]:
        """Return what happened to the last ``limit`` jobs of an id, oldest first; empty if none is known."""
        check_queue_name(queue, "queue")
        check_id(id, "id")
        return await self._ledger.history(queue, id, check_count("limit", limit))
