"""Bad arguments: the call with a bad one fails, and nothing else happens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action, JobState
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import MAX_HEADERS, MAX_SUMMARY, Claimed, InsertStatus, Renewal
from jobqueue.testing.contract.base import Cases
from jobqueue.testing.contract.support import LEASE, TTL, Box, Jobs, job

__all__ = ["BATCHES", "BOOLS", "BYTES", "NUMBERS", "TEXTS", "ArgumentCases", "in_batch", "with_each"]

TEXTS: list[Any] = [None, 5, True, b"q", ["q"], "", "x" * 300, "a\x00b", "a\nb", "\ud800"]
NUMBERS: list[Any] = ["1", b"1", True, 1.0, 1.5, math.nan, math.inf, -1, -(10**400), 10**400, 2**63, [1]]
SECONDS: list[Any] = [None, "1", True, math.nan, math.inf, -1, -0.5, 10**400, 1e300]
BATCHES: list[Any] = [None, 5, "ab", b"ab", {"a"}, iter(())]
BOOLS: list[Any] = [None, 0, 1, "yes"]
LABELS = [one for one in TEXTS if one != ""]
BYTES: list[Any] = ["text", 5, [1], bytearray(b"x"), memoryview(b"x")]


def in_batch(good: Any, bad: Sequence[Any]) -> list[Any]:
    """Return batches with a good item before a bad one, and values that are no batch."""
    return [*BATCHES, *([good, one] for one in bad)]


def with_each(good: Any, **bad: list[Any]) -> list[Any]:
    """Return copies of a good item with one bad field, and values that are no such item."""
    return [
        *(None, 5, "a", tuple(good)),
        *(good._replace(**{field: value}) for field, values in bad.items() for value in values),
    ]


def bad_jobs() -> list[Any]:
    return with_each(
        job("new"),
        id=TEXTS,
        payload=[None, *BYTES],
        priority=[*(number for number in NUMBERS if number != -1), None, 1001, -1001],
        delay=[*NUMBERS, None],
        run_at=NUMBERS,
        max_attempts=[*NUMBERS, None, 0],
        max_stalls=[*NUMBERS, None],
        ttl=[*NUMBERS, None],
        reuse=[None, True, "return", "other"],
        wait=BOOLS,
        headers=[None, *BYTES, bytes(MAX_HEADERS + 1)],
        task=LABELS,
        group=LABELS,
        dead_letter_ttl=NUMBERS,
        expires=[*NUMBERS, 0],
    )


def bad_settlements(run: Claimed) -> list[Any]:
    return with_each(
        Settlement(run.id, run.fence, Action.COMPLETE, b"r", TTL),
        id=TEXTS,
        fence=[*NUMBERS, None],
        action=[None, True, "complete", "other", Action.CLAIM],
        data=[None, *BYTES],
        ttl=[*NUMBERS, None],
        delay=[*NUMBERS, None],
        summary=[None, *BYTES, bytes(MAX_SUMMARY + 1)],
        then=[None, 5, "a", [job("new")], (None,), *((one,) for one in bad_jobs())],
    )


def bad_renewals(run: Claimed) -> list[Any]:
    good = Renewal(run.id, run.fence, b"half")
    return with_each(good, id=TEXTS, fence=[*NUMBERS, None], progress=BYTES, saved=BYTES)


def calls(run: Claimed) -> dict[str, tuple[dict[str, Any], dict[str, list[Any]]]]:
    """Return, by call, good arguments and the values that each of them must not have."""
    queues = [*TEXTS, "a b", "a/b", "x" * 65]
    optional_texts, optional_numbers = TEXTS[1:], NUMBERS
    numbers = [None, *NUMBERS]
    done = Settlement(run.id, run.fence, Action.COMPLETE, b"r", TTL)
    held = Renewal(run.id, run.fence)
    ids = in_batch("waits", TEXTS)
    ttls = in_batch(("ended", 1), [None, "a", ("a",), ["a", 1], *((text, 1) for text in TEXTS)])
    ttls += in_batch(("ended", 1), [("ended", value) for value in numbers])
    work = {"queue": "q", "worker": "w2"}
    return {
        "insert": (
            {"queue": "q", "jobs": [job("new")], "reply_to": "me", "max_length": 9},
            {
                "queue": queues,
                "jobs": in_batch(job("new"), bad_jobs()),
                "reply_to": optional_texts,
                "max_length": optional_numbers,
            },
        ),
        "get": (
            {"queue": "q", "ids": ["waits"], "reply_to": "me", "payload": False, "letters": False},
            {
                "queue": queues,
                "ids": ids,
                "reply_to": optional_texts,
                "payload": BOOLS,
                "letters": BOOLS,
            },
        ),
        "exchange": (
            {**work, "settlements": [done], "limit": 1, "lease": LEASE},
            {
                "queue": queues,
                "worker": TEXTS,
                "settlements": in_batch(done, bad_settlements(run)),
                "limit": numbers,
                "lease": [*numbers, 0],
            },
        ),
        "extend": (
            {**work, "leases": [held], "lease": LEASE},
            {
                "queue": queues,
                "worker": TEXTS,
                "leases": in_batch(held, bad_renewals(run)),
                "lease": numbers,
            },
        ),
        "sweep": ({"queue": "q", "limit": 1}, {"queue": queues, "limit": numbers}),
        "purge": ({"queue": "q", "limit": 1}, {"queue": queues, "limit": numbers}),
        "cancel": (
            {"queue": "q", "ids": ["waits"], "running": True},
            {"queue": queues, "ids": ids, "running": BOOLS},
        ),
        "set_ttl": ({"queue": "q", "ttls": [("ended", 1)]}, {"queue": queues, "ttls": ttls}),
        "scan": (
            {"queue": "q", "state": JobState.QUEUED, "limit": 1, "cursor": None},
            {"queue": queues, "state": [None, "queued", 5], "limit": numbers, "cursor": [5, b"1", True]},
        ),
        "counts": ({"queue": "q"}, {"queue": queues}),
        "workers": ({"queue": "q"}, {"queue": queues}),
        "wait_for_work": (
            {**work, "timeout": 0},
            {"queue": queues, "worker": TEXTS, "timeout": SECONDS},
        ),
        "subscribe": (
            {"queue": "q", "address": "me", "sink": Box()},
            {"queue": queues, "address": TEXTS, "sink": [None, 5, "sink", object()]},
        ),
        "lock_acquire": (
            {"lock": "l", "owner": "o", "ttl": TTL},
            {"lock": TEXTS, "owner": TEXTS, "ttl": [*numbers, 0]},
        ),
        "lock_renew": (
            {"lock": "l", "owner": "o", "ttl": TTL},
            {"lock": TEXTS, "owner": TEXTS, "ttl": [*numbers, 0]},
        ),
        "lock_release": ({"lock": "l", "owner": "o"}, {"lock": TEXTS, "owner": TEXTS}),
        "lock_holder": ({"lock": "l"}, {"lock": TEXTS}),
        "wait_for_lock": ({"lock": "l", "timeout": 0}, {"lock": TEXTS, "timeout": SECONDS}),
    }


SOME_RUN = Claimed("runs", b"", 1, 1, 1, TTL, 1)
ARGUMENTS = [(name, argument) for name, (_, bad) in calls(SOME_RUN).items() for argument in bad]


class ArgumentCases(Cases):
    """Bad arguments."""

    @pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
    async def test_a_bad_argument_fails_its_call_and_changes_nothing(
        self, jobs: Jobs, name: str, argument: str
    ) -> None:
        run = await self.furnish(jobs)
        good, bad = calls(run)[name]
        before = await self.all_that_can_be_seen(jobs)
        for value in bad[argument]:
            with pytest.raises(InvalidArgumentError) as caught:
                await call(jobs.storage, name, {**good, argument: value})
            assert caught.value.argument.startswith(argument), caught.value
        assert await self.all_that_can_be_seen(jobs) == before
        await call(jobs.storage, name, good)

    async def test_a_bad_argument_does_not_fail_the_calls_that_are_made_at_once(self, jobs: Jobs) -> None:
        run = await self.furnish(jobs)
        for place, (name, (good, bad)) in enumerate(calls(run).items()):
            for argument, values in bad.items():
                before, after = (jobs.at("other").put(f"{place}-{argument}-{when}") for when in "01")
                failed = asyncio.ensure_future(call(jobs.storage, name, {**good, argument: values[-1]}))
                answers = await asyncio.gather(before, asyncio.wait([failed]), after)
                assert isinstance(failed.exception(), InvalidArgumentError)
                assert answers[0].status is answers[2].status is InsertStatus.CREATED

    async def furnish(self, jobs: Jobs) -> Claimed:
        """Make a running, a waiting and an ended job, and a lock that is held; return the run."""
        await jobs.bring(JobState.COMPLETED, "ended")
        run = await jobs.bring(JobState.PROCESSING, "runs")
        assert run is not None
        await jobs.put("waits")
        assert await jobs.storage.lock_acquire("l", "o", TTL) is not None
        return run

    async def all_that_can_be_seen(self, jobs: Jobs) -> list[Any]:
        ids = ["ended", "runs", "waits", "new", "a"]
        return [
            await jobs.storage.get("q", ids, payload=True),
            await jobs.storage.counts("q"),
            await jobs.storage.queues(),
            await jobs.storage.workers("q"),
            await jobs.storage.lock_holder("l"),
        ]


def call(storage: Storage, name: str, arguments: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    """Call a store by name."""
    made: Coroutine[Any, Any, Any] = getattr(storage, name)(**arguments)
    return made
