"""Connections to servers, and scripts on them. Knows no jobs."""
