"""Named tasks: functions whose calls are jobs, typed from the caller to the worker."""
