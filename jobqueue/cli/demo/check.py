"""Checks the demo: every answer against a direct computation, and every promise that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobqueue.cli.demo.files import Answer, Found, job_id, measure
from jobqueue.cli.demo.report import Progress
from jobqueue.cli.demo.scenario import CANCELLED_ID, Observed

__all__ = ["Expected", "Verdict", "direct", "judge"]


@dataclass(slots=True)
class Expected:
    """The answers of a direct computation."""

    answers: dict[str, Answer | None] = field(default_factory=dict[str, "Answer | None"])
    changed: set[str] = field(default_factory=set[str])
    """Ids of files that were written during the demo."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the check."""

    equal: int
    """Answers that are the same as the direct computation."""
    unreadable: int
    """Files that neither could read."""
    changed: int
    """Answers that differ because the file was written during the demo."""
    wrong: tuple[str, ...]
    """The faults, a sentence each."""


def direct(found: Found, progress: Progress) -> Expected:
    """Compute every answer without a queue."""
    expected = Expected()
    advance = progress("checking", len(found.files))
    for file in found.files:
        id = job_id(found.root, file.path)
        expected.answers[id] = _measure(file.path)
        if file.changed():
            expected.changed.add(id)
        advance()
    return expected


def _measure(path: Path) -> Answer | None:
    try:
        return measure(path)
    except OSError:
        return None


def judge(seen: Observed, expected: Expected, stumbling: str) -> Verdict:
    """Compare the observed answers with the expected ones."""
    equal = unreadable = changed = 0
    wrong: list[str] = []
    for id, answer in expected.answers.items():
        if id not in seen.answers:
            wrong.append(f"{id}: no answer")
        elif seen.answers[id] == answer:
            equal += answer is not None
            unreadable += answer is None
        elif id in expected.changed:
            changed += 1
        else:
            wrong.append(f"{id}: answered {seen.answers[id]}, computed {answer}")
    wrong += [f"{id}: two callers got different answers" for id in sorted(seen.differing)]
    wrong += _wrong_runs(seen.runs, expected.answers, stumbling)
    if seen.retries != 1:
        wrong.append(f"{seen.retries} retries instead of 1")
    if seen.cancelled != 1 or seen.runs[CANCELLED_ID]:
        wrong.append("the cancelled job was not cancelled cleanly")
    return Verdict(equal, unreadable, changed, tuple(wrong))


def _wrong_runs(runs: Mapping[str, int], expected: Mapping[str, object], stumbling: str) -> list[str]:
    due = {id: 2 if id == stumbling else 1 for id in expected}
    return [f"{id}: ran {runs[id]} times instead of {due[id]}" for id in due if runs[id] != due[id]]
