"""The machine below: clock, ids, tasks, timers, threads, forks, signals, loggers. Knows no jobs."""
