"""A store that an earlier release wrote comes to the same state, and goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobqueue.job import Action, Settlement
from jobqueue.storage.base import InsertStatus, NewJob
from jobqueue.storage.file import FileStorage, fsck
from jobqueue.storage.file.directory import Directory
from jobqueue.storage.file.replica import Replica
from tests.file.layers import Quiet

DATA = Path(__file__).parent / "data"
IDS = [f"{name}{number}" for name in "abcdsx" for number in range(7)]
"""See tests/file/data/write.py."""


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
    assert [repr(record) for record in records] == expected["jobs"]
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
