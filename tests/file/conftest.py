"""Small journals, so that hundreds of them cost little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobqueue.storage.file import core, journal


@pytest.fixture(autouse=True, scope="session")
def small_journals() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "CHUNK", 1 << 14)
        patch.setattr(journal, "RESERVE", 1 << 13)
        patch.setattr(core, "RESERVE", 1 << 13)
        yield
