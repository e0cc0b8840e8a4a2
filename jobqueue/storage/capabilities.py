"""The optional abilities of a store, each a small protocol: a store has one by having its calls.

This is how the contract grows: `jobqueue.storage.contract.Storage` stays closed, so that a store written
today is whole tomorrow. A feature that cannot do without a capability asks for it by `require`; one that is
merely faster or tells more with it looks by ``isinstance``. Each has at most four calls, batch first, and
each call is one atomic step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from jobqueue.errors import UnsupportedError
from jobqueue.storage.contract import Storage, members
from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.transactions import Inserter, OpenTransaction
from jobqueue.storage.values import (
    AdmissionInfo,
    Change,
    Document,
    DocumentPage,
    Exchanged,
    Inserted,
    NewJob,
    Rules,
    Usage,
)

__all__ = [
    "Admission",
    "AnswersAtOnce",
    "Checkable",
    "ClaimsOnArrival",
    "Diagnosable",
    "Documents",
    "Finding",
    "Hampered",
    "HasSchema",
    "HoldsIds",
    "Limiting",
    "MadeOnOpening",
    "OverlapsCalls",
    "ReportsLoading",
    "Revival",
    "Severity",
    "Sweepable",
    "Tended",
    "Totals",
    "Transactional",
    "require",
]

C = TypeVar("C")


def require(store: Storage, capability: type[C], feature: str) -> C:
    """Return the store as one that has the capability; raise `UnsupportedError` if it lacks it.

    ``feature`` is what the caller needs it for, in words of users: ``schedules``. It begins the message.
    """
    if isinstance(store, capability):
        return store
    lacks = members(capability)
    kind = type(store).__name__
    remedy = (
        f"use a store that has it, or give {kind} the {'call' if len(lacks) == 1 else 'calls'} "
        f"{', '.join(lacks)} of jobqueue.storage.{capability.__name__}"
    )
    raise UnsupportedError(feature, kind, capability.__name__, remedy)


@runtime_checkable
class AnswersAtOnce(Protocol):
    """A store in this process whose calls never suspend their caller, unless they wait for work or a lock.

    Callers spare the provisions for a store that is silent.
    """

    @property
    def answers_at_once(self) -> bool:
        """True if that holds for this very object: a class built on another may suspend."""
        ...


@runtime_checkable
class OverlapsCalls(Protocol):
    """A store that works on one call while the answer to another of the same worker is on its way.

    A worker with large batches then has two exchanges under way; their answers have to come in the order of
    the calls. Not for a store on which they would wait for each other.
    """

    @property
    def overlaps_calls(self) -> bool:
        """True if that holds for this very object."""
        ...


@runtime_checkable
class ClaimsOnArrival(Protocol):
    """A store that can wait for jobs and claim them in one call, which saves a round trip."""

    async def claim_on_arrival(
        self, queue: str, worker: str, limit: int, lease: int, timeout: float
    ) -> Exchanged | None:
        """Wait as `Storage.wait_for_work` does, then claim jobs as `Storage.exchange` does, in one step.

        The answer may come early and bring no job; it says ``more`` if jobs are left. ``None``: the store
        could not do it; use `exchange`. Jobs that a cancelled call has claimed are given back.
        """
        ...


@runtime_checkable
class Diagnosable(Protocol):
    """A store that can judge whether its server or disk, and their settings, are fit."""

    async def diagnose(self) -> Sequence[Finding]:
        """Judge the server or disk. Needs an open store. Raises `StorageError`.

        A finding on the round trip has the name ``latency``.
        """
        ...


@runtime_checkable
class Hampered(Protocol):
    """A store that can tell what others do to its server that slows it down."""

    async def hindrances(self) -> Sequence[Finding]:
        """Return what there is now, a finding each; none as a rule. Takes one round trip.

        Needs an open store. Raises `StorageError`.
        """
        ...


@runtime_checkable
class Checkable(Protocol):
    """A store that can check its own data."""

    async def check(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check every invariant of the data; one finding for each breach, none if all is well.

        Needs a store that is *not* open, since one that is damaged may refuse to open. With
        ``repair``, breaches are mended where possible and found as `Severity.WARNING`. Raises
        `StorageError`, also if the store cannot repair.
        """
        ...


@runtime_checkable
class ReportsLoading(Protocol):
    """A store that reads all its data, for seconds if they are many, when it is opened or checked."""

    def report_loading(self, progress: Callable[[int, int], None]) -> None:
        """Call ``progress`` with the bytes read and the bytes to read, equal at the end.

        Applies from the next opening or check on; called from any thread. A function that the store was
        given before stays.
        """
        ...


@runtime_checkable
class MadeOnOpening(Protocol):
    """A store that `open` makes if it does not exist, so that a wrong name makes an empty store."""

    @property
    def exists(self) -> bool:
        """Whether the store exists already."""
        ...


@runtime_checkable
class HasSchema(Protocol):
    """A store whose tables are made before it is opened, by a user that may make them."""

    async def apply_schema(self) -> tuple[int, int]:
        """Make the schema or bring it up to date; return the versions before and after.

        Harmless when it is up to date, and by several at once. Raises `StorageError` if it is newer.
        """
        ...

    async def check_schema(self) -> int:
        """Return the version; raise `StorageError` unless it is the one that this release works with."""
        ...

    def schema_script(self) -> str:
        """Return the SQL that makes the schema."""
        ...


@runtime_checkable
class Sweepable(Protocol):
    """A store that finds the queues with something to sweep faster than by sweeping each of them."""

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return those of the queues in which a sweep would recover a job or a purge delete a record.

        In the order given. Queues may be named in which nothing is found. Workers that have left no
        lease and queues without a record need no haste: they are forgotten by the next purge.
        """
        ...


@runtime_checkable
class Tended(Protocol):
    """A store that has work of its own beside sweeping: whoever leads the reapers does it."""

    async def tend(self) -> None:
        """Do that work until cancelled. Any number may do it at once; faults are retried within."""
        ...


@runtime_checkable
class Totals(Protocol):
    """A store that counts ended jobs, whether or not their records still exist."""

    async def ended(self, queue: str) -> int:
        """Return how many jobs of a queue have ended, in any way. Never falls.

        Only the difference between two answers of one open store means something: a store may begin
        anew when it is opened, or when the queue was empty.
        """
        ...


@runtime_checkable
class Admission(Protocol):
    """A store that keeps rules for each queue, which every claim obeys: pause, and see `Limiting`.

    A claim obeys the rules that stand when it is made, in the same atomic step: after `set_rules` has
    returned, no job is handed out against them, not even by a call that was under way. Rules stay when the
    queue is empty, and outlive the store's processes. Rules with limits raise `UnsupportedError` unless the
    store is `Limiting`.
    """

    async def set_rules(self, queue: str, rules: Rules | None, *, expected: Rules | None = None) -> bool:
        """Replace the rules of a queue (``None``: by those of `Rules`, which restrict nothing).

        With ``expected``, only if these are its rules now; returns whether they were replaced. So that one
        rule can be changed without undoing what others change meanwhile. Whoever waits for work is woken
        when more may be claimed than before.
        """
        ...

    async def get_rules(self, queue: str, *, counted: bool = True) -> AdmissionInfo:
        """Return the rules of a queue and where it stands, as one atomic look.

        Who needs the rules alone says so by ``counted=False``: the rest may then be 0 and ``None``, where to
        count takes as long as there are jobs.
        """
        ...


@runtime_checkable
class Limiting(Admission, Protocol):
    """A store whose claims obey the limits in `Rules` too, and hand the jobs of groups out in turns.

    No claim hands out more than the limits allow when it is made, whoever else claims; leases that have ended
    in any way count no more, and what a sweep recovers neither. Priorities come first. Among the ready jobs
    of one priority groups take turns: each starts as many jobs as the ``weight`` of its next one says, and
    then goes behind all others, where also a group stands whose first job becomes ready. A group that may not
    start any keeps its turn until it may. Jobs without a group take turns as one group, begin, and have no
    limit of a group. Within a group jobs keep their order.

    A rate is kept as `jobqueue.model.limits.admit` says. Nothing is kept of a group without ready and running
    jobs once its rate is open.
    """

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where groups stand by the limit of groups; ``""``: the queue by its own."""
        ...


@runtime_checkable
class Documents(Protocol):
    """A store that keeps small named values, in spaces that do not touch each other: schedules, settings.

    Names of spaces and documents are as those of jobs, and never meet them: 1 to 256 bytes of UTF-8.
    """

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read documents, at most `MAX_CHANGES`; ``None`` where there is none."""
        ...

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        """Make up to `MAX_CHANGES` changes in one atomic step, in order, each one alone.

        Compare and set: a change whose ``expected`` version is not the present one does nothing and is
        answered with ``None``; any other with the version that it has made. Deletions count as versions too:
        no version of a name comes twice, not even when it was deleted and made again.
        """
        ...

    async def list_documents(self, space: str, limit: int, cursor: str | None = None) -> DocumentPage:
        """List the documents of a space, up to ``limit`` and about `MAX_DOCUMENT_PAGE` bytes a page.

        One that is there from the first page to the last is listed exactly once, in the store's own order.
        A cursor that the store did not give raises `InvalidArgumentError`.
        """
        ...


@runtime_checkable
class Revival(Protocol):
    """A store that can run failed jobs again, and delete records before their time."""

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Make failed jobs, dead letters included, due in ``delay`` ms; return for each whether it did.

        Such a job is `queued` (at the back) or `scheduled`, with a new ``seq``, no attempts and no stalls.
        Progress, checkpoint and error are gone, its history stays, and ``created_at`` with all that it was
        inserted with; ``payload`` replaces that of each. Any other job stays as it is.
        """
        ...

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete ended jobs, dead letters included, and waiting ones; return for each whether it did.

        Running ones stay. A waiting job ends as cancelled first, so its waiters are sent a `Reply`.
        """
        ...


@runtime_checkable
class HoldsIds(Protocol):
    """A store in which an open transaction of somebody else can hold an id, for as long as it likes.

    `Storage.insert` waits for such an id, `held_for` seconds at most, while the other jobs of its batch exist
    already. Where callers share a batch, those others would wait with it: then this is called.
    """

    @property
    def held_for(self) -> float:
        """Seconds that an insertion waits for an id, until it raises `StorageUnavailableError`."""
        ...

    async def insert_free(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted | None]:
        """Insert jobs as `Storage.insert`, and do not wait: ``None`` for one whose id is held."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """A store in a database in which callers have transactions of their own."""

    def inside(self, connection: object) -> Inserter:
        """Return what inserts jobs in the open transaction of a connection.

        Raises `InvalidArgumentError` if that is no connection which this store knows, or has no transaction.
        """
        ...

    async def begin(self) -> OpenTransaction:
        """Open a transaction for a run, on a connection of its own. Raises `StorageError`."""
        ...
