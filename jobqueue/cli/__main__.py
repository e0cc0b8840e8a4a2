"""``python -m jobqueue.cli``: the same as the command ``jobqueue``."""

from jobqueue.cli import main

main()
