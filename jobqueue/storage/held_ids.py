"""Waiting for ids that open transactions of others hold, for stores that are `HoldsIds`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import cast

from jobqueue.errors import StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.values import Inserted, NewJob

__all__ = ["held_error", "insert_patiently", "pauses"]

_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
_MOST_NAMED = 3


def pauses() -> Iterator[float]:
    """Return the seconds from one look at a held id to the next, without end."""
    pause = _PAUSE
    while True:
        yield SYSTEM_CLOCK.uniform(pause / 2, pause)
        pause = min(_LONGEST_PAUSE, pause * 2)


def held_error(ids: Sequence[str]) -> StorageUnavailableError:
    """Return the error for a call that has waited for ids in vain."""
    named = ", ".join(repr(id) for id in ids[:_MOST_NAMED])
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    subject = f"id {named} is" if len(ids) == 1 else f"ids {named}{more} are"
    return StorageUnavailableError(
        f"{subject} held by a transaction of somebody else that is still open: try again when it has ended"
    )


async def insert_patiently(
    jobs: Sequence[NewJob],
    insert_free: Callable[[Sequence[NewJob]], Awaitable[list[Inserted | None]]],
    patience: float,
) -> list[Inserted]:
    """Insert jobs, and those whose ids are held again and again for ``patience`` seconds.

    All others exist by then. Raises `StorageUnavailableError` that names the ids.
    """
    answers = await insert_free(jobs)
    give_up_at, pause = SYSTEM_CLOCK.monotonic() + patience, pauses()
    while not all(answers):
        held = [at for at, answer in enumerate(answers) if answer is None]
        if SYSTEM_CLOCK.monotonic() >= give_up_at:
            raise held_error(list(dict.fromkeys(jobs[at].id for at in held)))
        await SYSTEM_CLOCK.sleep(next(pause))
        for at, answer in zip(held, await insert_free([jobs[at] for at in held]), strict=True):
            answers[at] = answer
    return cast("list[Inserted]", answers)
