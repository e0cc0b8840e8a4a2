"""What forms do: with jobs, queues and schedules. Each asks first whether this visitor may."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from jobqueue.jobs import JobFilter
from jobqueue.limits import give_back, set_limits
from jobqueue.model.limits import Limits
from jobqueue.model.states import JobState
from jobqueue.runtime.loggers import get_logger
from jobqueue.runtime.text import one_line
from jobqueue.web.bulk import Act, Operation
from jobqueue.web.options import Action
from jobqueue.web.pages import Go, Page, Visit
from jobqueue.web.params import BadRequestError, Params
from jobqueue.web.source import Desk
from jobqueue.web.values import parse_json
from jobqueue.web.views.limits import limits_wanted
from jobqueue.web.views.queue import JOBS, VERBS

__all__ = ["confirm", "jobs_action", "limits_action", "queue_action", "schedule_action"]

log = get_logger("jobqueue.web")

MOST_COUNTED = 5_000
"""Matching jobs that are counted before an action; more are "at least so many"."""
COUNTING = 5
"""Calls of a listing that the counting makes at the most."""
_BACK = ("queue", "dead")


async def confirm(visit: Visit) -> Page:
    """Show how many jobs an action would change, and ask."""
    params = visit.params
    desk = await visit.source.desk(params.queue())
    verb, state = _allowed(visit), params.state()
    data: dict[str, Any] = {
        "queue": desk.name,
        "verb": verb,
        "state": state,
        "task": params.label("task") or "",
        "group": params.label("group") or "",
        "back": params.one_of("back", _BACK) or "queue",
        "all": bool(params.text("all")),
    }
    if data["all"]:
        jobs = _filter(params, verb)
        number, exact = await _count(desk, jobs)
        data |= {"ids": [], "count": number, "exact": exact}
    else:
        ids = params.ids()
        if len(ids) > JOBS:
            raise BadRequestError(f"at most {JOBS} jobs can be chosen")
        data |= {"ids": ids, "count": len(ids), "exact": True}
    return Page("confirm.html", f"{verb.capitalize()} jobs", data, section="overview")


async def jobs_action(visit: Visit) -> Go:
    """Cancel, retry or remove jobs: those of the ids, or all that match."""
    params = visit.params
    desk = await visit.source.desk(params.queue())
    verb = _allowed(visit)
    back = params.one_of("back", ("job", *_BACK)) or "queue"
    query: dict[str, object] = {"queue": desk.name}
    if params.text("all"):
        query |= {"state": params.text("state"), "task": params.text("task"), "group": params.text("group")}
        if back == "dead":
            del query["state"]
        return Go(_page(back), query | {"did": await _start(visit, desk, verb)})
    ids = params.ids()
    if not ids:
        raise BadRequestError("choose jobs first")
    if len(ids) > JOBS:
        raise BadRequestError(f"at most {JOBS} jobs can be chosen")
    if verb == "retry" and params.exact("payload"):
        done = await _retry_edited(desk, ids, params)
    else:
        done = await _act(desk, verb)(ids)
    _note(visit, f"{verb} {len(ids)} jobs of queue {desk.name} ({done} done): {', '.join(ids[:5])}")
    if back == "job":
        return Go("job", query | {"id": ids[0], "did": verb if done else "unchanged", "n": done})
    query |= {"task": params.text("task"), "group": params.text("group")}
    if back == "queue":
        query["state"] = params.text("state")
    return Go(_page(back), query | {"did": verb, "n": done})


async def queue_action(visit: Visit) -> Go:
    """Pause or resume a queue."""
    desk = await visit.source.desk(visit.params.queue())
    _require(visit, Action.PAUSE_QUEUES)
    verb = _choice(visit.params, ("pause", "resume"))
    await desk.set_paused(paused=verb == "pause")
    _note(visit, f"{verb} queue {desk.name}")
    return Go("queue", {"queue": desk.name, "did": f"{verb}d"})


async def limits_action(visit: Visit) -> Go:
    """Set the limits of a queue, or let programs set them again."""
    desk = await visit.source.desk(visit.params.queue())
    _require(visit, Action.SET_LIMITS)
    verb = _choice(visit.params, ("set", "none", "reset"))
    if verb == "reset":
        holds = await give_back(desk.store, desk.name, None)
    else:
        holds = limits_wanted(visit.params) if verb == "set" else Limits()
        await set_limits(desk.store, desk.name, holds)
    _note(visit, f"{verb} limits of queue {desk.name}: {holds}")
    return Go("queue", {"queue": desk.name, "did": "limits"})


async def schedule_action(visit: Visit) -> Go:
    """Pause or resume a schedule, or run it now."""
    params = visit.params
    desk = await visit.source.desk(params.queue())
    name = params.exact("name")
    verb = _choice(params, ("pause", "resume", "run"))
    _require(visit, Action.RUN_SCHEDULES if verb == "run" else Action.PAUSE_SCHEDULES)
    query: dict[str, object] = {"queue": desk.name if params.text("one") else ""}
    if verb == "run":
        made = await desk.schedules.run_now(name)
        _note(visit, f"run schedule {name} of queue {desk.name} now: job {made.id}")
        return Go("schedules", query | {"did": "run", "made": made.id, "of": desk.name})
    await (desk.schedules.pause(name) if verb == "pause" else desk.schedules.resume(name))
    _note(visit, f"{verb} schedule {name} of queue {desk.name}")
    return Go("schedules", query | {"did": f"{verb}d"})


def _page(back: str) -> str:
    return "queue" if back == "queue" else "dead"


def _choice(params: Params, known: Sequence[str]) -> str:
    found = params.one_of("verb", known)
    if found is None:
        raise BadRequestError(f"verb must be one of {', '.join(known)}")
    return found


def _allowed(visit: Visit) -> str:
    """Return what is to be done with jobs, if this visitor may."""
    # The button for all that match says both in one.
    verb = visit.params.one_of("all", ("1", *VERBS))
    if verb in {None, "1"}:
        verb = _choice(visit.params, tuple(VERBS))
    assert verb is not None
    _require(visit, VERBS[verb][0])
    return verb


def _require(visit: Visit, action: Action) -> None:
    if action not in visit.may:
        why = "this dashboard is read-only" if visit.board.options.read_only else "you may not do this"
        raise BadRequestError(f"{why} ({action.value})", 403)


def _filter(params: Params, verb: str) -> JobFilter:
    """Return which jobs are meant. A state is needed: what changes then leaves it, and is not met twice."""
    state = params.state()
    if state is None or state not in VERBS[verb][1]:
        raise BadRequestError(f"choose a state first: {', '.join(sorted(VERBS[verb][1]))}")
    return JobFilter(state=state, task=params.label("task"), group=params.label("group"))


async def _count(desk: Desk, jobs: JobFilter) -> tuple[int, bool]:
    """Return how many jobs match, and whether that is all of them."""
    if jobs.task is None and jobs.group is None:
        return _in_state(await desk.store.counts(desk.name), jobs), True
    number, cursor = 0, None
    for _ in range(COUNTING):
        page = await desk.jobs.list(jobs, limit=1_000, cursor=cursor)
        number += len(page.jobs)
        cursor = page.cursor
        if cursor is None:
            return number, True
        if number >= MOST_COUNTED:
            break
    return number, False


def _in_state(counts: Any, jobs: JobFilter) -> int:
    assert isinstance(jobs.state, JobState)
    return int(getattr(counts, jobs.state.value))


def _act(desk: Desk, verb: str) -> Act:
    match verb:
        case "cancel":
            return partial(desk.jobs.cancel, running=True)
        case "retry":
            return desk.jobs.retry
        case _:
            return desk.jobs.remove


async def _start(visit: Visit, desk: Desk, verb: str) -> str:
    """Begin an action on all jobs that match."""
    jobs = _filter(visit.params, verb)
    total = _in_state(await desk.store.counts(desk.name), jobs)
    what = [f"all {jobs.state} jobs"]
    what += [f"of task {jobs.task}"] if jobs.task else []
    what += [f"of group {jobs.group}"] if jobs.group else []
    operation = Operation(desk.name, verb, " ".join(what), total)
    started = visit.board.bulk.start(desk, operation, jobs, _act(desk, verb))
    if started:
        _note(visit, f"{verb} {' '.join(what)} of queue {desk.name}")
    return "started" if started else "full"


async def _retry_edited(desk: Desk, ids: Sequence[str], params: Params) -> int:
    if len(ids) != 1:
        raise BadRequestError("a payload goes to one job")
    try:
        payload = parse_json(params.exact("payload"))
    except ValueError as error:
        raise BadRequestError(f"the payload is not JSON: {error}") from None
    return await desk.jobs.retry(ids[0], payload=payload)


def _note(visit: Visit, what: str) -> None:
    """Write who did what into the log."""
    client = visit.request.client
    log.info("dashboard: %s, from %s", one_line(what), "unknown" if client is None else client.host)
