"""The directory of a store: its files, their frames, locks and notifications."""
