"""The result of one check of a store, its server or its data.

Beside `jobqueue.storage.capabilities`, which gives it out, so that connections can judge a server and still
know no jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Severity"]


class Severity(StrEnum):
    """The severity of a finding, least first."""

    OK = "ok"
    WARNING = "warning"
    """Works, with the risk or cost that the text names; or was mended."""
    ERROR = "error"
    """Must not be used like this: a store refuses to open on an unfit server."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check."""

    name: str
    """The subject, in a word or two."""
    severity: Severity
    text: str
    """The result and, unless all is well, the remedy."""
