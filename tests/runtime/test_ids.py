"""Ids that the library makes."""

from __future__ import annotations

import os

from jobqueue.model.checks import check_id
from jobqueue.runtime.ids import unique_id


def test_unique_ids_are_valid_and_unlike() -> None:
    ids = [unique_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(check_id(id) == id and len(id) < 64 for id in ids)


def test_a_forked_child_makes_other_ids() -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, unique_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read()
    assert theirs.rpartition("-")[0] != unique_id().rpartition("-")[0]
