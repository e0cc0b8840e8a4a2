"""The guard for queues of other libraries: see `jobqueue.guard.rq` and `jobqueue.guard.arq`."""
