"""What producers call and what handlers do. A new kind of call is one entry of `KINDS`.

A payload says what its handler is to do: ``#3 sleep=0.1 fail=1`` is the job of operation 3, sleeps, and fails
at its first attempt. Its head differs from that of every other job, so that no result is taken for another.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobqueue import Fatal, Job, Retry
from jobqueue.errors import StorageError
from jobqueue.storage.values import Change
from tests.sim.checks import FOLLOWED

if TYPE_CHECKING:
    from tests.sim.process import Process


def tag(number: int, *words: str) -> str:
    """Make a payload that no other job has, with what its handler is to do."""
    return " ".join((f"#{number}", *words))


# -- what handlers do -------------------------------------------------------------------------------

CALM_WORDS = (("sleep=0.02",), ("progress=1",), ("fail=1",), (FOLLOWED,), ())
WORDS = (
    (), (), ("sleep=0.1",), ("sleep=1.5",), ("sleep=7",), ("fail=1",), ("fail=9",), ("fatal",),
    ("retry=2",), ("cancels_itself=2",), ("cancels_itself=99",), ("stubborn=2",), ("deaf=6",),
    ("spawns=0.3",), ("progress=1", "sleep=0.5"), (FOLLOWED, "sleep=0.3"), ("blocks=2.5", "sleep=0.2"),
)  # fmt: skip


async def perform(process: Process, word: str, job: Job[str]) -> None:
    """Do what one word of a payload says, in the event loop."""
    kind, _, amount = word.partition("=")
    match kind:
        case "sleep":
            await asyncio.sleep(float(amount))
        case "cancels_itself" if job.attempts <= int(amount):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        case "stubborn":
            try:
                await asyncio.sleep(float(amount))
            except asyncio.CancelledError:
                await asyncio.sleep(0.3)
        case "deaf":
            for _ in range(2):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(float(amount))
        case "progress":
            await job.progress(amount)
        case "spawns":
            process.spawned = asyncio.create_task(asyncio.sleep(float(amount)))
        case "blocks":
            process.block(float(amount))
            await asyncio.sleep(0)
        case _:
            _raise(kind, amount, job)


def perform_in_thread(word: str, job: Job[str]) -> Generator[float, None, None]:
    """Do what one word of a payload says, in a thread: it blocks for every number that it yields."""
    kind, _, amount = word.partition("=")
    match kind:
        case "sleep" | "stubborn" | "spawns" | "blocks":
            left = float(amount)
            while left > 0 and not job.aborted.is_set():  # as the documentation tells threads to do
                yield min(0.1, left)
                left -= 0.1
        case "deaf":
            yield float(amount)
        case _:
            yield 0.0
            _raise(kind, amount, job)


def _raise(kind: str, amount: str, job: Job[str]) -> None:
    match kind:
        case "fail" if job.attempts <= int(amount):
            raise ValueError(kind)
        case "fatal":
            raise Fatal(kind)
        case "retry" if job.attempts <= int(amount):
            raise Retry(0.2)
        case _:
            pass


# -- what producers call ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of call."""

    draw: Callable[[Draw], tuple[Any, ...]]
    """Draws the arguments."""
    act: Callable[..., Coroutine[Any, Any, None]]
    """Makes the call, in the process that is its first argument."""
    weight: int = 1
    calm: int = 1
    """Its weight where nothing is lost and nobody dies."""


@dataclass(frozen=True)
class Draw:
    """What arguments are drawn with."""

    random: random.Random
    number: int
    """That of the operation."""
    calm: bool
    id: str
    words: tuple[str, ...]
    queue: int


def group_of(id: str) -> str:
    """Return the group of a job: of a third of them none."""
    return ("", "g", "h")[sum(id.encode()) % 3]


async def _enqueue_and_wait(
    process: Process, queue: int, id: str, payload: str, timeout: float, reuse: str
) -> None:
    call = process.begin(f"{process.name}: enqueue_and_wait({id}, {payload!r})")
    call.instant = " " not in payload
    call.alone = id.startswith(("only", "series", "burst"))
    target = process.queues[queue]
    await process.finish(
        call, target.enqueue_and_wait(id, payload, timeout=timeout, reuse=reuse, group=group_of(id))
    )


async def _series(process: Process, queue: int, id: str, payload: str, count: int) -> None:
    """Call again as soon as a call is answered: the store is asked at the worst of moments."""
    head, *words = payload.split()
    for number in range(count):
        text = " ".join((f"{head}.{number}", *words))
        await _enqueue_and_wait(process, queue, f"{id}.{number}", text, 30.0, "return")


async def _burst(process: Process, queue: int, id: str, payload: str, count: int) -> None:
    """Make several calls at once: they travel together."""
    head, *words = payload.split()
    texts = [" ".join((f"{head}.{number}", *words)) for number in range(count)]
    await asyncio.gather(
        *(
            _enqueue_and_wait(process, queue, f"{id}.{number}", text, 30.0, "return")
            for number, text in enumerate(texts)
        )
    )


async def _enqueue(process: Process, queue: int, id: str, payload: str, delay: float, priority: int) -> None:
    call = process.begin(f"{process.name}: enqueue({id}, {payload!r})")
    target = process.queues[queue]
    await process.finish(
        call, target.enqueue(id, payload, delay=delay or None, priority=priority, group=group_of(id))
    )


async def _urgent(process: Process, queue: int, id: str, payload: str, expires: float) -> None:
    call = process.begin(f"{process.name}: enqueue_and_wait({id}, {payload!r}, expires={expires:g})")
    target = process.queues[queue]
    await process.finish(call, target.enqueue_and_wait(id, payload, expires=expires))


async def _wait(process: Process, queue: int, id: str, timeout: float) -> None:
    call = process.begin(f"{process.name}: wait({id})")
    await process.finish(call, process.queues[queue].wait(id, timeout=timeout))


async def _cancel(process: Process, queue: int, id: str, running: bool) -> None:
    call = process.begin(f"{process.name}: cancel({id}, running={running})")
    await process.finish(call, process.queues[queue].cancel(id, running=running))


async def _count(process: Process, name: str, times: int) -> None:
    """Raise a number in a document, by compare and set, as schedulers do with their marks."""
    storage = process.queues[0].storage
    for _ in range(times):
        with suppress(StorageError):
            (found,) = await storage.read_documents("sim", [name])
            value = 0 if found is None else int(found.data)
            expected = 0 if found is None else found.version
            await storage.write_documents("sim", [Change(name, expected, str(value + 1).encode())])
        await asyncio.sleep(0.05)


async def _schedule(
    process: Process, queue: int, name: str, payload: str, every: float, catch_up: str
) -> None:
    call = process.begin(f"{process.name}: schedules.add({name}, every {every:g} s, {catch_up})")
    schedules = process.queues[queue].schedules
    await process.finish(call, schedules.add(name, payload, every=every, catch_up=catch_up))


async def _hold(process: Process, queue: int, name: str, seconds: float) -> None:
    call = process.begin(f"{process.name}: schedules.pause({name})")
    await process.finish(call, process.queues[queue].schedules.pause(name))
    await asyncio.sleep(seconds)
    call = process.begin(f"{process.name}: schedules.resume({name})")
    await process.finish(call, process.queues[queue].schedules.resume(name))


async def _limit(process: Process, queue: int, running: int, group_running: int, seconds: float) -> None:
    """Let few jobs run for a while."""
    limits = process.queues[queue].limits
    call = process.begin(f"{process.name}: limits.set({running}, {group_running})")
    await process.finish(call, limits.set(running=running, group_running=group_running))
    await asyncio.sleep(seconds)
    call = process.begin(f"{process.name}: limits.set()")
    await process.finish(call, limits.set())


KINDS: dict[str, Kind] = {
    "rpc": Kind(
        lambda d: (
            d.queue, d.id, tag(d.number, *d.words), 30.0 if d.calm else d.random.choice((3.0, 30.0)),
            d.random.choice(("return", "return", "rerun", "rerun_failed")),
        ),
        _enqueue_and_wait, weight=4, calm=3,
    ),
    "enqueue": Kind(
        lambda d: (
            d.queue, d.id, tag(d.number, *d.words), d.random.choice((0.0, 0.0, 0.7)),
            d.random.choice((0, 0, 5)),
        ),
        _enqueue,
    ),
    "urgent": Kind(
        lambda d: (
            d.queue, d.random.choice((d.id, f"urgent{d.number}")), tag(d.number, *d.words),
            d.random.choice((0.01, 0.5, 3.0)),
        ),
        _urgent, calm=0,
    ),
    "cancel": Kind(lambda d: (d.queue, d.id, d.random.random() < 0.5), _cancel),
    "wait": Kind(lambda d: (d.queue, d.id, 20.0), _wait),
    "series": Kind(
        lambda d: (
            d.queue, f"series{d.number}", tag(d.number, *d.random.choice(((), ("sleep=0.02",)))),
            d.random.randint(3, 12),
        ),
        _series, weight=0,
    ),
    "burst": Kind(
        lambda d: (
            d.queue, f"burst{d.number}", tag(d.number, *d.random.choice(((), ("sleep=0.02",)))),
            d.random.randint(2, 6),
        ),
        _burst,
    ),
    "schedule": Kind(
        lambda d: (
            d.queue, d.random.choice(("often", f"tick{d.number}")), tag(d.number) + "@",
            d.random.choice((1.0, 1.5)), d.random.choice(("all", "last")),
        ),
        _schedule, calm=0,
    ),
    "hold": Kind(lambda d: (d.queue, "often", d.random.choice((0.3, 1.7))), _hold, calm=0),
    "limit": Kind(
        lambda d: (
            d.queue, d.random.choice((1, 2, 3)), d.random.choice((1, 1, 2)), d.random.choice((0.3, 2.0)),
        ),
        _limit, calm=0,
    ),
    "count": Kind(lambda d: (d.random.choice("xy"), d.random.randint(1, 4)), _count),
}  # fmt: skip
"""By name."""
