"""Reports a worker to whoever asks how a queue does: where it runs, what it runs, how much.

A store lists workers and their leases by itself. The rest stands in a document of each worker, which is
written at an interval and only if it says something new: no job costs a call, and an idle worker none either.
Counted is what the worker sees anyway. A document counts for as long as the store lists its worker, by the
store's clock; those of workers that have died are deleted by the living.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from jobqueue.errors import JobQueueError
from jobqueue.model.names import reports_space
from jobqueue.model.worker_report import SPAN, WorkerReport, class_of, merged, pack_report, parse_report
from jobqueue.runtime.clock import Clock
from jobqueue.storage.capabilities import Documents
from jobqueue.storage.contract import Storage
from jobqueue.storage.values import MAX_CHANGES, Change

__all__ = ["SelfReport", "Tally", "read_reports"]

INTERVAL = 10.0
"""Seconds between two reports of a worker that has something to report."""
REWRITTEN = 30
"""Intervals after which a report that says nothing new is written again: somebody may have deleted it."""
CLEANED = 60
"""Intervals between two looks for reports of dead workers."""
MOST_CLAIMS = 10_000
"""Claims of one interval whose waits count: the last ones."""
_PAGE = 500


class Tally:
    """Counts what one worker does: a note for a batch, which is looked at when the worker is reported."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans: deque[tuple[int, dict[int, int]]] = deque(maxlen=round(SPAN / INTERVAL) - 1)
        self.ended = 0
        """Jobs that have ended in this interval; whoever ends some adds them."""
        self._claims: deque[tuple[int, int, float]] = deque(maxlen=MOST_CLAIMS)
        """When one of those that were claimed together was due, how many they were, and when that was."""
        self.claimed = 0
        """Jobs that were claimed so far; whoever claims some adds them."""
        self.note = self._claims.append
        """Note jobs that were claimed together, by the monotonic clock."""

    def take(self) -> tuple[int, dict[int, int]]:
        """Return the ended jobs and the waits of the last `SPAN` seconds, and begin another interval."""
        waits: dict[int, int] = {}
        ahead = self._clock.time() - self._clock.monotonic()
        for due, count, at in self._claims:
            if due:  # 0: a store that does not say when a job was due
                place = class_of((at + ahead) * 1000 - due)
                waits[place] = waits.get(place, 0) + count
        self._claims.clear()
        now = self.ended, waits
        spans = [*self._spans, now]
        self._spans.append(now)
        self.ended = 0
        return sum(ended for ended, _ in spans), merged(waits for _, waits in spans)


class SelfReport:
    """Keeps the report of one worker. ``runs()`` returns whether it has a handler, and its tasks."""

    def __init__(
        self,
        storage: Storage,
        queue: str,
        worker: str,
        tally: Tally,
        runs: Callable[[], tuple[bool, tuple[str, ...]]],
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._space = reports_space(queue)
        self._worker = worker
        self.tally = tally
        self._runs = runs
        self._written = b""
        self._age = 0
        """Intervals since the report was written."""
        self._suspects: dict[str, int] = {}
        """Versions of reports whose workers the store did not list at the last look."""

    async def keep(self) -> None:
        """Report every `INTERVAL` seconds, until cancelled."""
        store = self._storage
        if not isinstance(store, Documents):
            return
        turn = 0
        while True:
            with suppress(JobQueueError):  # the worker itself reports a store that does not answer
                await self._write(store)
                if turn % CLEANED == 0 or self._suspects:
                    await self._clean(store)
            turn += 1
            await store.clock.sleep(INTERVAL)

    async def leave(self) -> None:
        """Delete the report. Raises `StorageError`."""
        store = self._storage
        if self._written and isinstance(store, Documents):
            await store.write_documents(self._space, [Change(self._worker, None, None)])

    async def _write(self, store: Documents) -> None:
        ended, waits = self.tally.take()
        handler, tasks = self._runs()
        report = WorkerReport(socket.gethostname(), os.getpid(), ended, waits, handler, tasks)
        data = pack_report(report)
        self._age += 1
        if data != self._written or self._age >= REWRITTEN:
            await store.write_documents(self._space, [Change(self._worker, None, data)])
            self._written, self._age = data, 0

    async def _clean(self, store: Documents) -> None:
        """Delete the reports of workers that two looks in a row have not found alive."""
        cursor: str | None = None
        found: dict[str, int] = {}
        while True:
            page = await store.list_documents(self._space, _PAGE, cursor)
            found.update((document.name, document.version) for document in page.documents)
            cursor = page.cursor
            if cursor is None:
                break
        living = {known.worker for known in await self._storage.workers(self._queue)} | {self._worker}
        dead = {name: version for name, version in found.items() if name not in living}
        gone = [
            Change(name, version, None)
            for name, version in dead.items()
            if self._suspects.get(name) == version
        ]
        for start in range(0, len(gone), MAX_CHANGES):
            await store.write_documents(self._space, gone[start : start + MAX_CHANGES])
        for change in gone:
            del dead[change.name]
        self._suspects = dead


async def read_reports(store: Storage, queue: str, workers: Sequence[str]) -> dict[str, WorkerReport] | None:
    """Return the reports of workers by name, as far as there are any; ``None`` if the store can have none."""
    if not isinstance(store, Documents):
        return None
    reports: dict[str, WorkerReport] = {}
    for start in range(0, len(workers), MAX_CHANGES):
        for document in await store.read_documents(
            reports_space(queue), workers[start : start + MAX_CHANGES]
        ):
            report = None if document is None else parse_report(document.data)
            if document is not None and report is not None:
                reports[document.name] = report
    return reports
