"""The file store: durable on one host, for any number of its processes, with no server.

    directory/
      lock                 who may write, and how far the journal goes  (disk/lock.py)
      journal-0000000007   the commands since the snapshot of that generation  (disk/journal.py, commands/)
      snapshot-0000000007  the state when that journal began  (upkeep/snapshot.py)
      wake                 touched when other processes have something to read  (disk/watch.py)
      compact.lock         who compacts  (upkeep/rotation.py)

Every process keeps the whole state in memory (upkeep/replica.py), brought forward by the same commands in the
same order. The contract is `jobqueue.storage.contract`; docs/internals/file-format.md explains how it is
kept.
"""

from __future__ import annotations

from jobqueue.storage.file.store import FileStorage
from jobqueue.storage.file.upkeep.progress import Progress

__all__ = ["FileStorage", "Progress"]
