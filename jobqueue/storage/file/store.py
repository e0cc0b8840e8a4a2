"""`FileStorage`: hands the calls of the contract to the pump and awaits the answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from jobqueue.errors import InvalidArgumentError, StorageError
from jobqueue.model.checks import check_bool, check_callable, check_count
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import JobState
from jobqueue.runtime.clock import SYSTEM_CLOCK, Clock
from jobqueue.storage import arguments
from jobqueue.storage.contract import Sink
from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.disk.lock import LOCK_NAME
from jobqueue.storage.file.open_store import OpenStore
from jobqueue.storage.file.shared import SharedPump, StoreOptions
from jobqueue.storage.file.upkeep.progress import Progress
from jobqueue.storage.file.upkeep.rotation import ROTATE_AT
from jobqueue.storage.findings import Finding
from jobqueue.storage.opening import LoopBoundStorage
from jobqueue.storage.values import (
    AdmissionInfo,
    CancelStatus,
    Change,
    Counts,
    Document,
    DocumentPage,
    Exchanged,
    Inserted,
    LeaseStatus,
    LockInfo,
    NewJob,
    Page,
    Record,
    Renewal,
    Rules,
    Swept,
    UpdateTtlStatus,
    Usage,
    WorkerInfo,
)

__all__ = ["FileStorage"]


class FileStorage(LoopBoundStorage[OpenStore]):
    """Keeps jobs in a directory of this host, for all of its processes.

    ``path``: the directory; made if missing, with its parents, for the owner only.
    ``fsync=False``: faster, and safe when processes die, but a power cut may lose the last seconds.
    ``clock``: for tests. ``force``: use a network or user-space filesystem all the same.
    ``progress``: called with (bytes read, bytes to read) while the state is loaded, in another thread.

    `open` raises `StorageError` if the directory must not be used (network filesystem, damage, another
    version, permissions) and says what to do. Calls raise `QueueFullError` when the disk has no room for
    new jobs, and `StorageUnavailableError` when the disk fails.
    """

    _kind = "file"
    batched = True
    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        fsync: bool = True,  # noqa: FBT001, FBT002 - the public signature
        *,
        clock: Clock = SYSTEM_CLOCK,
        force: bool = False,
        progress: Progress | None = None,
        files: Files | None = None,
        rotate_at: int = ROTATE_AT,
    ) -> None:
        self.clock = clock
        self.path = _absolute(path)
        check_bool("fsync", fsync)
        check_bool("force", force)
        if progress is not None:
            check_callable("progress", progress)
        check_count("rotate_at", rotate_at)
        self._shared = SharedPump(
            StoreOptions(self.path, clock, fsync, force, files or Files(), rotate_at), progress
        )
        super().__init__()

    def __repr__(self) -> str:
        return f"FileStorage({str(self.path)!r})"

    @property
    def exists(self) -> bool:
        """Whether the directory holds a store; `open` makes one where it does not."""
        try:
            return (self.path / LOCK_NAME).is_file()
        except OSError:  # it cannot be seen: `open` says why
            return True

    def clone(self) -> Self:
        twin = super().clone()
        twin._shared = self._shared.here()  # noqa: SLF001 - of the same class
        return twin

    def _make_session(self) -> OpenStore:
        return OpenStore(self._shared)

    async def check(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check the files, and with ``repair`` save their sound parts: see `upkeep.fsck`.

        Needs a store that is not open here. Other processes wait meanwhile, and begin anew after a
        repair. Raises `StorageError` if the files cannot be read.
        """
        if self._opened:
            raise StorageError("close the file store before it is checked")
        return await asyncio.to_thread(self._shared.check, repair=repair)

    async def diagnose(self) -> Sequence[Finding]:
        """Judge the directory, its files and its disk; see `jobqueue.storage.file.upkeep.doctor`."""
        self._open_session()
        return await asyncio.to_thread(self._shared.diagnose)

    def report_loading(self, progress: Progress) -> None:
        """Call ``progress`` from the next opening or check on, if the store was made without one."""
        self._shared.progress = self._shared.progress or progress

    # -- calls ------------------------------------------------------------------------------------

    async def insert(
        self,
        queue: str,
        jobs: Sequence[NewJob],
        *,
        reply_to: str | None = None,
        max_length: int | None = None,
    ) -> list[Inserted]:
        arguments.check_insert(queue, jobs, reply_to, max_length)
        return await self._open_session().write(commands.Insert(queue, jobs, reply_to, max_length))

    async def get(
        self,
        queue: str,
        ids: Sequence[str],
        *,
        reply_to: str | None = None,
        payload: bool = False,
        letters: bool = False,
    ) -> list[Record | None]:
        arguments.check_get(queue, ids, reply_to, payload=payload, letters=letters)
        if reply_to is not None:
            return await self._open_session().write(
                commands.GetAndWait(queue, ids, reply_to, payload, letters)
            )
        return await self._open_session().read(
            lambda engine, now: engine.get(queue, ids, now, payload=payload, letters=letters)
        )

    async def exchange(
        self, queue: str, worker: str, settlements: Sequence[Settlement], limit: int, lease: int
    ) -> Exchanged:
        arguments.check_exchange(queue, worker, settlements, limit, lease)
        return await self._open_session().exchange(
            commands.Exchange(queue, worker, settlements, limit, lease)
        )

    async def extend(
        self, queue: str, worker: str, leases: Sequence[Renewal], lease: int
    ) -> list[LeaseStatus]:
        arguments.check_extend(queue, worker, leases, lease)
        return await self._open_session().write(commands.Extend(queue, worker, leases, lease))

    async def sweep(self, queue: str, limit: int) -> list[Swept]:
        arguments.check_limit(queue, limit)
        return await self._open_session().write(commands.Sweep(queue, limit))

    async def cancel(self, queue: str, ids: Sequence[str], *, running: bool = False) -> list[CancelStatus]:
        arguments.check_cancel(queue, ids, running)
        return await self._open_session().write(commands.Cancel(queue, ids, running))

    async def set_ttl(self, queue: str, ttls: Sequence[tuple[str, int]]) -> list[UpdateTtlStatus]:
        arguments.check_keep(queue, ttls)
        return await self._open_session().write(commands.SetTtl(queue, ttls))

    async def purge(self, queue: str, limit: int) -> int:
        arguments.check_limit(queue, limit)
        return await self._open_session().write(commands.Purge(queue, limit))

    async def scan(self, queue: str, state: JobState, limit: int, cursor: str | None = None) -> Page:
        arguments.check_scan(queue, state, limit, cursor)
        return await self._open_session().read(
            lambda engine, now: engine.scan(queue, state, limit, now, cursor)
        )

    async def counts(self, queue: str) -> Counts:
        arguments.check_queue(queue)
        return await self._open_session().read(lambda engine, now: engine.counts(queue, now))

    async def to_sweep(self, queues: Sequence[str]) -> list[str]:
        """Return the queues in which a sweep would find something; see `jobqueue.storage.capabilities`."""
        arguments.check_queues(queues)
        return await self._open_session().read(lambda engine, now: engine.to_sweep(queues, now))

    async def ended(self, queue: str) -> int:
        """Return how many jobs have ended; see `jobqueue.storage.capabilities`."""
        arguments.check_queue(queue)
        return await self._open_session().read(lambda engine, _now: engine.ended(queue))

    async def revive(
        self, queue: str, ids: Sequence[str], delay: int = 0, payload: bytes | None = None
    ) -> list[bool]:
        """Run failed jobs again; see `jobqueue.storage.capabilities.Revival`."""
        arguments.check_revive(queue, ids, delay, payload)
        return await self._open_session().write(commands.Revive(queue, ids, delay, payload))

    async def forget(self, queue: str, ids: Sequence[str]) -> list[bool]:
        """Delete records before their time; see `jobqueue.storage.capabilities.Revival`."""
        arguments.check_forget(queue, ids)
        return await self._open_session().write(commands.Forget(queue, ids))

    async def set_rules(self, queue: str, rules: Rules | None, *, expected: Rules | None = None) -> bool:
        """Replace the rules of a queue; see `jobqueue.storage.capabilities.Admission`."""
        arguments.check_set_rules(queue, rules, expected)
        return await self._open_session().write(commands.SetRules(queue, rules, expected))

    async def get_rules(self, queue: str, *, counted: bool = True) -> AdmissionInfo:
        """Return the rules of a queue; see `jobqueue.storage.capabilities.Admission`."""
        arguments.check_queue(queue)
        del counted  # it costs nothing here
        return await self._open_session().read(lambda engine, now: engine.get_rules(queue, now))

    async def usage(self, queue: str, groups: Sequence[str]) -> list[Usage]:
        """Return where groups stand; see `jobqueue.storage.capabilities.Limiting`."""
        arguments.check_usage(queue, groups)
        names = tuple(groups)
        return await self._open_session().read(lambda engine, now: engine.usage(queue, names, now))

    async def read_documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read documents; see `jobqueue.storage.capabilities.Documents`."""
        arguments.check_read_documents(space, names)
        return await self._open_session().read(lambda engine, _now: engine.documents.read(space, names))

    async def write_documents(self, space: str, changes: Sequence[Change]) -> list[int | None]:
        """Change documents; see `jobqueue.storage.capabilities.Documents`."""
        arguments.check_write_documents(space, changes)
        return await self._open_session().write(commands.WriteDocuments(space, changes))

    async def list_documents(self, space: str, limit: int, cursor: str | None = None) -> DocumentPage:
        """List documents; see `jobqueue.storage.capabilities.Documents`."""
        arguments.check_list_documents(space, limit, cursor)
        return await self._open_session().read(
            lambda engine, _now: engine.documents.list(space, limit, cursor)
        )

    async def queues(self) -> list[str]:
        return await self._open_session().read(lambda engine, _: engine.queues())

    async def workers(self, queue: str) -> list[WorkerInfo]:
        arguments.check_queue(queue)
        return await self._open_session().read(lambda engine, now: engine.workers(queue, now))

    async def wait_for_work(
        self,
        queue: str,
        worker: str,
        timeout: float,
    ) -> bool:
        arguments.check_wait_for_work(queue, worker, timeout)
        return await self._open_session().wait(
            ("work", queue), timeout, lambda engine, now: engine.work_in(queue, now)
        )

    async def subscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        self._open_session().wake_ups.subscribe(queue, address, sink)

    async def unsubscribe(self, queue: str, address: str, sink: Sink) -> None:
        arguments.check_sink(queue, address, sink)
        self._open_session().wake_ups.unsubscribe(queue, address, sink)

    async def lock_acquire(self, lock: str, owner: str, ttl: int) -> int | None:
        arguments.check_acquire(lock, owner, ttl)
        return await self._open_session().write(commands.Acquire(lock, owner, ttl))

    async def lock_renew(self, lock: str, owner: str, ttl: int) -> bool:
        arguments.check_acquire(lock, owner, ttl)
        return await self._open_session().write(commands.Renew(lock, owner, ttl))

    async def lock_release(self, lock: str, owner: str) -> bool:
        arguments.check_owner(lock, owner)
        return await self._open_session().write(commands.Release(lock, owner))

    async def lock_holder(self, lock: str) -> LockInfo | None:
        arguments.check_lock(lock)
        return await self._open_session().read(lambda engine, now: engine.lock_holder(lock, now))

    async def wait_for_lock(self, lock: str, timeout: float) -> bool:
        arguments.check_wait_for_lock(lock, timeout)
        return await self._open_session().wait(
            ("lock", lock), timeout, lambda engine, now: 0 if engine.lock_holder(lock, now) is None else None
        )


def _absolute(path: str | os.PathLike[str]) -> Path:
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise InvalidArgumentError("path", f"must be a path, not {type(path).__name__}") from None
    if not name or "\0" in name:
        raise InvalidArgumentError("path", "must be the path of a directory")
    try:
        return Path(name).absolute()
    except FileNotFoundError as error:
        raise InvalidArgumentError("path", "is relative, and the working directory was removed") from error
