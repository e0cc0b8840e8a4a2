"""`queue.limits`: how many jobs of a queue and its groups may run and start, on all workers together.

They are kept in the store, beside the pause, with who has set them: what a program declares
(``Queue(limits=)``) replaces what a program declared before, and never what an operator has set.
"""

from __future__ import annotations

from collections.abc import Callable

from jobqueue.errors import InvalidArgumentError
from jobqueue.model.limits import Limit, Limits, Rate
from jobqueue.runtime.loggers import get_logger
from jobqueue.stats import limits_of
from jobqueue.storage.capabilities import Limiting, require
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import Rules

__all__ = ["QueueLimits", "check_limits", "give_back", "set_limits"]

log = get_logger("jobqueue.limits")
_FEATURE = "limits"


class QueueLimits:
    """The limits of one queue."""

    def __init__(self, name: str, store: Callable[[], Storage], declared: Limits | None) -> None:
        self._name = name
        self._store = store
        self._declared = declared

    async def set(
        self,
        *,
        running: int | None = None,
        rate: Rate | None = None,
        group_running: int | None = None,
        group_rate: Rate | None = None,
    ) -> None:
        """Replace all limits, as an operator: what programs declare leaves them alone until `reset`.

        ``None``: no limit. Holds from the next claim of any worker on; running jobs go on. Survives restarts.

        Raises `InvalidArgumentError`, `UnsupportedError` if the store has no limits, `StorageError`.
        """
        limits = Limits(running=running, rate=rate, group_running=group_running, group_rate=group_rate)
        await set_limits(self._store(), self._name, limits)

    async def get(self) -> Limits:
        """Return the limits that hold. Raises `UnsupportedError` and `StorageError`."""
        return limits_of(
            (await require(self._store(), Limiting, _FEATURE).get_rules(self._name, counted=False)).rules
        )

    async def reset(self) -> Limits:
        """Undo `set`: the limits are those that this queue was made with, if any. Return them.

        Raises `UnsupportedError` and `StorageError`.
        """
        declared = self._declared or Limits()
        await give_back(self._store(), self._name, declared)
        return declared

    async def declare(self, storage: Storage) -> None:
        """Store what this queue was made with, unless an operator has set something else."""
        declared = self._declared
        if declared is None:
            return
        store = require(storage, Limiting, _FEATURE)
        while True:
            rules = (await store.get_rules(self._name, counted=False)).rules
            standing = limits_of(rules)
            if standing == declared:
                return
            if rules.operator:
                log.warning(
                    "queue %r: the limits that an operator has set hold, and not those of this program; "
                    "`jobqueue queue limits %s --reset` gives them back to the program",
                    self._name,
                    self._name,
                )
                return
            if await store.set_rules(self._name, _with(rules, declared, operator=False), expected=rules):
                if standing != Limits():
                    log.info("queue %r: the limits are now %s, before %s", self._name, declared, standing)
                return


def check_limits(value: object) -> Limits | None:
    """Return the limits that a queue is made with."""
    if value is not None and not isinstance(value, Limits):
        raise InvalidArgumentError("limits", f"must be Limits or None, not {type(value).__name__}")
    return value


async def set_limits(store: Storage, queue: str, limits: Limits) -> None:
    """Replace the limits of a queue by those of an operator."""
    await _change(store, queue, lambda rules: _with(rules, limits, operator=True))


async def give_back(store: Storage, queue: str, limits: Limits | None) -> Limits:
    """Let programs set the limits again; ``None``: what holds stays until one does. Return what holds."""
    rules = await _change(store, queue, lambda old: _with(old, limits or limits_of(old), operator=False))
    return limits_of(rules)


async def _change(store: Storage, queue: str, change: Callable[[Rules], Rules]) -> Rules:
    keeper = require(store, Limiting, _FEATURE)
    while True:
        rules = (await keeper.get_rules(queue, counted=False)).rules
        changed = change(rules)
        if await keeper.set_rules(queue, changed, expected=rules):
            return changed


def _with(rules: Rules, limits: Limits, *, operator: bool) -> Rules:
    return rules._replace(
        queue=Limit(limits.running, limits.rate),
        group=Limit(limits.group_running, limits.group_rate),
        operator=operator,
    )
