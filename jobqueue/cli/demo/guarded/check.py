"""The check at the end: every job ran, none is lost, and each second run has a reason in the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from jobqueue.cli.demo.guarded.worker import QUEUE
from jobqueue.storage.postgres.migrations import quoted

__all__ = ["Verdict", "judge"]

REASONS = ("requeued", "recovered", "retried", "released")
"""What the ledger says of a job that runs once more."""
NAMED = 5
"""Jobs that a sentence names at the most."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the check."""

    never_ran: int
    rows: int
    completed: int
    brought_back: int
    """Jobs that the ledger gave back to Redis."""
    second_runs: int
    """Runs of jobs that had run to their end already."""
    attributed: int
    """Of these, those for which the ledger has a reason."""
    wrong: tuple[str, ...]
    """The faults, a sentence each."""


async def judge(connection: Any, schema: str, ids: Collection[str], runs: Counter[str]) -> Verdict:
    """Compare what ran with what the ledger says, as anybody can who reads its tables."""
    name = quoted(schema)
    # The name is that of the demo's own schema, quoted.
    found = await connection.fetch(
        f"select id, state from {name}.job where queue = $1 and state <> 8",  # noqa: S608
        QUEUE,
    )
    rows = Counter(row["id"] for row in found)
    completed = {row["id"] for row in found if row["state"] == 5}
    audit = await connection.fetch(
        f"select id, event, count(*) as times from {name}.audit where queue = $1 group by 1, 2",  # noqa: S608
        QUEUE,
    )
    events: dict[str, Counter[str]] = {}
    for row in audit:
        events.setdefault(row["id"], Counter())[row["event"]] += row["times"]
    never = [id for id in ids if not runs[id]]
    missing = [id for id in ids if not rows[id]]
    open_ones = [id for id in ids if rows[id] and id not in completed]
    twice = [id for id in rows if rows[id] > 1]
    unknown = [id for id in runs if id not in rows]
    again = {id: times - 1 for id, times in runs.items() if times > 1}
    unexplained = [
        id for id, times in again.items() if sum(events.get(id, Counter())[why] for why in REASONS) < times
    ]
    wrong = [
        f"{len(several):,} jobs {what}: {', '.join(sorted(several)[:NAMED])}"
        for what, several in (
            ("never ran", never),
            ("are not in the ledger", missing),
            ("are not completed in the ledger", open_ones),
            ("have two rows in the ledger", twice),
            ("ran and were never enqueued", unknown),
            ("ran twice, and the ledger does not say why", unexplained),
        )
        if several
    ]
    second = sum(again.values())
    return Verdict(
        len(never), len(rows), len(completed), sum(counts["requeued"] > 0 for counts in events.values()),
        second, second - sum(again[id] for id in unexplained), tuple(wrong),
    )  # fmt: skip
