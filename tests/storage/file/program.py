"""A program of calls that uses everything, and the account of what it was promised."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.file.calls import ReadCall, write
from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.commands.base import Command
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.upkeep.recovery import StoreDirectory
from jobqueue.storage.file.upkeep.rotation import ROTATE_AT, compact
from jobqueue.storage.values import InsertStatus, NewJob, Renewal, SettleStatus
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Quiet

LEASE, TTL = 30_000, 3_600_000


def make_core(
    directory: Path, files: Files, clock: FakeClock, *, rotate_at: int = ROTATE_AT, fsync: bool = True
) -> StoreCore:
    return StoreCore(StoreDirectory(files, directory), clock, fsync=fsync, rotate_at=rotate_at)


def compact_at(files: Files, path: Path) -> bool:
    with Directory.open(files, path) as directory:
        return compact(directory)


def one(core: StoreCore, call: Command[Any] | ReadCall[Any]) -> Any:
    """Make one call as a turn of its own."""
    (answer,) = core.turn([call if isinstance(call, ReadCall) else write(call)]).answers
    if isinstance(answer, BaseException):
        raise answer
    return answer


def read(core: StoreCore, name: str, *args: Any) -> Any:
    return one(core, ReadCall(lambda engine, now: getattr(engine, name)(*args, now)))


@dataclass
class Ledger:
    """What has been acknowledged."""

    live: set[str] = field(default_factory=set)
    done: dict[str, bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    """Jobs that a call in flight may have ended."""
    fence: int = 0
    term: int = 0


class Program:
    """Runs against a core, step by step, and keeps the ledger."""

    def __init__(self, directory: Path, files: Files, clock: FakeClock, ledger: Ledger, **options: Any):
        self.directory, self.files, self.clock, self.ledger = directory, files, clock, ledger
        self.core = make_core(directory, files, clock, rotate_at=3000, **options)

    def insert(self, *ids: str, delay: int = 0) -> None:
        jobs = [NewJob(id, b"payload " * 20, delay=delay, ttl=TTL) for id in ids]
        for id, answer in zip(ids, one(self.core, commands.Insert("q", jobs, "me", None)), strict=True):
            assert answer.status is InsertStatus.CREATED
            self.ledger.live.add(id)

    def work(self, limit: int, action: Action = Action.COMPLETE) -> None:
        """Claim, renew, settle."""
        claimed = one(self.core, commands.Exchange("q", "w", [], limit, LEASE)).jobs
        for job in claimed:
            assert job.fence > self.ledger.fence
            self.ledger.fence = job.fence
        renewals = [Renewal(job.id, job.fence, b"half") for job in claimed]
        one(self.core, commands.Extend("q", "w", renewals, LEASE))
        settlements = [
            Settlement(job.id, job.fence, action, b"of " + job.id.encode(), TTL) for job in claimed
        ]
        if action is not Action.RETRY:
            self.ledger.ended.update(job.id for job in claimed)
        answer = one(self.core, commands.Exchange("q", "w", settlements, 0, LEASE))
        for job, status in zip(claimed, answer.settled, strict=True):
            assert status is SettleStatus.ACCEPTED
            if action is Action.COMPLETE:
                self.ledger.live.discard(job.id)
                self.ledger.done[job.id] = b"of " + job.id.encode()

    def cancel(self, id: str) -> None:
        self.ledger.ended.add(id)
        one(self.core, commands.Cancel("q", [id], running=False))
        self.ledger.live.discard(id)

    def acquire(self) -> None:
        term = one(self.core, commands.Acquire("leader", "me", 1000))
        assert term is None or term >= self.ledger.term
        self.ledger.term = max(self.ledger.term, term or 0)

    def run(self) -> None:
        self.core.open()
        for round in range(6):
            self.insert(f"a{round}", f"b{round}")
            self.insert(f"c{round}", f"x{round}", delay=50_000)
            self.cancel(f"x{round}")
            self.work(1)
            self.work(1, Action.RETRY if round % 2 else Action.COMPLETE)
            self.acquire()
            if self.core.compaction_due:
                self.core.compaction_due = False
                compact_at(self.files, self.directory)
            self.clock.move(2)
        self.core.close()


def verify(directory: Path, ledger: Ledger, clock: FakeClock) -> StoreCore:
    """Open what is left and hold it against the ledger."""
    core = make_core(directory, Quiet(), clock)
    core.open()
    promised = sorted(ledger.live | set(ledger.done))
    records = read(core, "get", "q", promised)
    for id, record in zip(promised, records, strict=True):
        assert record is not None, f"{id} is lost"
        if id in ledger.done:
            assert (record.state, record.result) == (JobState.COMPLETED, ledger.done[id])
        elif id not in ledger.ended:
            assert record.expires_at is None, f"{id} has ended by itself"
    holder = one(core, commands.Acquire("leader", "you", 1000))
    if holder is None:
        clock.move(2)
        holder = one(core, commands.Acquire("leader", "you", 1000))
    assert holder > ledger.term
    _drain(core, ledger, clock)
    return core


def _drain(core: StoreCore, ledger: Ledger, clock: FakeClock) -> None:
    """Every live job can be had, once, with a fence that nobody had."""
    clock.move(120)
    one(core, commands.Sweep("q", 1000))
    claimed = one(core, commands.Exchange("q", "v", [], 1000, LEASE)).jobs
    ids = [job.id for job in claimed]
    assert len(ids) == len(set(ids))
    assert all(job.fence > ledger.fence for job in claimed)
    left = ledger.live - ledger.ended
    assert left <= set(ids), f"{left - set(ids)} cannot be had"
    counts = read(core, "counts", "q")
    assert (counts.queued, counts.scheduled, counts.failing) == (0, 0, 0)
    settlements = [Settlement(job.id, job.fence, Action.COMPLETE, b"", TTL) for job in claimed]
    answer = one(core, commands.Exchange("q", "v", settlements, 0, LEASE))
    assert all(status is SettleStatus.ACCEPTED for status in answer.settled)
