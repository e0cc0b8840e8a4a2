"""The conformance suite of stores. See `jobqueue.testing`."""

from __future__ import annotations

from jobqueue.testing.contract.addresses import AddressCases
from jobqueue.testing.contract.admission import AdmissionCases
from jobqueue.testing.contract.arguments import ArgumentCases
from jobqueue.testing.contract.arrival import ArrivalCases
from jobqueue.testing.contract.cancel import CancelCases
from jobqueue.testing.contract.claim import ClaimCases
from jobqueue.testing.contract.conflict import ConflictCases
from jobqueue.testing.contract.deadlines import DeadlineCases
from jobqueue.testing.contract.documents import DocumentCases
from jobqueue.testing.contract.expiry import ExpiryCases
from jobqueue.testing.contract.fences import FenceCases
from jobqueue.testing.contract.fields import FieldCases
from jobqueue.testing.contract.front import FrontCases
from jobqueue.testing.contract.history import HistoryCases
from jobqueue.testing.contract.hostile import HostileCases
from jobqueue.testing.contract.insert import InsertCases
from jobqueue.testing.contract.large import LargeCases
from jobqueue.testing.contract.leases import LeaseCases
from jobqueue.testing.contract.letters import LetterCases
from jobqueue.testing.contract.lifecycle import LifecycleCases
from jobqueue.testing.contract.limits import LimitCases
from jobqueue.testing.contract.listing import ListingCases
from jobqueue.testing.contract.locks import LockCases
from jobqueue.testing.contract.revival import RevivalCases
from jobqueue.testing.contract.settle import SettleCases
from jobqueue.testing.contract.sweep import SweepCases
from jobqueue.testing.contract.then import ThenCases
from jobqueue.testing.contract.threads import ThreadCases
from jobqueue.testing.contract.transitions import TransitionCases
from jobqueue.testing.contract.turns import TurnCases
from jobqueue.testing.contract.waiters import WaiterCases
from jobqueue.testing.contract.wakeups import WakeupCases

__all__ = ["StorageContract"]


class StorageContract(
    InsertCases,
    ClaimCases,
    ConflictCases,
    SettleCases,
    FenceCases,
    LeaseCases,
    SweepCases,
    FrontCases,
    CancelCases,
    ExpiryCases,
    WaiterCases,
    AddressCases,
    WakeupCases,
    ArrivalCases,
    LockCases,
    ListingCases,
    HostileCases,
    LargeCases,
    ArgumentCases,
    LifecycleCases,
    ThreadCases,
    TransitionCases,
    FieldCases,
    HistoryCases,
    LetterCases,
    DeadlineCases,
    ThenCases,
    DocumentCases,
    RevivalCases,
    AdmissionCases,
    LimitCases,
    TurnCases,
):
    """Every promise of `jobqueue.storage.contract`, as tests. Subclass it and give it ``make_storage``."""
