"""The producer's side of a queue: new jobs, waits, and the answers for callers."""
