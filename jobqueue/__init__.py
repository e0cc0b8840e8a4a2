"""A job queue with request/response over pluggable stores."""
