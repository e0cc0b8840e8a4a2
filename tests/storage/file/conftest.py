"""Small journals, so that hundreds of them cost little; and journals that stay when a store is closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobqueue.storage.file import core
from jobqueue.storage.file.disk import journal
from jobqueue.storage.file.upkeep import rotation


@pytest.fixture(autouse=True, scope="session")
def small_journals() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "CHUNK", 1 << 14)
        patch.setattr(journal, "RESERVE", 1 << 13)
        patch.setattr(core, "RESERVE", 1 << 13)
        yield


WITH_SNAPSHOT = {"test_closing", "test_crash", "test_power_cut", "test_upgrade"}
"""Modules in which the last close leaves a snapshot. The others look at the journal that was written."""


@pytest.fixture(autouse=True)
def journals_stay(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.stem not in WITH_SNAPSHOT:
        monkeypatch.setattr(rotation, "CLOSING_SNAPSHOT", 0)
