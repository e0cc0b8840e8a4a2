"""Inserting around ids that open transactions of others hold: whoever wants another id need not wait.

An insertion waits for such an id for a moment only. Then the ids are told apart, and it is made without them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final, TypeAlias

from jobqueue.errors import StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.storage.values import Inserted, NewJob

__all__ = ["HELD", "Answer", "Held", "insert_around", "is_lock_timeout"]

_LOCK_NOT_AVAILABLE = "55P03"


class Held(Enum):
    """The answer for a job whose id a transaction of somebody else holds."""

    HELD = 1


HELD: Final = Held.HELD
Answer: TypeAlias = "Inserted | Held | None"
"""``None``: the job was found and has to be read."""


def is_lock_timeout(error: BaseException | None) -> bool:
    """Return whether a lock was not to be had in time: by the error of a driver, or one due to that."""
    return error is not None and (
        getattr(error, "sqlstate", None) == _LOCK_NOT_AVAILABLE or is_lock_timeout(error.__cause__)
    )


async def insert_around(
    jobs: Sequence[NewJob],
    insert: Callable[[Sequence[NewJob]], Awaitable[Sequence[Answer] | None]],
    held_among: Callable[[Sequence[str]], Awaitable[Sequence[str]]],
    patience: float,
    where: str,
) -> list[Answer]:
    """Insert jobs, all but those whose ids are held; these are answered by `HELD`.

    ``insert`` returns ``None`` if it did nothing, because it could not have a lock in time. Raises
    `StorageUnavailableError` if that happens for ``patience`` seconds, and yet no id is held.
    """
    held: set[str] = set()
    give_up_at = SYSTEM_CLOCK.monotonic() + patience
    while True:
        free = [job for job in jobs if job.id not in held] if held else jobs
        answers = await insert(free) if free else ()
        if answers is not None:
            break
        found = await held_among([job.id for job in free])
        held.update(found)
        if not found and SYSTEM_CLOCK.monotonic() > give_up_at:
            raise StorageUnavailableError(
                f"{where}: an open transaction of somebody else has locked rows of jobqueue's tables"
            )
    if not held:
        return list(answers)
    of_free = iter(answers)
    return [HELD if job.id in held else next(of_free) for job in jobs]
