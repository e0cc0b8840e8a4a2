"""The end of the chaos demo: whether every job ended exactly once, and why some ran twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobqueue.cli.demo.chaos_work import Outcome, Run
from jobqueue.cli.demo.check import Expected
from jobqueue.job import JobState
from jobqueue.storage.base import Record

__all__ = ["ChaosVerdict", "Kill", "judge_chaos"]


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed."""

    role: str
    """``worker`` or ``reaper``."""
    pid: int
    at: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class ChaosVerdict:
    """The result of the check."""

    ended: int = 0
    """Jobs with one outcome, that of one run."""
    lost: int = 0
    """Jobs without an outcome."""
    equal: int = 0
    """Answers that are the same as the direct computation."""
    changed: int = 0
    """Answers that differ because the file was written during the demo."""
    duplicates: int = 0
    """Runs beyond the one whose outcome counts."""
    attributed: int = 0
    """Duplicates that a killed worker had begun, and whose outcome it did not live to store."""
    recovery: list[float] = field(default_factory=list[float])
    """Seconds from a kill to the next start of each job that it cut off."""
    wrong: list[str] = field(default_factory=list[str])
    """The faults, a sentence each."""


def judge_chaos(
    expected: Expected,
    told: Mapping[str, Outcome | None],
    records: Mapping[str, Record | None],
    runs: Sequence[Run],
    kills: Sequence[Kill],
    slots: int,
) -> ChaosVerdict:
    """Compare the answers to the waiters, the data of the store and the runs.

    ``told`` has ``None`` for a job that failed, and lacks one that never ended. ``slots`` is the
    concurrency of a worker: the most that one kill may cut off.
    """
    verdict = ChaosVerdict()
    by_id: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_id[run.id].append(run)
    for id in expected.answers:
        record = records.get(id)
        if id not in told or record is None:
            verdict.lost += 1
            verdict.wrong.append(f"{id}: lost, it has no outcome")
            continue
        wrong = _outcome(id, expected, told[id], record, verdict)
        wrong = wrong or _attribute(by_id[id], record, kills, verdict)
        verdict.ended += wrong is None
        if wrong is not None:
            verdict.wrong.append(f"{id}: {wrong}")
    verdict.wrong += [f"{id}: ran, and nobody asked for it" for id in by_id.keys() - expected.answers.keys()]
    most = slots * sum(kill.role == "worker" for kill in kills)
    if verdict.attributed > most:
        verdict.wrong.append(f"{verdict.attributed} duplicates, and at most {most} jobs were cut off")
    return verdict


def _outcome(
    id: str, expected: Expected, outcome: Outcome | None, record: Record, verdict: ChaosVerdict
) -> str | None:
    """Check the one outcome of a job. Return the fault, if any."""
    right = expected.answers[id]
    if outcome is None:
        unreadable = right is None or id in expected.changed
        return None if unreadable and record.state is JobState.FAILED else "failed"
    if record.state is not JobState.COMPLETED:
        return f"its waiter was told a result, and the store holds it as {record.state}"
    if record.fence != outcome["fence"]:
        return f"told the outcome of run {outcome['fence']}, and the store holds that of {record.fence}"
    if outcome["answer"] == right:
        verdict.equal += 1
    elif id in expected.changed:
        verdict.changed += 1
    else:
        return f"answered {outcome['answer']}, computed {right}"
    return None


def _attribute(
    runs: Sequence[Run], record: Record, kills: Sequence[Kill], verdict: ChaosVerdict
) -> str | None:
    """Attribute the extra runs of a job to kills. Return the fault, if any."""
    if sum(run.fence == record.fence for run in runs) != 1:
        return "its outcome is of no run that was seen"
    killed = {kill.pid: kill for kill in kills if kill.role == "worker"}
    for place, run in enumerate(runs):
        if run.fence == record.fence:
            continue
        verdict.duplicates += 1
        kill = killed.get(run.pid)
        if kill is None:
            return f"process {run.pid} ran it too, and was not killed"
        verdict.attributed += 1
        verdict.recovery += [later.started - kill.at for later in runs[place + 1 : place + 2]]
    return None
