"""The contract's shape: its parts, what a store lacks of it, capabilities, and the names for authors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

import jobqueue
from jobqueue import (
    InvalidArgumentError,
    JobQueueError,
    MemoryStorage,
    Queue,
    Reaper,
    Storage,
    UnsupportedError,
)
from jobqueue import storage as face
from jobqueue.storage import Checkable, Finding, Sweepable, Totals, capabilities, contract, require
from jobqueue.storage.urls import as_storage

PARTS = [
    contract.Opening,
    contract.Jobs,
    contract.Work,
    contract.Upkeep,
    contract.Listing,
    contract.Pushes,
    contract.Locks,
]


class Whole(MemoryStorage):
    """A store of its own that can also be checked."""

    async def check(self, *, repair: bool = False) -> Sequence[Finding]:
        return []


class Old:
    """A store written before a call was added: everything but some calls, through another store."""

    def __init__(self, *lacks: str) -> None:
        self._inner = MemoryStorage()
        self._lacks = lacks

    def __getattr__(self, name: str) -> Any:
        if name in self._lacks:
            raise AttributeError(name)
        return getattr(self._inner, name)


# -- the sum of its parts -------------------------------------------------------------------------


def test_a_storage_is_the_sum_of_its_parts_and_each_call_is_in_one() -> None:
    names = [name for part in PARTS for name in contract.members(part)]
    assert names == contract.members(Storage)
    assert len(set(names)) == len(names)
    assert names[:6] == ["clock", "batched", "shared", "open", "close", "clone"]


def test_a_capability_has_at_most_four_calls_none_of_which_is_in_the_contract() -> None:
    kinds = [getattr(capabilities, name) for name in capabilities.__all__]
    found = [kind for kind in kinds if getattr(kind, "_is_protocol", False)]
    assert len(found) >= 6
    for kind in found:
        calls = contract.members(kind)
        assert 1 <= len(calls) <= 4, kind
        assert not set(calls) & set(contract.members(Storage)), kind


# -- what is no whole store -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [Queue, Reaper, as_storage])
def test_a_store_that_lacks_calls_is_refused_with_their_names(make: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^storage: Old is no .* store, it lacks sweep, purge: "):
        make(Old("purge", "sweep"))


def test_a_store_that_passes_its_calls_on_is_a_store() -> None:
    store: Any = Old()
    assert as_storage(store) is store


def test_what_is_no_store_at_all_is_refused_as_that() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^storage: must be a store or a URL, not int$"):
        as_storage(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"^storage: .* not the class MemoryStorage: call it$"):
        as_storage(MemoryStorage)  # type: ignore[arg-type]


# -- capabilities ---------------------------------------------------------------------------------


def test_a_capability_that_is_there_gives_the_store_itself() -> None:
    store = Whole()
    assert require(store, Checkable, "fsck") is store


def test_a_capability_that_is_missing_names_the_store_the_feature_and_the_remedy() -> None:
    with pytest.raises(UnsupportedError) as bad:
        require(MemoryStorage(), Checkable, "fsck")
    assert str(bad.value) == (
        "fsck: MemoryStorage lacks Checkable; use a store that has it, "
        "or give MemoryStorage the call check of jobqueue.storage.Checkable"
    )
    error = bad.value
    assert isinstance(error, JobQueueError)
    assert (error.feature, error.store, error.capability) == ("fsck", "MemoryStorage", "Checkable")
    assert error.remedy in str(error)
    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(made), str(made), vars(made)) == (UnsupportedError, str(error), vars(error))


def test_the_stores_have_the_capabilities_that_they_had() -> None:
    assert isinstance(MemoryStorage(), Totals)
    assert isinstance(jobqueue.open_storage("redis://x"), Sweepable)


# -- the names for authors ------------------------------------------------------------------------


def test_every_name_for_authors_is_there_and_listed() -> None:
    assert [name for name in face.__all__ if not hasattr(face, name)] == []
    assert set(face.__all__) <= set(dir(face))
    assert set(contract.__all__) - {"members", "missing"} <= set(face.__all__)
    assert set(capabilities.__all__) <= set(face.__all__)
    assert set(face.values.__all__) <= set(face.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        face.Nothing  # noqa: B018


def test_importing_the_names_for_authors_loads_no_third_party_package() -> None:
    program = """
import sys
before = set(sys.modules)
import jobqueue.storage
assert "jobqueue.storage.engine" not in sys.modules
from jobqueue.storage import Engine, Storage, arguments, require
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"jobqueue"}))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "[]", run.stderr
