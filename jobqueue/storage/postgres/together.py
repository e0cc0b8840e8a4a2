"""Looks at several queues at the same moment, made by one statement.

Who shows many queues looks at each, and a look at a small queue is little beside the statement that it takes:
the round trip here, the plan there. So what is asked in one turn of the event loop is asked together. Each
answer is what a statement of its own would have found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, TypeVar

from jobqueue.storage.postgres.statements import Statements
from jobqueue.storage.rules import read_rules
from jobqueue.storage.values import Counts, Document, Rules, WorkerInfo

__all__ = ["Looks", "Together"]

K = TypeVar("K")
V = TypeVar("V")

_MOST = 100
"""Questions that one statement answers."""
_FEW = 10
"""Documents of one space that are read together with others: they might be large."""
_SMALL = 5_000
"""Jobs of a queue that are counted together with others, which do not wait for a large one."""
_MOST_KNOWN = 10_000
"""Queues whose size is remembered."""

Begin = Callable[[Coroutine[Any, Any, None]], object]


class Together(Generic[K, V]):
    """Gathers questions of one kind; ``ask`` answers several, and ``begin`` runs it apart from who asks."""

    def __init__(self, begin: Begin, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._begin = begin
        self._ask = ask
        self._asked: dict[K, asyncio.Future[V]] = {}

    async def answer(self, key: K) -> V:
        """Return the answer to one question."""
        if key not in self._asked:
            loop = asyncio.get_running_loop()
            if not self._asked:
                loop.call_soon(self._send)
            self._asked[key] = loop.create_future()
        return await asyncio.shield(self._asked[key])

    def _send(self) -> None:
        asked, self._asked = self._asked, {}
        keys = list(asked)
        for start in range(0, len(keys), _MOST):
            self._begin(self._tell({key: asked[key] for key in keys[start : start + _MOST]}))

    async def _tell(self, asked: Mapping[K, asyncio.Future[V]]) -> None:
        try:
            found = await self._ask(list(asked))
        except asyncio.CancelledError:
            for future in asked.values():
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - each who has asked is told
            for future in asked.values():
                future.set_exception(error)
                future.exception()  # seen: who has asked may have left
        else:
            for key, future in asked.items():
                future.set_result(found[key])


class Looks:
    """The looks at queues that are made together."""

    def __init__(self, statements: Statements, begin: Begin) -> None:
        self._statements = statements
        self._small: set[str] = set()
        self._counts = Together(begin, statements.counts_of)
        self._documents = Together(begin, statements.documents_of)
        self._ended = Together(begin, statements.ended)
        self._rules = Together(begin, statements.rules_of)
        self._workers = Together(begin, statements.workers)

    async def counts(self, queue: str) -> Counts:
        """Return the number of jobs in each state."""
        if queue in self._small:
            counts = await self._counts.answer(queue)
        else:
            counts = await self._statements.counts(queue)
        if sum(counts[:-1]) > _SMALL:
            self._small.discard(queue)
        elif len(self._small) < _MOST_KNOWN:
            self._small.add(queue)
        return counts

    async def ended(self, queue: str) -> int:
        """Return how many jobs have ended."""
        if queue in self._small:
            return await self._ended.answer(queue)
        return (await self._statements.ended([queue]))[queue]

    async def workers(self, queue: str) -> list[WorkerInfo]:
        """Return the workers of a queue, sorted."""
        return list(await self._workers.answer(queue))

    async def rules(self, queue: str) -> Rules:
        """Return the rules of a queue."""
        return read_rules(queue, await self._rules.answer(queue))

    async def documents(self, space: str, names: Sequence[str]) -> list[Document | None]:
        """Read documents of a space."""
        key = space, tuple(names)
        if len(names) <= _FEW:
            return list(await self._documents.answer(key))
        return (await self._statements.documents_of([key]))[key]
