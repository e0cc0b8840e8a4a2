"""A Redis that is wiped, and an empty ledger."""

from tests.storage.guard.conftest import redis, schema, server

__all__ = ["redis", "schema", "server"]
