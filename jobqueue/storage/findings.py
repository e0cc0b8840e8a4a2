"""Optional abilities of a store: diagnose its server, check its data, report loading, know if it exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Checkable", "Diagnosable", "Finding", "Loading", "MadeOnOpening"]


class Finding(Protocol):
    """One result of a check."""

    @property
    def name(self) -> str:
        """The subject, in a word or two."""
        ...

    @property
    def severity(self) -> str:
        """``ok``, ``warning`` or ``error``."""
        ...

    @property
    def text(self) -> str:
        """The result and, unless all is well, the remedy."""
        ...


@runtime_checkable
class Diagnosable(Protocol):
    """A store that can judge whether its server or disk, and their settings, are fit."""

    async def diagnose(self) -> Sequence[Finding]:
        """Judge the server or disk. Needs an open store. Raises `StorageError`.

        A finding on the round trip has the name ``latency``.
        """
        ...


@runtime_checkable
class Checkable(Protocol):
    """A store that can check its own data."""

    async def check(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check every invariant of the data; one finding for each breach, none if all is well.

        Needs a store that is *not* open, since one that is damaged may refuse to open. With
        ``repair``, breaches are mended where possible and found as ``warning``. Raises
        `StorageError`, also if the store cannot repair.
        """
        ...


@runtime_checkable
class Loading(Protocol):
    """A store that reads all its data when it is opened or checked, which may take seconds."""

    def report_loading(self, progress: Callable[[int, int], None]) -> None:
        """Call ``progress`` with the bytes read and the bytes to read, equal at the end.

        Applies from the next opening or check on; called from any thread. A function that the store was
        given before stays.
        """
        ...


@runtime_checkable
class MadeOnOpening(Protocol):
    """A store that `open` makes if it does not exist, so that a wrong name makes an empty store."""

    @property
    def exists(self) -> bool:
        """Whether there is a store now."""
        ...
