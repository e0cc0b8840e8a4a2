"""Every kind of store."""

from tests.everywhere import clock, lab, pytest_generate_tests, storage

__all__ = ["clock", "lab", "pytest_generate_tests", "storage"]
