"""The history of a run of several processes: what was called, answered, run and broken, and when.

Every process appends its own lines to one file, each in one write: so a line is there even if the process
is killed by the next instruction, and lines of different processes never mix. Instants are monotonic
seconds, which all processes of one host share; clocks that are set do not matter.

    {"event": "invoke", "t": 12.1, "pid": 7, "call": 1, "op": "enqueue", "id": "a", "expect": "A"}
    {"event": "answer", "t": 12.2, "pid": 7, "call": 1, "id": "a", "said": "queued"}
    {"event": "run", "t": 12.3, "pid": 8, "id": "a", "fence": 4}
    {"event": "fault", "t": 12.4, "pid": 1, "kind": "kill", "target": 8, "until": 12.4}
    {"event": "run", "t": 15.0, "pid": 9, "id": "a", "fence": 6}
    {"event": "outcome", "t": 15.1, "pid": 9, "id": "a", "fence": 6, "how": "returned", "value": "A"}
    {"event": "final", "t": 30.0, "pid": 1, "id": "a", "state": "completed", "fence": 6, "value": "A"}

An id is used for one job: it is neither run again nor enqueued again after it was cancelled. Values are
small and are what JSON makes of them. `judge` in `tests.chaos.check` reads a history.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jobqueue.client.results import EnqueueResult
from jobqueue.errors import (
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobQueueError,
    NotStartedError,
    QueueFullError,
    SerializationError,
)

UNKNOWN = "unknown"
"""The answer of a call that may or may not have had its effect, and may still have it."""
REFUSED = "refused"
"""The answer of a call that had no effect and never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What every line has."""

    t: float
    """Monotonic seconds."""
    pid: int
    """The process that wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoke(Line):
    """A call begins."""

    event: ClassVar[str] = "invoke"
    call: int
    """Number of the call in its process."""
    op: str
    """``enqueue``, ``enqueue_and_wait``, ``wait``, ``cancel`` or ``status``."""
    id: str
    expect: Any = None
    """The right result of the job, if the caller knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Line):
    """A call ends: its caller knows more, or knows that it does not know."""

    event: ClassVar[str] = "answer"
    call: int
    id: str
    said: str
    """``queued`` or ``duplicate`` of an enqueue; the job's state (``completed``, ``failed``, …), of any call
    that learns it; ``not_found``, ``unknown``, ``refused``."""
    value: Any = None
    """The result, if ``completed`` and told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Line):
    """A handler begins."""

    event: ClassVar[str] = "run"
    id: str
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Line):
    """A handler ends, as its own process sees it: whether the store takes it is another matter."""

    event: ClassVar[str] = "outcome"
    id: str
    fence: int
    how: str
    """``returned``, ``raised``, ``retry`` (it raised `Retry`), or the reason for which it was aborted:
    ``timeout``, ``cancelled``, ``shutdown``, ``lease_lost``."""
    value: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Line):
    """Something that was done to processes, connections or the store."""

    event: ClassVar[str] = "fault"
    kind: str
    """``kill``, ``stop``, ``freeze``, ``cut``, ``slow``, ``starved``, ``restart``, ``rollback``, ``wipe``,
    ``failover``, ``clock``."""
    target: int | None = None
    """The process that it hit; ``None``: all of them."""
    until: float = 0.0
    """When it was over."""
    since: float | None = None
    """Of one that makes the store forget: what was written from here on may be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final(Line):
    """The record of a job when all is over, as the store has it."""

    event: ClassVar[str] = "final"
    id: str
    state: str | None
    """``None`` if the store has no such job."""
    fence: int = 0
    value: Any = None
    reason: str | None = None
    """Of a failed job."""


_KINDS: dict[str, type[Line]] = {kind.event: kind for kind in (Invoke, Answer, Run, Outcome, Fault, Final)}


@dataclass
class History:
    """All lines of a run, by kind, in the order of their instants."""

    invokes: list[Invoke] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)


def history(lines: list[Line]) -> History:
    """Sort lines into a history."""
    lines = sorted(lines, key=lambda line: line.t)

    def of(kind: type[Any]) -> list[Any]:
        return [line for line in lines if isinstance(line, kind)]

    return History(of(Invoke), of(Answer), of(Run), of(Outcome), of(Fault), of(Final))


def lines_of(read: History, problems: Iterable[str]) -> list[Line]:
    """Return the lines of the ids that problems begin with, among all faults, in the order of time."""
    ids = {problem.partition(":")[0] for problem in problems}
    lines: list[Line] = [*read.invokes, *read.answers, *read.runs, *read.outcomes, *read.finals]
    return sorted(
        [*(line for line in lines if getattr(line, "id", None) in ids), *read.faults], key=lambda line: line.t
    )


def encode(line: Line) -> bytes:
    """Make the bytes of a line."""
    kind = type(line).event  # type: ignore[attr-defined]
    return json.dumps({"event": kind, **asdict(line)}, separators=(",", ":")).encode() + b"\n"


def decode(data: bytes) -> Line:
    """Read the bytes of a line. Raises `ValueError` if they are none."""
    fields = json.loads(data)
    kind = _KINDS.get(fields.pop("event", None))
    if kind is None:
        raise ValueError(f"a line of an unknown kind: {data!r}")
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"a line with other fields: {data!r}") from error


def read(*paths: Path) -> History:
    """Read the history that processes have left in files."""
    return history([decode(line) for path in paths for line in path.read_bytes().splitlines()])


class Recorder:
    """Appends this process's lines to a history; usable from any thread, and after a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = itertools.count(1)

    def append(self, line: Line) -> None:
        """Write a line down, at once."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, encode(line))
        finally:
            os.close(file)

    async def call(self, op: str, id: str, awaitable: Awaitable[Any], expect: Any = None) -> Any:
        """Await a call of a queue, and note how it began and ended; return its answer or its error."""
        number = next(self._calls)
        self.append(Invoke(**_here(), call=number, op=op, id=id, expect=expect))
        try:
            answer = await awaitable
        except JobQueueError as error:
            self.append(Answer(**_here(), call=number, id=id, said=_said_by(error)))
            return error
        said, value = _told_by(op, answer)
        self.append(Answer(**_here(), call=number, id=id, said=said, value=value))
        return answer

    def run(self, id: str, fence: int) -> None:
        """Note that a handler begins."""
        self.append(Run(**_here(), id=id, fence=fence))

    def outcome(self, id: str, fence: int, how: str, value: Any = None) -> None:
        """Note that a handler ends; ``how`` as in `Outcome`."""
        self.append(Outcome(**_here(), id=id, fence=fence, how=how, value=value))

    @contextmanager
    def fault(
        self,
        kind: str,
        target: int | None = None,
        *,
        lost: float | None = None,
        began: float | None = None,
    ) -> Iterator[None]:
        """Note a fault that lasts as long as the block, or has since ``began``.

        ``lost`` is the number of seconds of writes that may be forgotten.
        """
        began = time.monotonic() if began is None else began
        try:
            yield
        finally:
            here = _here()
            since = None if lost is None else began - lost
            self.append(
                Fault(pid=here["pid"], t=began, kind=kind, target=target, until=here["t"], since=since)
            )

    def final(
        self, id: str, state: str | None, fence: int = 0, value: Any = None, reason: str | None = None
    ) -> None:
        """Note the record of a job when all is over."""
        self.append(Final(**_here(), id=id, state=state, fence=fence, value=value, reason=reason))

    def watch(self, seconds: float = 0.25) -> None:
        """Note when this process does not get to run: a thread that wakes up late by ``seconds`` says so."""

        def look() -> None:
            last = time.monotonic()
            while True:
                time.sleep(seconds / 5)
                now = time.monotonic()
                if now - last > seconds:
                    pid = os.getpid()
                    self.append(Fault(pid=pid, t=last, kind="starved", target=pid, until=now))
                last = now

        threading.Thread(target=look, name="history-watch", daemon=True).start()


def _here() -> dict[str, Any]:
    return {"t": time.monotonic(), "pid": os.getpid()}


def _said_by(error: JobQueueError) -> str:
    match error:
        case JobFailedError():
            return "failed"
        case JobCancelledError():
            return "cancelled"
        case JobNotFoundError():
            return "not_found"
        case InvalidArgumentError() | SerializationError() | QueueFullError() | NotStartedError():
            return REFUSED
        case _:
            return UNKNOWN


def _told_by(op: str, answer: Any) -> tuple[str, Any]:
    if op in {"wait", "enqueue_and_wait"}:
        return "completed", answer
    if isinstance(answer, EnqueueResult):
        return str(answer.status), answer.result
    if op == "status":
        return ("not_found", None) if answer is None else (str(answer.state), answer.result)
    return str(answer), None
