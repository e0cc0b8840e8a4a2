"""The state machine of a store as plain data: memory and files are built on it, others behave like it."""
