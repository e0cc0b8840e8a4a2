"""All that a history has of one id."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.chaos.history import REFUSED, UNKNOWN, Answer, Final, History, Invoke, Outcome, Run

ASKING = frozenset({"enqueue", "enqueue_and_wait"})


class Called(NamedTuple):
    """A call with its answer, if it got one."""

    invoke: Invoke
    answer: Answer | None

    @property
    def said(self) -> str:
        return UNKNOWN if self.answer is None else self.answer.said

    @property
    def over(self) -> float:
        """Instant of the answer; never, without one."""
        return float("inf") if self.answer is None else self.answer.t


@dataclass
class Story:
    """All that a history has of one id."""

    id: str
    calls: list[Called] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    """By fence."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    final: Final | None = None

    @property
    def asked(self) -> list[Called]:
        return [call for call in self.calls if call.invoke.op in ASKING and call.said != REFUSED]

    @property
    def cancelled(self) -> bool:
        """Whether somebody may have cancelled it."""
        return any(
            call.invoke.op == "cancel" and call.said in {"cancelled", "cancelling", UNKNOWN}
            for call in self.calls
        )

    @property
    def accepted(self) -> list[Called]:
        """Calls whose answer says that the job is there."""
        return [call for call in self.asked if call.said != UNKNOWN]


def stories_of(history: History, problems: list[str]) -> dict[str, Story]:
    """Sort a history by id; add to ``problems`` the lines that are of no story."""
    stories: defaultdict[str, Story] = defaultdict(lambda: Story(""))

    def of(id: str) -> Story:
        story = stories[id]
        story.id = id
        return story

    answers = {(answer.pid, answer.call): answer for answer in history.answers}
    if len(answers) != len(history.answers):
        problems.append("a call was answered twice")
    for invoke in history.invokes:
        of(invoke.id).calls.append(Called(invoke, answers.pop((invoke.pid, invoke.call), None)))
    problems += [f"{answer.id}: answered, and nobody had called" for answer in answers.values()]
    for run in sorted(history.runs, key=lambda run: run.fence):
        of(run.id).runs.append(run)
    fences = Counter(run.fence for run in history.runs)
    problems += [f"fence {fence} was given to {count} runs" for fence, count in fences.items() if count > 1]
    for outcome in history.outcomes:
        of(outcome.id).outcomes[outcome.fence] = outcome
    for final in history.finals:
        of(final.id).final = final
    return stories
