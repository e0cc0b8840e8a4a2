"""The conformance suite of stores. See `jobqueue.testing`."""

from __future__ import annotations

from jobqueue.testing.contract.claim import ClaimCases
from jobqueue.testing.contract.insert import InsertCases
from jobqueue.testing.contract.leases import LeaseCases
from jobqueue.testing.contract.settle import SettleCases

__all__ = ["StorageContract"]


class StorageContract(InsertCases, ClaimCases, SettleCases, LeaseCases):
    """Every promise of `jobqueue.storage.base`, as tests. Subclass it and give it ``make_storage``."""
