"""A bounded number of connections, and calls that are repeated when they meet a fault.

A call uses one connection at a time and asks for no second one, so that waiting for a connection always ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeVar

import asyncpg

from jobqueue.errors import JobQueueError, StorageUnavailableError
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.loggers import get_logger
from jobqueue.storage.postgres.faults import judge
from jobqueue.storage.postgres.target import APPLICATION, Connection, Target, Timeouts, connect, pinned

__all__ = ["Pool"]

log = get_logger("jobqueue.storage.postgres")

T = TypeVar("T")

_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_CLOSE_WITHIN = 1.0
_END_LEFT_BEHIND = """
    select pg_terminate_backend(a.pid, 100) from unnest($1::int[], $2::float8[]) as left_behind (pid, age)
    join pg_stat_activity a using (pid)
    where a.usename = session_user and a.application_name = $3
    and a.backend_start < clock_timestamp() - make_interval(secs => left_behind.age - 1)
"""


class _Process(NamedTuple):
    """What serves a connection on the server's side."""

    pid: int
    since: float
    """Our instant by which it was there."""


class Pool:
    """Connections of one event loop to one database."""

    def __init__(self, target: Target, timeouts: Timeouts, size: int, retry_for: float) -> None:
        self.target = target
        self.retry_for = retry_for
        self._timeouts = timeouts
        self._size = size
        self._open: dict[Connection, _Process] = {}
        self._left_behind: list[_Process] = []
        """Those whose connections were given up."""
        self._connecting = 0
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.was_lost = True
        """Whether a connection has ended since the last call that noted it: another server may answer now."""

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"PostgreSQL at {self.target}"

    async def run(self, call: Callable[[Connection, bool], Awaitable[T]]) -> T:
        """Make a call, again and again while it meets faults that pass.

        ``call`` gets a connection, and whether it may have been carried out before.
        """
        give_up_at = SYSTEM_CLOCK.monotonic() + self.retry_for
        pause, repeated = _PAUSE, False
        while True:
            try:
                async with (
                    self.connection() as connection,
                    pinned(connection, self.target, self._timeouts),
                ):
                    return await call(connection, repeated)
            except JobQueueError:
                raise
            except Exception as error:
                fault = judge(error, self.where)
                if fault is None:
                    raise
                if not fault.again or self._closed or SYSTEM_CLOCK.monotonic() + pause > give_up_at:
                    raise fault.error from error
                repeated = repeated or fault.unknown
            await SYSTEM_CLOCK.sleep(SYSTEM_CLOCK.uniform(pause / 2, pause))
            pause = min(_LONGEST_PAUSE, pause * 2)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection; one that meets a fault which ends it is given up."""
        connection = await self._take()
        lost = True
        try:
            if self._left_behind:
                await self._end_left_behind(connection)
            yield connection
            lost = False
        except Exception as error:
            fault = judge(error, self.where)
            lost = fault is None or fault.lost
            raise
        finally:
            self._give_back(connection, lost=lost or connection.is_closed() or connection.is_in_transaction())

    async def _end_left_behind(self, connection: Connection) -> None:
        """End the server's processes of connections that were given up, before anything is said again.

        Such a process may have a statement before it that it has not begun: it would carry it out after its
        repetition, as a late claim that nobody hears of. A process that has got its number since is younger.
        """
        ending, self._left_behind = self._left_behind, []
        now = SYSTEM_CLOCK.monotonic()
        pids, ages = [each.pid for each in ending], [now - each.since for each in ending]
        try:
            await connection.fetch(_END_LEFT_BEHIND, pids, ages, APPLICATION)
        except asyncpg.InsufficientPrivilegeError as error:
            # The right was taken from all users: no reason to do nothing else.
            log.warning("%s: a connection that was given up cannot be ended there: %s", self.where, error)
        except BaseException:
            self._left_behind += ending
            raise

    async def _take(self) -> Connection:
        while not self._closed:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._drop(connection)
            if len(self._open) + self._connecting < self._size:
                return await self._connect()
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._next()
                raise
        raise StorageUnavailableError(f"{self.where}: the store was closed")

    async def _connect(self) -> Connection:
        self._connecting += 1
        try:
            connection = await connect(self.target, self._timeouts)
        except BaseException:
            self._next()
            raise
        finally:
            self._connecting -= 1
        self._open[connection] = _Process(connection.get_server_pid(), SYSTEM_CLOCK.monotonic())
        return connection

    def _give_back(self, connection: Connection, *, lost: bool) -> None:
        if lost or self._closed:
            self._drop(connection)
        else:
            self._idle.append(connection)
        self._next()

    def _drop(self, connection: Connection) -> None:
        self.was_lost = True
        process = self._open.pop(connection, None)
        if process is not None and not self.target.pooled:  # of which we would not know the number
            self._left_behind.append(process)
        connection.terminate()

    def _next(self) -> None:
        """Let one of those that wait look again."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def close(self) -> None:
        """End all connections; calls under way fail."""
        self._closed = True
        while self._waiting:
            self._next()
        for connection in tuple(self._open):
            if connection in self._idle:
                with suppress(Exception):  # it ends one way or the other
                    await connection.close(timeout=_CLOSE_WITHIN)
            connection.terminate()
        self._open.clear()
        self._idle.clear()
