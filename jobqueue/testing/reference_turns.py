"""Whose turn it is among groups, as plainly as it can be said; a part of the `Reference`."""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.testing.reference_job import Entry

__all__ = ["Turns", "line_of"]

Line = tuple[str, int, str]
"""Queue, priority, and group or ``""``."""


def line_of(job: Entry) -> Line:
    """Return the line in which a job stands when it is ready."""
    return job.queue, job.new.priority, job.new.group


class Turns:
    """The turns of all lines. One without a number is before all others."""

    def __init__(self) -> None:
        self.last = 0
        self.turns: dict[Line, int] = {}
        self.left: dict[Line, int] = {}

    def begin(self, job: Entry) -> None:
        """Put the line of a job, if it has a group, behind all others."""
        if job.new.group:
            self.go_behind(line_of(job))

    def go_behind(self, line: Line) -> None:
        self.last += 1
        self.turns[line], self.left[line] = self.last, 0

    def take(self, choice: Sequence[Entry], ready: Sequence[Entry]) -> Entry:
        """Choose one of the jobs that may start, all of one priority and each line in its order."""
        lines = {line_of(job) for job in choice}
        line = min(lines, key=lambda line: self.turns.get(line, 0))
        job = next(job for job in choice if line_of(job) == line)
        if not job.new.group:
            if len(lines) > 1:
                self.go_behind(line)
            return job
        left = (self.left[line] or job.new.weight) - 1
        self.left[line] = left
        if not left and sum(line_of(other) == line for other in ready) > 1:
            self.go_behind(line)
        return job
