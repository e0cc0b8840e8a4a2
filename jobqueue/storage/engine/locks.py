"""Named locks with a lease and a term number, as plain data."""

from __future__ import annotations

from jobqueue.storage.values import LockInfo

__all__ = ["Locks"]


class Locks:
    """All locks of one store. A released one is kept, expired: its next term must be larger."""

    def __init__(self) -> None:
        self.all: dict[str, LockInfo] = {}

    def acquire(self, lock: str, owner: str, ttl: int, now: int, above: int) -> int | None:
        """Take or renew a lock; return its term, ``None`` if another holds it.

        A new term is larger than the one before it, and than ``above``.
        """
        held = self.all.get(lock)
        if held is None or held.expires_at <= now:
            term = max(above, held.term if held is not None else 0) + 1
        elif held.owner == owner:
            term = held.term
        else:
            return None
        self.all[lock] = LockInfo(owner, term, now + ttl)
        return term

    def renew(self, lock: str, owner: str, ttl: int, now: int) -> bool:
        """Extend a lock, if ``owner`` holds it."""
        held = self._held(lock, owner, now)
        if held is not None:
            self.all[lock] = held._replace(expires_at=now + ttl)
        return held is not None

    def release(self, lock: str, owner: str, now: int) -> bool:
        """Give a lock up, if ``owner`` holds it."""
        held = self._held(lock, owner, now)
        if held is not None:
            self.all[lock] = held._replace(expires_at=0)
        return held is not None

    def holder(self, lock: str, now: int) -> LockInfo | None:
        """Return the holder of a lock, ``None`` if it is free."""
        held = self.all.get(lock)
        return held if held is not None and held.expires_at > now else None

    def shift(self, delta: int) -> None:
        """Follow a clock that was set by ``delta`` ms."""
        for name, held in self.all.items():
            if held.expires_at:
                self.all[name] = held._replace(expires_at=held.expires_at + delta)

    def end_all(self) -> None:
        """Expire every lock."""
        self.all = {name: held._replace(expires_at=0) for name, held in self.all.items()}

    def _held(self, lock: str, owner: str, now: int) -> LockInfo | None:
        held = self.holder(lock, now)
        return held if held is not None and held.owner == owner else None
