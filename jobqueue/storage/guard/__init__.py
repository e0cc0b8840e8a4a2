"""Jobs that survive the loss of their store: a ledger in PostgreSQL beside it."""

from jobqueue.storage.guard.control import Guard
from jobqueue.storage.guard.ledger import PostgresLedger
from jobqueue.storage.guard.store import GuardedStorage
from jobqueue.storage.guard.values import GuardEvent, GuardNotice, GuardStats, Reconciled

__all__ = [
    "Guard",
    "GuardEvent",
    "GuardNotice",
    "GuardStats",
    "GuardedStorage",
    "PostgresLedger",
    "Reconciled",
]
