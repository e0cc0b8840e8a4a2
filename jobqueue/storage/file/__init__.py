"""The file store: durable on one host, for any number of its processes, with no server.

    directory/
      lock                 who may write, and how far the journal goes  (lock.py)
      journal-0000000007   the commands since the snapshot of that generation  (journal.py, commands.py)
      snapshot-0000000007  the state when that journal began  (snapshot.py)
      wake                 touched when other processes have something to read  (watch.py)
      compact.lock         who compacts  (rotation.py)

Every process keeps the whole state in memory (replica.py), brought forward by the same commands in the
same order. The contract is `jobqueue.storage.base`; docs/internals/file-format.md explains how it is kept.
"""

from __future__ import annotations

from jobqueue.storage.file.progress import Progress
from jobqueue.storage.file.storage import FileStorage

__all__ = ["FileStorage", "Progress"]
