"""``jobqueue demo --guard``: Redis is killed at the peak, and comes back empty; no job is lost."""
