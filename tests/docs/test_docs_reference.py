"""The reference names what the code has: no more, no less, and with the same defaults."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

import jobqueue
import jobqueue.maintenance.reaper
import jobqueue.queue
import jobqueue.testing
from jobqueue import errors, jobs
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.schedules import schedules
from jobqueue.storage import capabilities, contract, values
from jobqueue.tasks import registry
from tests.docs.doc_pages import DOCS, PAGES, blocks, code, name, prose, rows, section

API = DOCS / "reference/api.md"
CONTRACT = DOCS / "reference/storage-contract.md"
ERRORS = DOCS / "reference/errors.md"
EVENTS = DOCS / "reference/events.md"
OPTIONS = DOCS / "reference/options.md"

OWNERS: dict[str, Any] = {
    "queue": jobqueue.Queue,
    "reaper": jobqueue.Reaper,
    "app": jobqueue.App,
    "job": jobqueue.Job,
    "backoff": jobqueue.Backoff,
    "storage": contract.Storage,
    "revival": capabilities.Revival,
    "admission": capabilities.Admission,
    "limiting": capabilities.Limiting,
    "documents": capabilities.Documents,
    "sink": contract.Sink,
    "clock": jobqueue.testing.FakeClock,
    "queue.jobs": jobs.QueueJobs,
    "queue.sync": jobqueue.SyncQueue,
    "queue.limits": jobqueue.QueueLimits,
    "queue.schedules": schedules.QueueSchedules,
    "queue.schedule": schedules.QueueSchedules.of_task,
    "queue.task": registry.Tasks.__call__,
    "counts": values.Counts,
}
"""What a lower-case name stands for in the docs."""

NOT_FOR_USERS = {"tell_aborted", "forked"}
"""Members without an underscore that only other modules of the package use."""
FOR_TESTS = {"files", "rotate_at"}
"""Arguments of stores that are not for users."""


# -- signatures -----------------------------------------------------------------------------------


def signatures() -> list[tuple[str, str, str]]:
    """Return (page, what is called, parameters) for every line of a signature block."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if "signature" in block.options:
                text = re.sub(r"\n +", " ", block.code)
                for line in text.splitlines():
                    match = re.fullmatch(r"(?:await )?([\w.]+)\((.*)\)(?: -> .+)?", line)
                    assert match, f"{name(page)}: {line}"
                    found.append((name(page), match[1], match[2]))
    return found


def resolve(path: str) -> Any:
    if path.startswith("jobqueue."):
        package = missing_package(path)
        if package is not None:
            pytest.skip(f"{package} is not installed")
        return pkgutil.resolve_name(path)
    first, *others = path.split(".")
    if others and f"{first}.{others[0]}" in OWNERS:
        first = f"{first}.{others.pop(0)}"
    thing = OWNERS[first] if first in OWNERS else getattr(jobqueue, first)
    for other in others:
        thing = getattr(thing, other)
    return thing


def missing_package(path: str) -> str | None:
    """Return the package of an extra that a module in the path needs, if it is not installed."""
    names = path.split(".")
    for count in range(1, len(names) + 1):
        try:
            importlib.import_module(".".join(names[:count]))
        except ModuleNotFoundError as error:
            return None if str(error.name).startswith("jobqueue") else error.name
    return None


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    known = list(inspect.signature(function).parameters.values())
    return [(p.name, p.kind, p.default) for p in known if p.name not in {"self", "cls"}]


@pytest.mark.parametrize(("page", "path", "text"), signatures(), ids=lambda value: str(value)[:40])
def test_signatures(page: str, path: str, text: str) -> None:
    """``name=...`` stands for any default, ``...`` at the end for options of tests."""
    function = resolve(path)
    if text == "...":
        assert callable(function)
        return
    actual = parameters(function)
    open_ended = re.search(r", \.\.\.$", text)
    namespace: dict[str, Any] = {}
    exec(f"def written({text[: open_ended.start()] if open_ended else text}): ...", namespace)
    written = parameters(namespace["written"])
    if open_ended:
        actual = actual[: len(written)]
    known = [(p, kind, ... if (p, kind, ...) in written else default) for p, kind, default in actual]
    assert written == known, page


@pytest.mark.parametrize("owner", ["queue", "reaper", "app", "job", "storage"])
def test_every_public_member_is_documented(owner: str) -> None:
    page = CONTRACT if owner == "storage" else API
    text = page.read_text() + (DOCS / "guides/write-a-store.md").read_text()
    kind = OWNERS[owner]
    members = {member for member in dir(kind) if not member.startswith("_")}
    members |= {member for member in getattr(kind, "__annotations__", {}) if not member.startswith("_")}
    members -= NOT_FOR_USERS
    missing = [m for m in sorted(members) if f"{owner}.{m}" not in text and f"`{m}`" not in text]
    assert not missing


# -- names ----------------------------------------------------------------------------------------


def test_every_exported_name_is_documented() -> None:
    text = "".join(page.read_text() for page in PAGES if page.is_relative_to(DOCS / "reference"))
    missing = [known for known in jobqueue.__all__ if not re.search(rf"\b{known}\b", text)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_in_the_prose_exist(page: Path) -> None:
    """Whatever stands in backticks as `Class.member`, `object.member` or `jobqueue.module.name` is there."""
    wrong = []
    for text in code(prose(page)):
        match = re.match(r"(?:await )?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)", text)
        if not match or re.search(r"\.(md|py|toml|lua|yml|sh|service)$", match[1]):
            continue
        first, second = match[1].split(".")[:2]
        known = first in OWNERS or first == "jobqueue" or first in jobqueue.__all__
        if known and not exists(match[1], first, second):
            wrong.append(text)
    assert not wrong


def exists(path: str, first: str, second: str) -> bool:
    if first == "jobqueue":
        try:
            pkgutil.resolve_name(path)
        except (ImportError, AttributeError):
            return missing_package(path) is not None
        return True
    owner = OWNERS.get(first) or getattr(jobqueue, first)
    return hasattr(owner, second) or bool(re.search(rf"\bself\.{second}\b", inspect.getsource(owner)))


# -- tables ---------------------------------------------------------------------------------------


def test_errors() -> None:
    first = rows(ERRORS.read_text().partition("\n## ")[0])
    table = {code(row[0])[0]: set(code(row[2])) for row in first}
    classes = {known: getattr(errors, known) for known in errors.__all__ if known != "ErrorInfo"}
    assert table.keys() == classes.keys()
    assert set(classes) <= set(jobqueue.__all__)
    assert table["JobFailedError"] == {"job_id", "error", "attempts", "reason"}
    assert table["InvalidArgumentError"] == {"argument"}
    tree = blocks(ERRORS)[0].code
    for known, kind in classes.items():
        line = next(line for line in tree.splitlines() if re.search(rf"\b{known}\b", line))
        depth = len([base for base in kind.__mro__ if issubclass(base, errors.JobQueueError)]) - 1
        assert re.search(r"\w", line).start() == 4 * depth  # type: ignore[union-attr]
    assert [code(row[0])[0] for row in rows(section(ERRORS, "ErrorInfo"))] == fields(errors.ErrorInfo)
    assert {code(row[0])[0] for row in rows(section(ERRORS, "Reasons"))} == set(jobqueue.FailureReason)


@pytest.mark.parametrize("owner", ["Queue", "Reaper"])
def test_events(owner: str) -> None:
    module = jobqueue.queue if owner == "Queue" else jobqueue.maintenance.reaper
    actual = {(kind.name, kind.__name__, tuple(fields(kind))) for kind in module._EVENTS}
    table = {(code(a)[0], code(b)[0], tuple(code(c))) for a, b, c, _ in rows(section(EVENTS, owner))}
    assert table == actual


@pytest.mark.parametrize(
    ("heading", "function", "skipped"),
    [
        ("Queue", jobqueue.Queue.__init__, {"storage", "name"}),
        ("enqueue", jobqueue.Queue.enqueue, {"id", "payload"}),
        ("Reaper", jobqueue.Reaper.__init__, {"storage", "queues"}),
        ("App", jobqueue.App.__init__, {"storage", "queues"}),
        ("LeaderElection", jobqueue.LeaderElection.__init__, set()),
        ("FileStorage", jobqueue.FileStorage.__init__, {"path", "clock", *FOR_TESTS}),
        ("RedisStorage", jobqueue.RedisStorage.__init__, {"url", "prefix", "clock"}),
    ],
)
def test_options(heading: str, function: Any, skipped: set[str]) -> None:
    if heading.endswith("Storage"):
        text = section(OPTIONS, "Stores").partition(f"\n`{heading}(")[2]
        text = re.split(r"\n`\w+Storage\(", text)[0]
    else:
        text = section(OPTIONS, heading)
    table = [(code(row[0])[0], ast.literal_eval(code(row[1])[0])) for row in rows(text)]
    assert table == [(p, default) for p, _, default in parameters(function) if p not in skipped]


def test_the_values_of_the_api() -> None:
    parts = section(API, "Values").strip().split("\n\n")
    values = (
        jobqueue.EnqueueRequest,
        jobqueue.EnqueueResult,
        jobqueue.JobStatus,
        jobqueue.Attempt,
        jobqueue.AfterExecution,
    )
    for kind in values:
        paragraph = next(part for part in parts if part.startswith(f"**`{kind.__name__}`**"))
        missing = set(fields(kind)) - set(code(paragraph))
        assert not missing, kind


@pytest.mark.parametrize("page", [API, CONTRACT], ids=name)
def test_enums(page: Path) -> None:
    table = {code(a)[0]: code(b) for a, b in rows(section(page, "Values")) if not re.search("[A-Z]", b)}
    for known, members in table.items():
        kind = getattr(jobqueue, known, None) or getattr(values, known)
        if issubclass(kind, StrEnum):
            assert members == [member.value for member in kind], known
        else:
            assert members == fields(kind), known
    documented = set(table)
    module = jobqueue if page == API else values
    for known in module.__all__:
        kind = getattr(module, known)
        if inspect.isclass(kind) and kind.__module__ == values.__name__ and page == CONTRACT:
            is_value = hasattr(kind, "_fields") or issubclass(kind, StrEnum)
            assert not is_value or known in documented or known in jobqueue.__all__, known
        elif page == API and inspect.isclass(kind) and issubclass(kind, StrEnum):
            assert known in documented, known


def test_settlements() -> None:
    last = CONTRACT.read_text().rstrip().split("\n\n")[-1]
    assert set(Settlement._fields) <= set(code(last))


def fields(kind: Any) -> list[str]:
    if hasattr(kind, "_fields"):
        return list(kind._fields)
    return [field.name for field in dataclasses.fields(kind)]


def test_the_picture_of_the_states_shows_every_state_and_step() -> None:
    picture = (DOCS / "states.svg").read_text()
    words = {
        word for text in re.findall("<text[^>]*>(.*?)</text>", picture) for word in re.findall(r"\w+", text)
    }
    assert {*JobState, *Action} <= words
