"""The PostgreSQL store. It needs asyncpg: ``pip install 'jobqueue[postgres]'``.

store.py        `PostgresStorage`: the contract
open_store.py   what an open store has: connections, subscriptions, calls under way
statements.py   one method for each function of the schema
rows.py         what the functions take and answer, as values of the contract
held_ids.py     inserting around ids that open transactions hold
inside.py       inserting in a transaction of the caller
run_transaction.py  the transaction of a run, which ends with its completion
wakeups.py      waiting for work and for locks
pushes.py       messages for waiters and workers
listener.py     LISTEN: the one connection that hears notifications
pool.py         the other connections, and the repetition of calls
faults.py       what an error of the server or the driver means
target.py       the DSN: where the server is
migrations.py   applying and checking the schema
schema/         the SQL, in numbered files
"""

from __future__ import annotations

try:
    import asyncpg as asyncpg
except ImportError as error:  # pragma: no cover - the tests have it
    raise ImportError("PostgresStorage needs asyncpg: pip install 'jobqueue[postgres]'") from error

from jobqueue.storage.postgres.store import PostgresStorage

__all__ = ["PostgresStorage"]
