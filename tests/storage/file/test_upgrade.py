"""A store that an earlier release wrote comes to the same state, and goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobqueue.errors import StorageError
from jobqueue.model.outcomes import Settlement
from jobqueue.model.states import Action
from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.disk import frames
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.upkeep import fsck
from jobqueue.storage.file.upkeep.replica import Generations, Replica
from jobqueue.storage.values import Change, InsertStatus, NewJob
from tests.storage.file.layers import Quiet

DATA = Path(__file__).parent / "data"
IDS = [f"{name}{number}" for name in "abcdsx" for number in range(7)]
"""See tests/storage/file/data/write.py."""


@pytest.fixture(params=sorted(path.name for path in DATA.iterdir() if path.is_dir() and path.name[0] != "_"))
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    copied = tmp_path / "release"
    shutil.copytree(DATA / request.param, copied)
    (copied / "store").chmod(0o700)
    return copied


def test_it_is_read_as_it_was_written(release: Path) -> None:
    expected = json.loads((release / "expected.json").read_text())
    with Directory.open(Quiet(), release / "store") as directory:
        replica = Replica.load(directory, None)
        replica.close()
    state = replica.state
    assert list(state.engine.counters) == expected["counters"]
    records = state.engine.get("q", IDS, state.now, payload=True)
    known = [repr(record).partition(", headers=")[0] + ")" if record else "None" for record in records]
    assert known == expected["jobs"]
    assert fsck.check(Quiet(), release / "store") == []


async def test_it_goes_on(release: Path) -> None:
    store = FileStorage(release / "store", files=Quiet())
    await store.open()
    waiting = await store.counts("q")
    await store.sweep("q", 100)
    claimed = (await store.exchange("q", "w", [], 100, 60_000)).jobs
    assert len(claimed) >= waiting.queued + waiting.processing
    done = [Settlement(job.id, job.fence, Action.COMPLETE, b"", 60_000) for job in claimed]
    await store.exchange("q", "w", done, 0, 60_000)
    (new,) = await store.insert("q", [NewJob("new", b"")])
    assert new.status is InsertStatus.CREATED
    await store.close()
    assert fsck.check(Quiet(), release / "store") == []


async def test_what_it_writes_from_then_on_is_refused_by_the_release(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a process of the old release that still runs cannot misread it."""
    store = FileStorage(release / "store", files=Quiet())
    await store.open()
    await store.counts("q")
    assert newest_format(release) == 1  # looking changes nothing
    await store.insert("q", [NewJob("new", b"", task="t")])
    assert newest_format(release) == frames.FORMAT
    await store.write_documents("s", [Change("a", 0, b"x")])
    await store.close()
    monkeypatch.setattr(frames, "FORMAT", 1)
    monkeypatch.setattr(frames, "_READ_FORMATS", frozenset({1}))
    with pytest.raises(
        StorageError, match=r"format 2\.1; this version reads up to format 1\.1: use that version"
    ):
        await FileStorage(release / "store", files=Quiet()).open()


@pytest.mark.parametrize(("name", "number"), [("FORMAT", 99), ("ENGINE", 98)])
async def test_a_newer_version_is_refused_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    with monkeypatch.context() as later:
        later.setattr(frames, name, number)
        later.setattr(frames, "_READ_FORMATS", frozenset({number, frames.FORMAT}))
        store = FileStorage(tmp_path / "store")
        await store.open()
        await store.insert("q", [NewJob("a", b"")])
        await store.close()
    this = f"{frames.FORMAT}\\.{frames.ENGINE}"
    found = this.replace(str(getattr(frames, name)), str(number), 1) if name == "FORMAT" else f"2\\.{number}"
    problem = f"format {found}; this version reads up to format {this}: use that version, or a later one"
    for call in (FileStorage(tmp_path / "store").open(), FileStorage(tmp_path / "store").check()):
        with pytest.raises(StorageError, match=problem):
            await call


def newest_format(release: Path) -> int:
    store = release / "store"
    newest = Generations([path.name for path in store.iterdir()]).journals[-1]
    header = frames.parse_header((store / f"journal-{newest:010d}").read_bytes(), frames.JOURNAL)
    assert header is not None
    return header.format
