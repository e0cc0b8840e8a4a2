"""The directory of a store: reading its state, and bringing it in order after any end.

All of this is done with the lock held, but for `StoreDirectory.page` and `StoreDirectory.load`.
"""

from __future__ import annotations

from pathlib import Path

from jobqueue.errors import StorageError, StorageUnavailableError
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.file.commands.registry import Restart, Seal, pack_command
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files, fault
from jobqueue.storage.file.disk.filesystem import check_access, check_filesystem, probe
from jobqueue.storage.file.disk.frames import HEADER_SIZE
from jobqueue.storage.file.disk.journal import Journal, Tail, journal_name
from jobqueue.storage.file.disk.lock import COMPACT_LOCK, DisplacedError, LockFile, PublishedPage
from jobqueue.storage.file.disk.users import Users
from jobqueue.storage.file.timekeeper import Reading
from jobqueue.storage.file.upkeep.progress import Progress
from jobqueue.storage.file.upkeep.replica import Generations, Replica, pack_batch
from jobqueue.storage.file.upkeep.snapshot import write_snapshot

__all__ = ["FENCE_GAP", "StoreDirectory", "seal"]

log = get_logger("jobqueue.storage.file")
FENCE_GAP = 1 << 24
"""Fences to skip when claims may have been lost: more than could have been given without one sync, and
not so many that fences get ahead of the clock that they are counted from (see `Begin`)."""
_NO_EPOCH = -1
_NO_PAGE = PublishedPage("", 0, 0, 0, 0, 0, suspect=False)


class StoreDirectory:
    """The store's directory as this process has it open."""

    def __init__(
        self, files: Files, path: Path, progress: Progress | None = None, *, force: bool = False
    ) -> None:
        self._files = files
        self.path = path
        self._progress = progress
        self._force = force
        self._boot = ""
        self._page = _NO_PAGE
        self._directory: Directory | None = None
        self._lock: LockFile | None = None
        self._users: Users | None = None
        self.epoch = _NO_EPOCH
        """The epoch of the loaded state."""

    @property
    def directory(self) -> Directory:
        if self._directory is None:
            raise StorageError("the file store is not open: call open() first")
        return self._directory

    @property
    def lock(self) -> LockFile:
        if self._lock is None:
            raise StorageError("the file store is not open: call open() first")
        return self._lock

    @property
    def entered(self) -> bool:
        """Whether the directory is open."""
        return self._lock is not None

    def enter(self) -> None:
        """Open the directory; make it, and an empty store in it, unless they are there."""
        self._files.make_dir(self.path)
        try:
            self._open()
            probe(self.directory)
            self._lock = LockFile(self.directory)
            with self.lock.held():
                self._join()
                if not self._has_store():
                    self._make_store()
        except BaseException:
            self.leave()
            raise

    def enter_again(self) -> bool:
        """Open the store that is at the path since the directory was displaced.

        Return False if there is none: only an opening makes one.
        """
        found = False
        try:
            self._open()
            self._lock = LockFile(self.directory, create=False)
            with self.lock.held():
                self._join()
                found = self._has_store()
        except (FileNotFoundError, NotADirectoryError, DisplacedError):
            pass
        finally:
            if not found:
                self.leave()
        return found

    def _open(self) -> None:
        self._boot = self._files.boot_id()
        self._directory = Directory.open(self._files, self.path)
        check_filesystem(self.path, force=self._force)
        check_access(self._directory)

    def _join(self) -> None:
        """Join the processes that have the store open. Refuse if they run under another kernel."""
        self._users = Users(self.directory)
        page = self.lock.read()
        if not self._users.alone and page is not None and page.boot != self._boot:
            raise StorageError(
                f"{self.path} is in use by processes of another boot ({page.boot or 'unknown'}, here "
                f"{self._boot or 'unknown'}), as in another virtual machine: a file store serves the "
                "processes of one kernel; use another directory, or a store with a server"
            )

    def is_alone(self) -> bool:
        """Return whether no other process has the store open; only with the lock."""
        return self._users is not None and self._users.are_alone()

    def is_displaced(self) -> bool:
        """Return whether the path no longer leads to the open directory."""
        try:
            self.lock.check_place()
        except DisplacedError:
            return True
        except OSError:  # it cannot be told: what failed tells more
            return False
        return False

    def leave(self) -> None:
        """Close the directory. Closing again does nothing."""
        self.epoch, self._page = _NO_EPOCH, _NO_PAGE
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
        users, self._users = self._users, None
        if users is not None:
            users.leave()
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.close()

    def _has_store(self) -> bool:
        names = Generations(self.directory.names())
        if names.base is not None:
            return True
        if any(generation > 1 for generation in names.journals) or self._has_frames(names):
            raise StorageError(
                f"{self.path} has journals but no snapshot: files were removed; run `jobqueue fsck --repair`"
            )
        return False

    def _make_store(self) -> None:
        self._files.close(self.directory.open_or_create(COMPACT_LOCK))  # there for whoever copies the store
        Journal.create(self.directory, 1).close()
        write_snapshot(self.directory, 1, State())

    def _has_frames(self, names: Generations) -> bool:
        if not names.journals:
            return False
        fd = self.directory.open_file(journal_name(1), write=False)
        try:
            return bool(self._files.read(fd, 1 << 16, HEADER_SIZE).strip(b"\0"))
        finally:
            self._files.close(fd)

    # -- the page ---------------------------------------------------------------------------------

    def page(self) -> PublishedPage | None:
        """Return the published page; ``None`` if it cannot be trusted, and `recover` is needed."""
        page = self.lock.read()
        if page is None or page.boot != self._boot or page.suspect:
            return None
        self._page = page
        return page

    @property
    def synced(self) -> int:
        """Offset up to which the journal is on the disk, according to the page."""
        return self._page.synced

    @property
    def noted_time(self) -> int:
        return self._page.now

    def note_time(self, now: int) -> None:
        """Publish the time of a call that wrote nothing: no later call of any process may be earlier."""
        if now > self._page.now:
            self._page = self._page._replace(now=now)
            self.lock.publish(self._page)

    def publish(self, replica: Replica, now: int, *, sync: bool) -> None:
        """Make the appended frames part of the journal, after a sync if requested."""
        if sync:
            self.sync(replica)
        page = self._page
        synced = replica.position if sync else page.synced
        self._page = page._replace(end=replica.position, synced=synced, now=now)
        self.lock.publish(self._page)

    def publish_rotation(self, replica: Replica) -> None:
        """Publish the journal to which the replica has switched as the one being written."""
        self._page = self._page._replace(
            generation=replica.journal.generation, end=replica.position, synced=HEADER_SIZE
        )
        self.lock.publish(self._page)

    def sync(self, replica: Replica) -> None:
        """Sync the journal. If that fails, mark its end as suspect for all processes."""
        try:
            replica.journal.sync()
        except OSError as error:
            # A second sync would succeed without writing: the system has forgotten what it could not
            # write. `recover` opens the file anew, reads what the disk has, and writes it once more.
            self.lock.publish(self._page._replace(suspect=True))
            raise StorageUnavailableError(
                f"{fault(error, 'the journal could not be synced')}; whether the calls that waited for "
                "it are stored is not known until the disk answers again"
            ) from error

    # -- loading ----------------------------------------------------------------------------------

    def load(self, page: PublishedPage | None) -> Replica:
        """Read the state, up to the published end if that is known."""
        until = None if page is None else (page.generation, page.end)
        replica = Replica.load(self.directory, until, progress=self._progress)
        if until is not None and replica.where < until:
            replica.close()
            raise self.damaged(replica)
        self.epoch = _NO_EPOCH if page is None else page.epoch
        return replica

    def damaged(self, replica: Replica) -> StorageError:
        return StorageError(
            f"{replica.journal.path} is damaged at {replica.position}, where it had been safe on the disk: "
            "stop all processes that use the store, look at the disk, then run `jobqueue fsck --repair`"
        )

    def adopt(self, replica: Replica, page: PublishedPage, *, fsync: bool) -> bool:
        """Adopt frames that a writer appended but died before publishing; return whether there were any.

        Whole frames become part of the journal, since the writer may have answered for them; the rest is cut.
        """
        if replica.journal.is_clean(replica.position):
            return False
        if fsync:
            self.sync(replica)  # before it is followed: a seal must be safe before the next journal is used
        replica.follow(None)
        self._cut_tail(replica, page.synced if page.generation == replica.journal.generation else 0)
        same = page.generation == replica.journal.generation
        synced = replica.position if fsync else (page.synced if same else HEADER_SIZE)
        self._page = page._replace(generation=replica.journal.generation, end=replica.position, synced=synced)
        self.lock.publish(self._page)
        return True

    def recover(self, replica: Replica | None, clock: Reading) -> Replica:
        """Start over, as the first process on this boot or after a failed sync: the page does not count."""
        found = self.lock.read()
        rebooted = found is None or found.boot != self._boot
        if replica is not None and not (rebooted and self.epoch == _NO_EPOCH):
            replica.close()  # what it was built on may be gone
            replica = None
        if replica is None:
            replica = self._load_from_disk() if not rebooted else self.load(None)
        else:
            replica.follow(None)
        known = found or _NO_PAGE
        synced = known.synced if known.generation == replica.journal.generation else HEADER_SIZE
        try:
            self._cut_tail(replica, synced)
            self._check_next(replica)
            if not rebooted:
                replica.journal.rewrite(min(synced, replica.position), replica.position)
            self._restart(replica, clock, known.epoch + 1, rebooted=rebooted)
        except BaseException:
            replica.close()
            raise
        return replica

    def _load_from_disk(self) -> Replica:
        """Read the journals from the disk, not from the system's cache."""
        for generation in Generations(self.directory.names()).journals:
            journal = Journal.open(self.directory, generation)
            journal.forget_cache()
            journal.close()
        return self.load(None)

    def _restart(self, replica: Replica, clock: Reading, epoch: int, *, rebooted: bool) -> None:
        state = replica.state
        now = max(clock.wall, state.now)
        offset = now - (clock.wall - clock.offset) if rebooted else state.clock_offset
        command = Restart(FENCE_GAP, offset, rebooted)
        command.apply(state, now)
        state.now = now
        payload = pack_batch(state, now, [pack_command(command)])
        if not replica.journal.make_room(replica.position + len(payload) + 256, spare=0):
            raise StorageUnavailableError("the disk is full: free some space to open the store")
        end = replica.journal.append(payload, replica.position, HEADER_SIZE)
        replica.position = end
        generation = replica.journal.generation
        self._page = PublishedPage(self._boot, epoch, generation, end, HEADER_SIZE, now, suspect=False)
        self.sync(replica)
        self._page = self._page._replace(synced=end)
        self.lock.publish(self._page)
        self.epoch = epoch

    def _cut_tail(self, replica: Replica, synced: int) -> None:
        tail = replica.journal.tail(replica.position, synced)
        if tail is Tail.DAMAGED:
            raise self.damaged(replica)
        if tail is Tail.TORN:
            log.warning(
                "%s had an unfinished write at %d: it was cut; nobody had been told that it was stored",
                replica.journal.path,
                replica.position,
            )
            replica.journal.cut(replica.position)

    def _check_next(self, replica: Replica) -> None:
        """Check that an unsealed journal is the last."""
        try:
            journal = Journal.open(self.directory, replica.journal.generation + 1)
        except FileNotFoundError:
            return
        except StorageError:  # the beginning of a rotation: not even its header was finished
            return
        try:
            if next(journal.frames(HEADER_SIZE), None) is not None:
                raise StorageError(
                    f"{journal.path} goes on where {replica.journal.path} does not end: "
                    "run `jobqueue fsck --repair`"
                )
        finally:
            journal.close()


def seal(home: StoreDirectory, replica: Replica) -> None:
    """End the journal for good; with the lock, and with the next one made."""
    payload = pack_batch(replica.state, replica.state.now, [pack_command(Seal())])
    replica.journal.make_room(replica.position + len(payload) + 256, spare=0)
    replica.position = replica.journal.append(payload, replica.position, home.synced)
    home.sync(replica)
