"""The file store without its thread: turns of calls, each turn one group commit.

A turn: read what others have written; if none of the calls can change anything, answer them from memory;
else take the lock, read the rest, run all calls, append one frame, sync once, publish how far the journal
now goes, let the lock go. Only then are the answers given out. After a fault in between, the state in
memory is thrown away: the next turn reads it from the disk again, which alone decides.

Not thread-safe: `jobqueue.storage.file.pump` owns it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from jobqueue.errors import (
    JobQueueError,
    QueueFullError,
    StorageError,
    StorageUnavailableError,
)
from jobqueue.runtime.clock import Clock
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.engine.effects import Effects
from jobqueue.storage.file.calls import Call, ReadCall
from jobqueue.storage.file.commands.registry import Weight
from jobqueue.storage.file.commands.state import State
from jobqueue.storage.file.commands.store import Begin, ClockSet
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import fault
from jobqueue.storage.file.disk.frames import FORMAT
from jobqueue.storage.file.disk.journal import CHUNK, RESERVE
from jobqueue.storage.file.disk.lock import DisplacedError, PublishedPage
from jobqueue.storage.file.timekeeper import OwnClock, Reading
from jobqueue.storage.file.turn import Batch, TurnOutcome, answer_call, give, refused
from jobqueue.storage.file.upkeep.recovery import StoreDirectory
from jobqueue.storage.file.upkeep.replica import Replica, pack_batch
from jobqueue.storage.file.upkeep.rotation import (
    prepare_rotation,
    replace_by_snapshot,
    rotate,
    rotation_due,
    snapshot_is_cheap,
)

__all__ = ["StoreCore"]

log = get_logger("jobqueue.storage.file")
_FRAME_ROOM = 256
"""Largest number of bytes in a frame besides its commands."""


_LOOK_EVERY = 500
"""Milliseconds after which a process that only reads checks the place of the directory again."""


class StoreCore:
    """The file store without its thread."""

    def __init__(self, home: StoreDirectory, clock: Clock, *, fsync: bool, rotate_at: int) -> None:
        self._home = home
        self._clock = OwnClock(clock)
        self._begun = False
        self._look_at = 0
        self._fsync = fsync
        self._rotate_at = rotate_at
        self._replica: Replica | None = None
        self._no_rotation_before = 0
        self._effects: list[Effects] = []
        self._resync = self._notify = False
        self.compaction_due = False
        """Set when a rotation has left something to compact; reset when the compaction starts."""

    def open(self) -> None:
        """Read the state; recover from any end of the last use."""
        self._home.enter()
        page = self._home.page()
        self._replica = self._home.load(page)
        with self._home.lock.held():
            self._synchronise()
        self._effects.clear()
        self.compaction_due = self.replica.base_generation < self.replica.journal.generation

    def close(self) -> None:
        self._leave_snapshot()
        self._drop()
        self._home.leave()

    def _leave_snapshot(self) -> None:
        """Write a snapshot if this is the last process to close the store, and if it takes but a moment."""
        if self._replica is None or not self._home.entered:
            return
        try:
            if not snapshot_is_cheap(self._home, self._replica):
                return
            with self._home.lock.held_if_free() as held:
                if held and self._home.is_alone():
                    self._synchronise()
                    if snapshot_is_cheap(self._home, self.replica):  # what others wrote counts, too
                        replace_by_snapshot(self._home, self.replica)
        except (OSError, StorageError) as error:  # the journal holds all of it
            log.warning("could not write a snapshot at the end: %s", error)

    def abandon(self) -> None:
        """In a forked child: close the lock file, whose lock the child would share."""
        self._home.leave()

    @property
    def directory(self) -> Directory | None:
        """The store's directory; ``None`` while no store is at its path."""
        return self._home.directory if self._home.entered else None

    @property
    def replica(self) -> Replica:
        """The state in memory. Only within a turn."""
        if self._replica is None:
            raise StorageError("the file store is not open: call open() first")
        return self._replica

    # -- a turn -----------------------------------------------------------------------------------

    def turn(self, calls: Sequence[Call]) -> TurnOutcome:
        """Run calls; without any, only read the writes of others. Never raises an `Exception`."""
        self._resync = self._notify = False
        try:
            answers = self._run(calls)
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread that all wait for
            answers = [self._broken_off(error, calls)] * len(calls)
        effects, self._effects = self._effects, []
        return TurnOutcome(answers, effects, self._notify, self._resync)

    def _broken_off(self, error: Exception, calls: Sequence[Call]) -> JobQueueError:
        """Forget the state, which may be wrong now; return the error for the callers."""
        self._drop()
        if self._home.entered and self._home.is_displaced():
            error = DisplacedError.of(self._home.path)
            log.error("%s", error)
            self._home.leave()
            self._resync = True
            with contextlib.suppress(OSError, StorageError):
                if calls:
                    self._look_again()
        if isinstance(error, OSError):
            return _unavailable(error)
        if isinstance(error, JobQueueError):
            return error
        log.error("the file store broke off a turn", exc_info=error)
        return StorageError(f"the file store failed: {error!r}")

    def _run(self, calls: Sequence[Call]) -> list[Any]:
        if not self._home.entered:
            if calls:
                self._look_again()
            raise DisplacedError.of(self._home.path)
        if self._catch_up():
            state = self.replica.state
            clock = self._clock.read()
            now = max(clock.wall, state.now)
            if not self._clock.step(clock, state.clock_offset) and not any(
                not isinstance(call, ReadCall) and call.command.wanted(state, now) for call in calls
            ):
                if clock.wall >= self._look_at:
                    self._home.lock.check_place()
                    self._look_at = clock.wall + _LOOK_EVERY
                self._clock.note(clock, state.clock_offset)
                return [answer_call(call, state, now) for call in calls]
        with self._home.lock.held():
            self._synchronise()
            return self._commit_turn(calls)

    def _look_again(self) -> None:
        """Open the store that is at the path now. The calls of this turn were meant for another one."""
        self._clock.forget()
        if self._home.enter_again():
            log.warning("the store that stands in %s now is used from here on", self._home.path)

    def _catch_up(self) -> bool:
        """Read the writes that other processes have published; return False if that needs the lock."""
        page = self._home.page()
        if page is None:
            return False
        if self._precedes(page):
            return self._follow(page)
        self._reload(page)
        return True

    def _precedes(self, page: PublishedPage) -> bool:
        """Return whether the page goes on from the state in memory, and was not put back with the files."""
        replica = self._replica
        return (
            replica is not None
            and self._home.epoch == page.epoch
            and replica.where <= (page.generation, page.end)
        )

    def _follow(self, page: PublishedPage) -> bool:
        where = (page.generation, page.end)
        if where == self.replica.where:
            return True
        try:
            reached = self.replica.follow(where)
        except FileNotFoundError:
            self._reload(page)
            return True
        self._collect()
        return reached

    def _reload(self, page: PublishedPage) -> None:
        self._drop()
        self._replica = self._home.load(page)
        self._resync = True

    def _synchronise(self) -> None:
        """With the lock: read to the end of the journal, wherever its last writer died."""
        page = self._home.page()
        if page is None:
            self._replica = self._home.recover(self._replica, self._clock.read())
            self._begun, self._resync = False, True
            return
        if not self._precedes(page):
            self._reload(page)
        elif not self._follow(page):
            raise self._home.damaged(self.replica)
        if self._home.adopt(self.replica, page, fsync=self._fsync):
            self._collect()
            self._notify = True

    def _commit_turn(self, calls: Sequence[Call]) -> list[Any]:
        if self.replica.journal.format != FORMAT:
            self._begin_format()
        state, batch, clock = self.replica.state, Batch(), self._clock.read()
        now = self._time(clock, state, batch)
        if not self._begun:
            give(Begin(), state, now, batch)
        answers = [self._perform(call, state, now, batch) for call in calls]
        if batch.commands:
            self._commit(batch, now)
        else:
            self._home.note_time(now)
        self._begun = True
        self._clock.note(clock, state.clock_offset)
        if self.replica.position >= self._no_rotation_before and rotation_due(self.replica, self._rotate_at):
            self._rotate()
        return answers

    def _time(self, clock: Reading, state: State, batch: Batch) -> int:
        delta = self._clock.step(clock, state.clock_offset)
        if not delta:
            return max(clock.wall, state.now, self._home.noted_time)
        log.warning("the clock was set by %+d ms: leases and TTLs move with it", delta)
        self._look_at = 0
        give(ClockSet(delta, state.clock_offset + delta), state, clock.wall, batch)
        return clock.wall

    def _perform(self, call: Call, state: State, now: int, batch: Batch) -> Any:
        if isinstance(call, ReadCall):
            return answer_call(call, state, now)
        if call.withdrawn:
            return StorageUnavailableError("the call was withdrawn before it was carried out")
        command, packed = call.command, call.packed
        end = self.replica.position + batch.size + len(packed) + _FRAME_ROOM
        if not self.replica.journal.make_room(end, spare=RESERVE if command.grows else 0):
            return refused(command, state, now)
        answer = command.apply(state, now)
        weight = command.weigh(answer, state, now)
        if weight:
            batch.add(packed, weight)
        return answer

    def _commit(self, batch: Batch, now: int) -> None:
        replica, synced = self.replica, self._fsync and batch.weight is Weight.SYNCED
        payload = pack_batch(replica.state, now, batch.commands)
        start = replica.position
        try:
            replica.position = replica.journal.append(payload, start, self._home.synced)
        except OSError:
            self._undo(start)
            raise
        replica.state.now = now
        self._home.publish(replica, now, sync=synced)
        effects = replica.state.engine.take_effects()
        if effects is not None:
            self._effects.append(effects)
            self._notify = True

    def _undo(self, start: int) -> None:
        # Nobody has seen it, and if this fails too, the next writer finds it torn and cuts it.
        try:
            self.replica.journal.cut(start)
        except OSError as error:
            log.warning("could not take a failed write back: %s", error)

    def _rotate(self) -> None:
        try:
            journal = prepare_rotation(self._home, self.replica)
        except OSError as error:
            log.warning("could not begin a new journal, the old one goes on: %s", error)
            self._no_rotation_before = self.replica.position + CHUNK
            return
        try:
            rotate(self._home, self.replica, journal)
        except (OSError, StorageError) as error:
            # The calls of this turn are published and stand. The next turn finds out what happened.
            log.warning("could not seal a journal: %s", error)
            self._drop()
            return
        self._no_rotation_before = 0
        self.compaction_due = True

    def rotate_now(self) -> None:
        """Begin a new journal, however short this one is; compact nothing. For tests, between turns."""
        with self._home.lock.held():
            rotate(self._home, self.replica, prepare_rotation(self._home, self.replica))

    def begin_rotation(self) -> None:
        """Make the next journal and seal nothing, as if the process died there. For tests, between turns."""
        with self._home.lock.held():
            prepare_rotation(self._home, self.replica).close()

    def _begin_format(self) -> None:
        """Begin a journal of this version's format, so that older versions refuse what is written to it."""
        rotate(self._home, self.replica, prepare_rotation(self._home, self.replica))
        self.compaction_due = True

    # -- helpers ----------------------------------------------------------------------------------

    def _collect(self) -> None:
        effects = self.replica.state.engine.take_effects()
        if effects is not None:
            self._effects.append(effects)

    def _drop(self) -> None:
        self._begun = False  # what is read next may have come from a backup
        if self._replica is not None:
            self._replica.close()
            self._replica = None


def _unavailable(error: OSError) -> JobQueueError:
    found = fault(error, "the file store could not write or read")
    if isinstance(found, QueueFullError):
        return StorageUnavailableError(str(found))
    return found
