"""The stores of `tests/stores.py`."""

from tests.stores import clock, lab, pytest_generate_tests, reapers, storage, wire

__all__ = ["clock", "lab", "pytest_generate_tests", "reapers", "storage", "wire"]
