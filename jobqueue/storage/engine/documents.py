"""Small named values with versions, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.values import MAX_DOCUMENT_PAGE, Change, Document, DocumentPage

__all__ = ["DocumentSpaces"]

_CURSOR = ">"
"""Begins every cursor; the name that it follows is the rest."""


class DocumentSpaces:
    """All documents of one store, by space and name. No empty spaces are kept."""

    def __init__(self) -> None:
        self._spaces: dict[str, dict[str, Document]] = {}

    def read(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Return documents by name."""
        documents = self._spaces.get(space, {})
        return [documents.get(name) for name in names]

    def matches(self, space: str, change: Change) -> bool:
        """Return whether the present version is the one that a change expects."""
        found = self._spaces.get(space, {}).get(change.name)
        return change.expected is None or change.expected == (0 if found is None else found.version)

    def put(self, space: str, document: Document) -> None:
        """Write a document."""
        self._spaces.setdefault(space, {})[document.name] = document

    def delete(self, space: str, name: str) -> None:
        """Delete a document, if it is there."""
        documents = self._spaces.get(space, {})
        documents.pop(name, None)
        if not documents:
            self._spaces.pop(space, None)

    def list(self, space: str, limit: int, cursor: str | None) -> DocumentPage:
        """Return the documents that follow a cursor, by name."""
        if cursor is not None and not cursor.startswith(_CURSOR):
            raise InvalidArgumentError("cursor", "was not made by this store")
        documents = self._spaces.get(space, {})
        names = sorted(name for name in documents if cursor is None or name > cursor[len(_CURSOR) :])
        page: list[Document] = []
        size = 0
        for name in names[:limit]:
            page.append(documents[name])
            size += len(documents[name].data)
            if size >= MAX_DOCUMENT_PAGE:
                break
        more = len(page) < len(names) and bool(page)
        return DocumentPage(page, _CURSOR + page[-1].name if more else None)

    def __iter__(self) -> Iterator[tuple[str, Document]]:
        for space, documents in self._spaces.items():
            for document in documents.values():
                yield space, document
