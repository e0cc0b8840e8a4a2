"""Redis and Valkey. ``lua/README.md`` has the key map; the scripts are in ``lua/``."""

from jobqueue.errors import NotConfirmedError
from jobqueue.storage.findings import Finding, Severity
from jobqueue.storage.redis.doctor import Breach
from jobqueue.storage.redis.net.confirm import Confirm
from jobqueue.storage.redis.store import RedisStorage

__all__ = ["Breach", "Confirm", "Finding", "NotConfirmedError", "RedisStorage", "Severity"]
