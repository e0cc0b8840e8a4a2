"""The pytest plugin: the fixture ``jobqueue``.

pytest loads it wherever this package is installed. So it imports nothing of the package before the fixture is
asked for, and has no hooks.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jobqueue.testing.fixture import JobQueueFixture

__all__ = ["jobqueue_fixture"]


@pytest.fixture(name="jobqueue")
def jobqueue_fixture() -> Iterator[JobQueueFixture]:
    """Queues on a store in memory: ``use``, ``drain``, ``assert_enqueued``, ``travel``."""
    from jobqueue.testing.fixture import JobQueueFixture  # noqa: PLC0415 - see above

    with JobQueueFixture() as fixture:
        yield fixture
