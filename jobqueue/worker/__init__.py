"""The worker's side of a queue: claiming, running, renewing leases and telling of the ends."""
