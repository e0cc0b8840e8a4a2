"""Says whether a history fits the model of a job: pure, it reads lines and says what is wrong.

For each id: it was accepted, so it ended, once, with the outcome of a run that was seen; all who asked were
told that outcome, and nobody before there was one; and every run beyond the one whose outcome counts was
replaced for a reason that has a name. A call without a known answer may have its effect at any later time.
Anything that no fault of the history explains is a problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import NamedTuple

from jobqueue.model.states import ENDED
from tests.chaos.history import REFUSED, UNKNOWN, Fault, Final, History, Run
from tests.chaos.story import Called, Story, stories_of

OUTCOMES = frozenset(str(state) for state in ENDED)
FOUND = frozenset({"duplicate", *OUTCOMES})
"""Answers of an enqueue that found the job."""
AGAIN = frozenset({"raised", "timeout", "retry"})
"""Ends of a run after which the job runs again, as its handler or its queue wants it."""
FAILED = frozenset({"raised", "timeout"})
"""Ends of a run that count as a failed attempt."""
DEATHS = frozenset({"kill", "stop"})
"""Faults after which a process may owe answers and outcomes."""
LASTING = frozenset({"freeze", "cut", "slow", "starved"})
"""Faults that cost a run its lease only if they last."""
SHARE = 1 / 3
"""Of the lease: who is cut off for less renews it in time."""


class Model(NamedTuple):
    """What the processes of a history were told."""

    lease: float
    """Seconds."""
    max_attempts: int = 3
    guarded: bool = False
    """Whether the store may forget outcomes, and no job."""


@dataclass
class Verdict:
    """What the check has found."""

    accepted: int = 0
    ended: int = 0
    lost: int = 0
    """Accepted jobs that have no outcome, and no fault that could have made the store forget them."""
    forgotten: int = 0
    """Accepted jobs that a rollback of the store has taken."""
    runs: int = 0
    duplicates: int = 0
    """Runs that were replaced by another one although the handler did not ask for it."""
    causes: Counter[str] = field(default_factory=Counter)
    """The same, by the fault that explains them."""
    recovery: list[float] = field(default_factory=list)
    """Seconds from a kill to the next run of each job that it cut off."""
    problems: list[str] = field(default_factory=list)
    """Everything that does not fit, a sentence each; none: the history fits."""

    def __str__(self) -> str:
        causes = ", ".join(f"{count} by {kind}" for kind, count in sorted(self.causes.items())) or "none"
        return (
            f"{self.accepted} accepted, {self.ended} ended, {self.lost} lost, {self.forgotten} forgotten, "
            f"{self.runs} runs, {self.duplicates} duplicates ({causes}), {len(self.problems)} problems"
        )


def judge(history: History, model: Model) -> Verdict:
    """Compare a history with the model; the verdict's ``problems`` are empty if it fits."""
    verdict = Verdict(runs=len(history.runs))
    stories = stories_of(history, verdict.problems)
    for story in stories.values():
        _Judge(story, history.faults, model, verdict).judge()
    return verdict


class _Judge:
    """The check of one id."""

    def __init__(self, story: Story, faults: Sequence[Fault], model: Model, verdict: Verdict) -> None:
        self._story = story
        self._faults = faults
        self._model = model
        self._verdict = verdict
        self._rolled_back = [fault for fault in faults if fault.since is not None]

    def judge(self) -> None:
        story = self._story
        self._calls()
        self._runs()
        final = story.final
        forgettable = self._forgettable(
            [(call.invoke.t, call.over) for call in story.calls] + [(run.t, run.t) for run in story.runs]
        )
        if story.accepted:
            self._verdict.accepted += 1
            if final is None:
                self._wrong("nobody looked how it ended")
            elif final.state in OUTCOMES or (final.state is None and story.cancelled):
                self._verdict.ended += 1
            elif final.state is None and forgettable and not self._model.guarded:
                self._verdict.forgotten += 1
            else:
                self._verdict.lost += 1
                self._wrong(f"was accepted and is {final.state or 'gone'}")
        elif final is not None and final.state not in {None, *OUTCOMES}:
            self._wrong(f"is still {final.state}")
        if not forgettable:
            self._answers()
            if final is not None and final.state in OUTCOMES:
                self._outcome(final)

    def _wrong(self, what: str) -> None:
        self._verdict.problems.append(f"{self._story.id}: {what}")

    # -- calls --------------------------------------------------------------------------------------

    def _calls(self) -> None:
        for call in self._story.calls:
            if call.answer is None:
                died = self._hits(call.invoke.pid, call.invoke.t, float("inf"), DEATHS)
                if not died:
                    self._wrong(f"{call.invoke.op} of process {call.invoke.pid} was never answered")
            elif call.answer.t < call.invoke.t:
                self._wrong(f"{call.invoke.op} was answered before it was made")

    def _answers(self) -> None:
        """Check that every answer was true at some instant between call and answer."""
        story = self._story
        first = min((call.invoke.t for call in story.asked), default=float("inf"))
        accepted = min((call.over for call in story.accepted), default=float("inf"))
        self._created()
        told = [call for call in story.calls if call.said in OUTCOMES and call.invoke.op != "cancel"]
        known = min((call.over for call in told), default=float("inf"))
        for call in story.calls:
            if call.said == "not_found" and call.invoke.t > accepted:
                self._wrong(f"{call.invoke.op} did not find it after it was accepted")
            if call.said in OUTCOMES and call.over < first:
                self._wrong(f"{call.invoke.op} was told an outcome before anybody asked for the job")
            live = call.invoke.op == "status" and call.said not in {*OUTCOMES, UNKNOWN, REFUSED, "not_found"}
            if live and call.invoke.t > known:
                self._wrong(f"was told as {call.said} after it had ended")
            if call.said == "cancelled" and call.invoke.op == "cancel":
                self._cancelled(call)
        for call in told:
            self._told(call)

    def _cancelled(self, call: Called) -> None:
        """Check that a job that was cancelled while it waited stays so."""
        final = self._story.final
        if final is not None and final.state not in {None, "cancelled"}:
            self._wrong(f"was cancelled, and is {final.state}")
        if any(run.t > call.over for run in self._story.runs):
            self._wrong("ran after it had been cancelled")

    def _created(self) -> None:
        """Check that one call created the job, and that it came before those who found it there."""
        asked = self._story.asked
        created = [call for call in asked if call.said == "queued"]
        if len(created) > 1:
            self._wrong(f"was created {len(created)} times")
        found = [call for call in asked if call.invoke.op == "enqueue" and call.said in FOUND]
        if created and any(call.over < created[0].invoke.t for call in found):
            self._wrong("was found there before it was created")
        # A call that the store had to be asked twice finds its own job.
        perhaps = [call for call in asked if call.said == UNKNOWN or call.invoke.op == "enqueue_and_wait"]
        again = any(self._hits(call.invoke.pid, call.invoke.t, call.over) for call in found)
        if found and not (created or perhaps or again):
            self._wrong("was found there, and nobody had created it")

    def _told(self, call: Called) -> None:
        assert call.answer is not None
        story, final = self._story, self._story.final
        begun = [run for run in story.runs if run.t <= call.answer.t]
        if call.said == "completed":
            returned = [
                run
                for run in begun
                if (outcome := story.outcomes.get(run.fence)) is None
                or (outcome.how == "returned" and outcome.t <= call.answer.t)
            ]
            if not returned:
                self._wrong(f"{call.invoke.op} got a result, and no run had returned one")
        if final is not None and final.state in OUTCOMES and final.state != call.said:
            self._wrong(f"{call.invoke.op} was told {call.said}, and the store has {final.state}")
        elif final is not None and call.said == "completed" and call.answer.value != final.value:
            self._wrong(f"{call.invoke.op} got {call.answer.value!r}, and the store has {final.value!r}")

    # -- runs ---------------------------------------------------------------------------------------

    def _runs(self) -> None:
        story = self._story
        first = min((call.invoke.t for call in story.asked), default=float("inf"))
        for run in story.runs:
            if run.t < first:
                self._wrong(f"ran in process {run.pid}, and nobody had asked for it")
            outcome = story.outcomes.get(run.fence)
            if outcome is None and not self._hits(run.pid, run.t, float("inf"), DEATHS):
                self._wrong(f"its run in process {run.pid} never ended, and nobody ended the process")
        for run, later in pairwise(story.runs):
            self._replaced(run, later)

    def _replaced(self, run: Run, later: Run) -> None:
        """Find out why a run was not the last of its job."""
        outcome = self._story.outcomes.get(run.fence)
        if outcome is not None and outcome.how in AGAIN:
            return
        self._verdict.duplicates += 1
        fault = self._cause(run, later)
        if fault is None:
            self._wrong(f"process {run.pid} ran it, and {later.pid} ran it again: nothing explains that")
            return
        self._verdict.causes[fault.kind] += 1
        if fault.kind == "kill":
            self._verdict.recovery.append(max(0.0, later.t - fault.t))

    def _cause(self, run: Run, later: Run) -> Fault | None:
        # It was claimed before it was seen to begin, and it may have been seen after it was replaced.
        begin, end = min(run.t, later.t) - self._model.lease, max(run.t, later.t)
        hits = self._hits(run.pid, begin, end)
        at_once = [fault for fault in hits if fault.kind not in LASTING]
        if at_once:
            return next((fault for fault in at_once if fault.target == run.pid), at_once[0])
        lasting = sorted(hits, key=_length)
        lasted = sum(min(fault.until, end) - max(fault.t, begin) for fault in lasting)
        return lasting[-1] if lasting and lasted >= SHARE * self._model.lease else None

    # -- the outcome --------------------------------------------------------------------------------

    def _outcome(self, final: Final) -> None:
        """Check that the outcome is that of the last run, or has a cause of its own."""
        story = self._story
        tried = self._tried()
        if tried > self._model.max_attempts:
            self._wrong(f"was tried {tried} times")
        run = next((run for run in story.runs if run.fence == final.fence), None)
        outcome = story.outcomes.get(final.fence)
        match final.state:
            case "completed":
                expected = [call.invoke.expect for call in story.asked if call.invoke.expect is not None]
                if run is None and not self._answered_from_the_ledger(final):
                    self._wrong(f"its outcome, of fence {final.fence}, is of no run that was seen")
                if outcome is not None and (outcome.how, outcome.value) != ("returned", final.value):
                    self._wrong(f"fence {final.fence} {outcome.how} {outcome.value!r}, not {final.value!r}")
                if expected and final.value not in expected:
                    self._wrong(f"ended as {final.value!r}, and not as {expected[0]!r}")
            case "failed" if final.reason == "stalled":
                if not self._hits(None, _begin(story), final.t):
                    self._wrong("stalled to death, and no fault was there")
            case "failed":
                if run is None or (outcome is not None and outcome.how not in FAILED):
                    self._wrong("failed, and no run of it did")
            case _:
                if not story.cancelled:
                    self._wrong("was cancelled by nobody")
        if any(run.fence > final.fence for run in story.runs):
            self._wrong(f"ran again after its outcome, of fence {final.fence}")

    def _answered_from_the_ledger(self, final: Final) -> bool:
        """Whether a guard ended the job without a run, as its ledger knew the outcome of an earlier one."""
        ended = (outcome for fence, outcome in self._story.outcomes.items() if fence < final.fence)
        return self._model.guarded and any(
            (outcome.how, outcome.value) == ("returned", final.value) for outcome in ended
        )

    def _tried(self) -> int:
        """Count the failed attempts that the store must know: of a process hit at once, it may not."""
        tried = 0
        for run, later in zip_longest(self._story.runs, self._story.runs[1:]):
            outcome = self._story.outcomes.get(run.fence)
            if outcome is None or outcome.how not in FAILED:
                continue
            if later is not None and later.t < outcome.t:
                continue  # it was replaced before it failed: its lease was lost
            tried += not self._hits(run.pid, outcome.t, outcome.t if later is None else later.t)
        return tried

    # -- faults -------------------------------------------------------------------------------------

    def _hits(
        self, pid: int | None, begin: float, end: float, kinds: frozenset[str] | None = None
    ) -> list[Fault]:
        """Return the faults that a process met in a time; without a process, all of that time."""
        return [
            fault
            for fault in self._faults
            if fault.t <= end
            and max(fault.until, fault.t) >= begin
            and (pid is None or fault.target in {None, pid})
            and (kinds is None or fault.kind in kinds)
        ]

    def _forgettable(self, spans: Iterable[tuple[float, float]]) -> bool:
        """Whether anything of a job may have happened in a time that the store forgot.

        A call that began before that time and was answered after it may have had its effect in it.
        """
        return any(
            fault.since is not None and fault.since <= end and begin <= max(fault.until, fault.t)
            for fault in self._rolled_back
            for begin, end in spans
        )


def _begin(story: Story) -> float:
    return min((call.invoke.t for call in story.calls), default=0.0)


def _length(fault: Fault) -> float:
    return fault.until - fault.t
