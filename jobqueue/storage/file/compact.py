"""``python -m jobqueue.storage.file.compact DIRECTORY``: one compaction, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jobqueue.storage.file.files import Files
from jobqueue.storage.file.rotation import compact

if __name__ == "__main__":
    os.nice(5)  # those who wait for jobs come first
    compact(Files(), Path(sys.argv[1]))
