"""Schedules: jobs that are enqueued at their times, once each, however many schedulers run and die."""
