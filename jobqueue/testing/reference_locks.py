"""What the `Reference` keeps beside jobs: locks and documents."""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.storage.values import Change, Document, LockInfo

__all__ = ["LocksAndDocuments"]


class LocksAndDocuments:
    """A part of the `Reference`."""

    def __init__(self) -> None:
        self.locks: dict[str, LockInfo] = {}
        self.documents: dict[tuple[str, str], Document] = {}
        self.version = 0

    # -- documents --------------------------------------------------------------------------------

    def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        return [self.write_document(space, change) for change in changes]

    def write_document(self, space: str, change: Change) -> int | None:
        found = self.documents.get((space, change.name))
        if change.expected not in {None, 0 if found is None else found.version}:
            return None
        self.version += 1
        self.documents.pop((space, change.name), None)
        if change.data is not None:
            self.documents[space, change.name] = Document(change.name, self.version, change.data)
        return self.version

    # -- locks ------------------------------------------------------------------------------------

    def lock_holder(self, lock: str, now: int) -> LockInfo | None:
        held = self.locks.get(lock)
        return held if held is not None and held.expires_at > now else None

    def lock_acquire(self, lock: str, owner: str, ttl: int, now: int) -> int | None:
        held = self.lock_holder(lock, now)
        if held is not None and held.owner != owner:
            return None
        last = self.locks[lock].term if lock in self.locks else 0
        self.locks[lock] = LockInfo(owner, last if held is not None else last + 1, now + ttl)
        return self.locks[lock].term

    def lock_renew(self, lock: str, owner: str, ttl: int, now: int) -> bool:
        held = self.lock_holder(lock, now)
        if held is None or held.owner != owner:
            return False
        self.locks[lock] = held._replace(expires_at=now + ttl)
        return True

    def lock_release(self, lock: str, owner: str, now: int) -> bool:
        return self.lock_renew(lock, owner, 0, now)
