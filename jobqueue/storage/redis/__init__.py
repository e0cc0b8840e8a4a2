"""Redis and Valkey. ``lua/README.md`` has the key map; the scripts are in ``lua/``."""

from jobqueue.storage.redis.checks import Finding, Severity
from jobqueue.storage.redis.confirm import Confirm, NotConfirmedError
from jobqueue.storage.redis.doctor import Breach
from jobqueue.storage.redis.store import RedisStorage

__all__ = ["Breach", "Confirm", "Finding", "NotConfirmedError", "RedisStorage", "Severity"]
