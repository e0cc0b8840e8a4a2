"""The end of a chaos run: whether every job ended exactly once, and why some ran twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.chaos.work import Outcome, Run
from jobqueue import JobState
from jobqueue.storage.values import Record

__all__ = ["Kill", "Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed."""

    role: str
    """``worker`` or ``reaper``."""
    pid: int
    at: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class Verdict:
    """The result of the check."""

    ended: int = 0
    """Jobs with one outcome, that of one run."""
    lost: int = 0
    """Jobs without an outcome."""
    duplicates: int = 0
    """Runs beyond the one whose outcome counts."""
    attributed: int = 0
    """Duplicates that a killed worker had begun, and whose outcome it did not live to store."""
    recovery: list[float] = field(default_factory=list[float])
    """Seconds from a kill to the next start of each job that it cut off."""
    wrong: list[str] = field(default_factory=list[str])
    """The faults, a sentence each."""


def judge(
    expected: Mapping[str, str],
    answered: Mapping[str, Outcome],
    records: Mapping[str, Record | None],
    runs: Sequence[Run],
    kills: Sequence[Kill],
    slots: int,
) -> Verdict:
    """Compare the answers to the callers, the data of the store and the runs.

    ``expected`` has the right digest of each job; ``answered`` lacks a job that never ended. ``slots`` is
    the concurrency of a worker: the largest number of jobs that one kill may cut off.
    """
    verdict = Verdict()
    by_id: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_id[run.id].append(run)
    for id, digest in expected.items():
        record = records.get(id)
        if id not in answered or record is None:
            verdict.lost += 1
            verdict.wrong.append(f"{id}: lost, it has no outcome")
            continue
        wrong = _outcome(digest, answered[id], record) or _attribute(by_id[id], record, kills, verdict)
        if wrong is None:
            verdict.ended += 1
        else:
            verdict.wrong.append(f"{id}: {wrong}")
    verdict.wrong += [f"{id}: ran, and nobody asked for it" for id in by_id.keys() - expected.keys()]
    most = slots * sum(kill.role == "worker" for kill in kills)
    if verdict.attributed > most:
        verdict.wrong.append(f"{verdict.attributed} duplicates, and at most {most} jobs were cut off")
    return verdict


def _outcome(digest: str, outcome: Outcome, record: Record) -> str | None:
    """Check the one outcome of a job. Return the fault, if any."""
    if record.state is not JobState.COMPLETED:
        return f"its caller got a result, and the store holds it as {record.state}"
    if record.fence != outcome["fence"]:
        return f"answered with run {outcome['fence']}, and the store holds the outcome of run {record.fence}"
    if outcome["digest"] != digest:
        return f"answered {outcome['digest']}, computed {digest}"
    return None


def _attribute(runs: Sequence[Run], record: Record, kills: Sequence[Kill], verdict: Verdict) -> str | None:
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
