"""Write a store and what it holds: ``python -P tests/file/data/write.py 0.1.0`` with that release installed.

Later releases have to come to the same state: see tests/file/test_upgrade.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.file import core
from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.disk import journal
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.upkeep.recovery import StoreDirectory
from jobqueue.storage.file.upkeep.rotation import compact
from jobqueue.storage.values import Claimed, NewJob, Renewal
from jobqueue.testing import FakeClock

TTL, LEASE, DAY = 10**9, 30_000, 86_400_000


class Settable(FakeClock):
    """A clock that is set on the way."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class Here(Files):
    def spawn(self, *_: Any) -> None:
        return None

    def boot_id(self) -> str:
        return "11111111-2222-3333-4444-555555555555"


class Writer:
    """Makes every call that a journal can hold."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.files, self.clock = directory, Here(), Settable()
        self.files.make_dir(directory)
        self.core = StoreCore(StoreDirectory(self.files, directory), self.clock, fsync=False, rotate_at=3000)

    def call(self, command: Any) -> Any:
        (answer,) = self.core.turn([command]).answers
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def insert(self, *ids: str, **options: Any) -> None:
        jobs = [NewJob(id, b"payload of " + id.encode(), ttl=TTL, **options) for id in ids]
        self.call(commands.Insert("q", jobs, "me", None))

    def claim(self, limit: int) -> list[Claimed]:
        return list(self.call(commands.Exchange("q", "w", [], limit, LEASE)).jobs)

    def settle(self, jobs: list[Claimed], action: Action, delay: int = 0) -> None:
        done = [Settlement(job.id, job.fence, action, b"of " + job.id.encode(), TTL, delay) for job in jobs]
        self.call(commands.Exchange("q", "w", done, 0, LEASE))

    def round(self, number: int) -> None:
        self.insert(*(f"{name}{number}" for name in "abcd"), priority=number % 3, wait=True)
        self.insert(f"s{number}", delay=DAY)
        self.insert(f"x{number}")
        self.call(commands.Cancel("q", [f"x{number}"], running=False))
        self.call(commands.GetAndWait("q", [f"s{number}"], "you"))
        one, two, three = self.claim(3)
        leases = [Renewal(job.id, job.fence, b"half") for job in (one, two, three)]
        self.call(commands.Extend("q", "w", leases, LEASE))
        self.settle([one], Action.COMPLETE)
        self.settle([two], Action.RETRY, 7000)
        self.settle([three], Action.FAIL if number % 2 else Action.RELEASE)
        self.call(commands.Acquire("leader", "me", 1000))
        self.call(commands.SetTtl("q", [(one.id, TTL)]))
        self.clock.move(2)

    def run(self) -> None:
        self.core.open()
        for number in range(4):
            self.round(number)
        self.claim(1)
        compact(self.files, self.directory)
        for number, ahead in enumerate((3600.0, 0.0, 1800.0), 4):
            self.round(number)
            self.clock.ahead = ahead
            self.clock.move(5)
            self.claim(2)
        self.clock.move(40)
        self.call(commands.Sweep("q", 10))
        self.call(commands.Purge("q", 10))
        self.call(commands.Release("leader", "me"))

    def expected(self) -> dict[str, Any]:
        state = self.core.replica.state
        ids = [f"{name}{number}" for name in "abcdsx" for number in range(7)]
        records = state.engine.get("q", ids, state.now, payload=True)
        return {"counters": list(state.engine.counters), "jobs": [repr(record) for record in records]}


def main(release: str) -> None:
    for module in (core, journal):
        module.RESERVE = 1 << 12  # type: ignore[attr-defined]
    journal.CHUNK = 1 << 12
    directory = Path(__file__).parent / release
    writer = Writer(directory / "store")
    writer.run()
    (directory / "expected.json").write_text(json.dumps(writer.expected(), indent=1) + "\n")
    path, end = writer.core.replica.journal.path, writer.core.replica.position
    writer.core.close()
    path.write_bytes(path.read_bytes()[:end])  # without the room behind it


if __name__ == "__main__":
    main(sys.argv[1])
