"""Policy without I/O: states, outcomes and retries of jobs, and checks of arguments."""
