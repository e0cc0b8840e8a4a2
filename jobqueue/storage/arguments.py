"""Checks the arguments of a store's calls, before anything is stored.

Every store checks them first of all, so that a bad argument fails the call that has it and no other: a store
that merges calls would find out only when it packs them. All raise `InvalidArgumentError`, which names the
argument.

On the hot path a check is a look at a type: jobs and settlements that a queue has made say so by theirs
(`CheckedJob`, `CheckedSettlement`), and names that have been checked are remembered.

It is long because it has one function for every call of the contract, and they share the checks of values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.checks import (
    MAX_INSTANT,
    MAX_MILLIS,
    check_bool,
    check_callable,
    check_count,
    check_id,
    check_label,
    check_millis,
    check_priority,
    check_queue_name,
    check_seconds,
)
from jobqueue.model.outcomes import CheckedSettlement, Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.values import (
    MAX_CHANGES,
    MAX_DOCUMENT,
    MAX_HEADERS,
    MAX_SUMMARY,
    MAX_WEIGHT,
    Change,
    CheckedJob,
    Conflict,
    Limit,
    NewJob,
    Rate,
    Renewal,
    Reuse,
    Rules,
)

__all__ = [
    "check_acquire",
    "check_cancel",
    "check_exchange",
    "check_extend",
    "check_forget",
    "check_get",
    "check_insert",
    "check_keep",
    "check_limit",
    "check_list_documents",
    "check_lock",
    "check_owner",
    "check_queue",
    "check_read_documents",
    "check_revive",
    "check_scan",
    "check_set_rules",
    "check_sink",
    "check_usage",
    "check_wait_for_lock",
    "check_wait_for_work",
    "check_write_documents",
]

MAX_FENCE = 2**53 - 1
"""Largest fence: doubles, in which some stores count, are exact up to here."""
MAX_LIMIT = 2**31 - 1

_SETTLING = frozenset({Action.COMPLETE, Action.FAIL, Action.RETRY, Action.RELEASE, Action.CANCEL})
_MOST_KNOWN = 10_000
_BATCHES = frozenset({list, tuple})
_NONE: frozenset[type] = frozenset()
_CHECKED_JOBS = frozenset({CheckedJob})
_CHECKED_SETTLEMENTS = frozenset({CheckedSettlement})


# -- jobs ------------------------------------------------------------------------------------------


def check_insert(queue: str, jobs: Sequence[NewJob], reply_to: str | None, max_length: int | None) -> None:
    """Check the arguments of `Storage.insert`."""
    check_queue(queue)
    if reply_to is not None:
        _check_known_name("reply_to", reply_to)
    if max_length is not None:
        check_count("max_length", max_length, low=0)
    _check_items("jobs", jobs, _check_job, _CHECKED_JOBS)


def check_get(
    queue: str, ids: Sequence[str], reply_to: str | None, *, payload: bool = False, letters: bool = False
) -> None:
    """Check the arguments of `Storage.get`."""
    check_queue(queue)
    _check_items("ids", ids, _check_id)
    if reply_to is not None:
        _check_known_name("reply_to", reply_to)
    check_bool("payload", payload)
    check_bool("letters", letters)


def check_cancel(queue: str, ids: Sequence[str], running: bool) -> None:  # noqa: FBT001
    """Check the arguments of `Storage.cancel`."""
    check_queue(queue)
    _check_items("ids", ids, _check_id)
    check_bool("running", running)


def check_keep(queue: str, ttls: Sequence[tuple[str, int]]) -> None:
    """Check the arguments of `Storage.keep`."""
    check_queue(queue)
    _check_items("ttls", ttls, _check_ttl)


def check_exchange(
    queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
) -> None:
    """Check the arguments of `Storage.exchange`."""
    check_queue(queue)
    _check_known_name("worker", worker)
    _check_items("settlements", settlements, _check_settlement, _CHECKED_SETTLEMENTS)
    if type(limit) is not int or not 0 <= limit <= MAX_LIMIT:
        _check_limit(limit)
    if type(lease) is not int or not 0 < lease <= MAX_MILLIS:
        check_millis("lease", lease, low=1)


def check_extend(queue: str, worker: str, leases: Sequence[Renewal], lease: int) -> None:
    """Check the arguments of `Storage.extend`."""
    check_queue(queue)
    _check_known_name("worker", worker)
    _check_items("leases", leases, _check_renewal)
    check_millis("lease", lease)  # 0: the worker leaves


def check_limit(queue: str, limit: int) -> None:
    """Check the arguments of `Storage.sweep` and `Storage.purge`."""
    check_queue(queue)
    _check_limit(limit)


def check_queue(queue: str) -> None:
    """Check the name of a queue: all that `Storage.counts` and `Storage.workers` get."""
    if type(queue) is not str or queue not in _known_queues:
        _remember(_known_queues, check_queue_name(queue, "queue"))


def check_queues(queues: Sequence[str]) -> None:
    """Check the names of several queues."""
    for queue in queues:
        check_queue(queue)


def check_scan(queue: str, state: JobState, limit: int, cursor: str | None) -> None:
    """Check the arguments of `Storage.scan`. Only the store can judge the text of a cursor."""
    check_queue(queue)
    _check_type("state", state, JobState)
    _check_limit(limit)
    if cursor is not None:
        _check_type("cursor", cursor, str)


def check_wait_for_work(queue: str, worker: str, timeout: float) -> None:
    """Check the arguments of `Storage.wait_for_work`."""
    check_queue(queue)
    _check_known_name("worker", worker)
    check_seconds("timeout", timeout, zero=True)


def check_sink(queue: str, address: str, sink: object) -> None:
    """Check the arguments of `Storage.subscribe` and `Storage.unsubscribe`."""
    check_queue(queue)
    _check_known_name("address", address)
    for method in ("deliver", "cancel_requested", "resync"):
        check_callable(f"sink.{method}", getattr(sink, method, None))


def check_revive(queue: str, ids: Sequence[str], delay: int, payload: bytes | None) -> None:
    """Check the arguments of `Revival.revive`."""
    check_forget(queue, ids)
    check_millis("delay", delay)
    if payload is not None:
        _check_type("payload", payload, bytes)


def check_forget(queue: str, ids: Sequence[str]) -> None:
    """Check the arguments of `Revival.forget`."""
    check_queue(queue)
    _check_items("ids", ids, _check_id)


def check_set_rules(queue: str, rules: Rules | None, expected: Rules | None) -> None:
    """Check the arguments of `Admission.set_rules`."""
    check_queue(queue)
    for name, value in (("rules", rules), ("expected", expected)):
        if value is not None:
            _check_type(name, value, Rules)
            check_bool(f"{name}.paused", value.paused)
            _check_limit_of(f"{name}.queue", value.queue)
            _check_limit_of(f"{name}.group", value.group)
            check_bool(f"{name}.operator", value.operator)


def check_usage(queue: str, groups: Sequence[str]) -> None:
    """Check the arguments of `Limiting.usage`."""
    check_queue(queue)
    _check_items("groups", groups, _check_group)


def _check_group(group: str) -> None:
    check_label("", group)


def _check_limit_of(name: str, limit: Limit) -> None:
    _check_type(name, limit, Limit)
    if limit.running is not None:
        check_count(f"{name}.running", limit.running)
    if limit.rate is not None:
        _check_type(f"{name}.rate", limit.rate, Rate)


# -- documents -------------------------------------------------------------------------------------


def check_read_documents(space: str, names: Sequence[str]) -> None:
    """Check the arguments of `Documents.read_documents`."""
    check_id(space, "space")
    _check_items("names", names, _check_id)
    _check_number_of("names", names)


def check_write_documents(space: str, changes: Sequence[Change]) -> None:
    """Check the arguments of `Documents.write_documents`."""
    check_id(space, "space")
    _check_items("changes", changes, _check_change)
    _check_number_of("changes", changes)


def check_list_documents(space: str, limit: int, cursor: str | None) -> None:
    """Check the arguments of `Documents.list_documents`. Only the store can judge the text of a cursor."""
    check_id(space, "space")
    _check_limit(limit)
    if cursor is not None:
        _check_type("cursor", cursor, str)


# -- locks -----------------------------------------------------------------------------------------


def check_lock(lock: str) -> None:
    """Check the name of a lock: all that `Storage.lock_holder` gets."""
    check_id(lock, "lock")


def check_owner(lock: str, owner: str) -> None:
    """Check the arguments of `Storage.release`."""
    check_lock(lock)
    check_id(owner, "owner")


def check_acquire(lock: str, owner: str, ttl: int) -> None:
    """Check the arguments of `Storage.acquire` and `Storage.renew`."""
    check_owner(lock, owner)
    check_millis("ttl", ttl, low=1)


def check_wait_for_lock(lock: str, timeout: float) -> None:
    """Check the arguments of `Storage.wait_for_lock`."""
    check_lock(lock)
    check_seconds("timeout", timeout, zero=True)


# -- the parts of batches --------------------------------------------------------------------------


def _check_items(
    argument: str, items: Sequence[Any], check: Callable[[Any], object], checked: frozenset[type] = _NONE
) -> None:
    """Check every item of a batch, except those of the types ``checked``."""
    if type(items) in _BATCHES:
        if not items or checked.issuperset(map(type, items)):
            return
    elif isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise InvalidArgumentError(argument, f"must be a list or a tuple, not {type(items).__name__}")
    for place, item in enumerate(items):
        if type(item) in checked:
            continue
        try:
            check(item)
        except InvalidArgumentError as error:
            raise error.within(f"{argument}[{place}]") from None


def _check_id(id: str) -> None:
    check_id(id, "")


def _check_job(job: NewJob) -> None:
    _check_type("", job, NewJob)
    check_id(job.id)
    _check_type("payload", job.payload, bytes)
    check_priority(job.priority)
    check_millis("delay", job.delay)
    if job.run_at is not None:
        check_count("run_at", job.run_at, low=0, high=MAX_INSTANT)
    check_count("max_attempts", job.max_attempts)
    check_count("max_stalls", job.max_stalls, low=0)
    check_millis("ttl", job.ttl)
    _check_type("reuse", job.reuse, Reuse)
    check_bool("wait", job.wait)
    _check_bytes("headers", job.headers, MAX_HEADERS)
    check_label("task", job.task)
    check_label("group", job.group)
    if job.dead_letter_ttl is not None:
        check_millis("dead_letter_ttl", job.dead_letter_ttl)
    _check_type("conflict", job.conflict, Conflict)
    check_count("weight", job.weight, high=MAX_WEIGHT)
    if job.expires is not None:
        check_millis("expires", job.expires, low=1)


def _check_settlement(settlement: Settlement) -> None:
    _check_type("", settlement, Settlement)
    _check_run(settlement.id, settlement.fence)
    _check_type("action", settlement.action, Action)
    if settlement.action not in _SETTLING:
        raise InvalidArgumentError("action", f"must be one that ends a run, not {settlement.action}")
    _check_type("data", settlement.data, bytes)
    check_millis("ttl", settlement.ttl)
    check_millis("delay", settlement.delay)
    _check_bytes("summary", settlement.summary, MAX_SUMMARY)
    if settlement.then != ():
        _check_type("then", settlement.then, tuple)
        _check_items("then", settlement.then, _check_job, _CHECKED_JOBS)
        for place, job in enumerate(settlement.then):
            if job.conflict is not Conflict.JOIN:
                raise InvalidArgumentError(f"then[{place}].conflict", "must be join")


def _check_renewal(renewal: Renewal) -> None:
    _check_type("", renewal, Renewal)
    _check_run(renewal.id, renewal.fence)
    if renewal.progress is not None:
        _check_type("progress", renewal.progress, bytes)
    if renewal.saved is not None:
        _check_type("saved", renewal.saved, bytes)


def _check_change(change: Change) -> None:
    _check_type("", change, Change)
    check_id(change.name, "name")
    if change.expected is not None:
        check_count("expected", change.expected, low=0, high=MAX_FENCE)
    if change.data is not None:
        _check_bytes("data", change.data, MAX_DOCUMENT)


def _check_run(id: str, fence: int) -> None:
    check_id(id)
    check_count("fence", fence, low=0, high=MAX_FENCE)


def _check_ttl(pair: tuple[str, int]) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise InvalidArgumentError("", "must be a pair of an id and milliseconds")
    id, ttl = pair
    check_id(id)
    check_millis("ttl", ttl)


def _check_limit(limit: int) -> None:
    check_count("limit", limit, low=0, high=MAX_LIMIT)


def _check_number_of(argument: str, items: Sequence[Any]) -> None:
    if len(items) > MAX_CHANGES:
        raise InvalidArgumentError(argument, f"must be at most {MAX_CHANGES} items, not {len(items)}")


def _check_bytes(argument: str, value: bytes, most: int) -> None:
    _check_type(argument, value, bytes)
    if len(value) > most:
        raise InvalidArgumentError(argument, f"must be at most {most} bytes, not {len(value)}")


def _check_type(argument: str, value: object, wanted: type[Any]) -> None:
    if not isinstance(value, wanted):
        raise InvalidArgumentError(argument, f"must be {wanted.__name__}, not {type(value).__name__}")


# -- names -----------------------------------------------------------------------------------------

_known_queues: set[str] = set()
_known_names: set[str] = set()


def _check_known_name(argument: str, name: str) -> None:
    if type(name) is not str or name not in _known_names:
        _remember(_known_names, check_id(name, argument))


def _remember(known: set[str], name: str) -> None:
    """Remember a checked name for later calls. The set is bounded, as the number of names is not."""
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known.add(name)
