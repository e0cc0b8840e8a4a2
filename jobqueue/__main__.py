"""``python -m jobqueue``: the same as the command ``jobqueue``."""

from jobqueue.cli import main

main()
