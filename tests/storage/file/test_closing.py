"""The last close leaves a snapshot, if that takes but a moment."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from jobqueue.storage.file.commands import registry as commands
from jobqueue.storage.file.core import StoreCore
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.frames import HEADER_SIZE
from jobqueue.storage.file.disk.lock import COMPACT_LOCK
from jobqueue.storage.file.upkeep import fsck, rotation
from jobqueue.storage.file.upkeep.replica import Generations
from jobqueue.storage.values import NewJob
from jobqueue.testing import FakeClock
from tests.storage.file.layers import Counting, Failing, Killed, Killing, Quiet
from tests.storage.file.program import Ledger, Program, make_core, one, verify


def filled(directory: Path, files: Quiet | Counting | None = None) -> tuple[Program, Ledger]:
    """Return an open core with some jobs in its first journal."""
    ledger = Ledger()
    program = Program(directory, files or Quiet(), FakeClock(), ledger)
    program.core = make_core(directory, files or Quiet(), program.clock)
    program.core.open()
    program.insert("a", "b", "c")
    program.insert("later", delay=50_000)
    program.work(1)
    program.acquire()
    return program, ledger


def generations(directory: Path) -> tuple[list[int], list[int]]:
    found = Generations([path.name for path in directory.iterdir()])
    return found.snapshots, found.journals


def reopened(directory: Path) -> StoreCore:
    core = make_core(directory, Quiet(), FakeClock())
    core.open()
    return core


def test_the_last_close_leaves_a_snapshot_and_an_empty_journal(tmp_path: Path) -> None:
    program, ledger = filled(tmp_path / "s")
    program.core.close()
    assert generations(tmp_path / "s") == ([2], [2])
    core = reopened(tmp_path / "s")
    assert core.replica.where == (2, HEADER_SIZE)
    core.close()
    assert generations(tmp_path / "s") == ([2], [2])  # nothing was written
    verify(tmp_path / "s", ledger, program.clock).close()
    assert fsck.check(Quiet(), tmp_path / "s") == []


def test_one_that_is_not_the_last_leaves_the_journal(tmp_path: Path) -> None:
    program, _ = filled(tmp_path / "s")
    other = reopened(tmp_path / "s")
    program.core.close()
    assert generations(tmp_path / "s") == ([1], [1])
    other.close()
    assert generations(tmp_path / "s") == ([2], [2])


def test_a_large_store_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, ledger = filled(tmp_path / "s")
    monkeypatch.setattr(rotation, "CLOSING_SNAPSHOT", program.core.replica.position)
    program.core.close()
    assert generations(tmp_path / "s") == ([1], [1])
    verify(tmp_path / "s", ledger, program.clock).close()


def test_little_news_are_left_in_the_journal(tmp_path: Path) -> None:
    program, ledger = filled(tmp_path / "s")
    program.insert(*(f"more-{number}" for number in range(100)))
    program.core.close()
    for number in range(3):
        program.core = make_core(tmp_path / "s", Quiet(), program.clock)
        program.core.open()
        program.insert(f"new-{number}")
        program.core.close()
    assert generations(tmp_path / "s") == ([2], [2])
    verify(tmp_path / "s", ledger, program.clock).close()


def test_nobody_waits_for_a_compaction_or_for_who_has_the_lock(tmp_path: Path) -> None:
    for name in (COMPACT_LOCK, "lock"):
        program, ledger = filled(tmp_path / name)
        with Directory.open(Quiet(), tmp_path / name) as directory:
            fd = directory.open_file(name)
            assert directory.files.try_lock(fd)
            program.core.close()
            directory.files.close(fd)
        assert generations(tmp_path / name) == ([1], [1])
        verify(tmp_path / name, ledger, program.clock).close()


@pytest.mark.parametrize("how", ["before", "after", "half"])
def test_death_at_every_call_of_it_loses_nothing(tmp_path: Path, how: str) -> None:
    counting = Counting()
    program, _ = filled(tmp_path / "count", counting)
    first = counting.count
    program.core.close()
    assert counting.count - first > 8
    for at in range(first, counting.count):
        files = Killing(at, how)
        program, ledger = filled(tmp_path / f"{how}-{at}", files)
        with pytest.raises(Killed):
            program.core.close()
        files.let_go()
        verify(tmp_path / f"{how}-{at}", ledger, program.clock).close()
        assert fsck.check(Quiet(), tmp_path / f"{how}-{at}") == []


def test_a_disk_that_fails_is_no_error_of_the_close(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    failed = 0
    for at in range(12):
        files = Failing(28)
        program, ledger = filled(tmp_path / str(at), files)
        files.fail_next(after=at)
        program.core.close()
        failed += files.failed
        verify(tmp_path / str(at), ledger, program.clock).close()
    assert failed > 5
    assert "could not write a snapshot at the end" in caplog.text


class Vanishing(Quiet):
    """Removes a file, as a compaction of another process does, when it is about to be looked at."""

    gone = 0

    def stat(self, directory: int, name: str) -> os.stat_result:
        if name.endswith(".tmp"):
            os.unlink(name, dir_fd=directory)
            self.gone += 1
        return super().stat(directory, name)


def test_a_file_that_a_compaction_removes_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Vanishing()
    program, ledger = filled(tmp_path / "s", files)
    (tmp_path / "s" / "snapshot-0000000008.tmp").touch(0o600)
    program.core.close()
    assert files.gone == 1
    assert caplog.text == ""
    verify(tmp_path / "s", ledger, program.clock).close()


def test_what_a_snapshot_replaces_is_weighed_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "CLOSING_SNAPSHOT", 100_000)
    program, _ = filled(tmp_path / "s")
    jobs = [NewJob(f"large {n}", b"x" * 50_000) for n in range(4)]
    one(program.core, commands.Insert("q", jobs, None, None))
    program.core.rotate_now()
    program.insert("small")
    before = generations(tmp_path / "s")
    program.core.close()
    assert generations(tmp_path / "s") == before
