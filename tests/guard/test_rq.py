"""An RQ queue that is guarded, with RQ's own worker."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from jobqueue import InvalidArgumentError, PostgresLedger, StorageError, StorageUnavailableError
from jobqueue.guard.rq import _Rq, guard, packed, unpacked
from jobqueue.runtime.clock import SYSTEM_CLOCK
from jobqueue.runtime.ids import unique_id
from jobqueue.storage.postgres.migrations import quoted
from tests.guard.jobs import double, fail
from tests.services import Server
from tests.storage.postgres.server import postgres_url
from tests.storage.postgres.support import connection as admin_connection

rq: Any = pytest.importorskip("rq")


@pytest.fixture
def connection(redis: Server) -> Iterator[Any]:
    import redis as redis_py

    made = redis_py.Redis(port=redis.port)
    yield made
    made.close()


@pytest.fixture
def queue(connection: Any, schema: str) -> Iterator[Any]:
    guarded = guard(rq.Queue(connection=connection), PostgresLedger(postgres_url(), schema), interval=0.1)
    yield guarded
    guarded.guard.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def work(queue: Any) -> None:
    rq.SimpleWorker([queue], connection=queue.connection).work(burst=True)


def events(queue: Any, id: str) -> list[str]:
    return [event.event for event in queue.guard.history(id)]


def test_lost_jobs_are_enqueued_again_under_their_ids_and_run(queue: Any, redis: Server) -> None:
    done = queue.enqueue(double, 1)
    work(queue)
    assert done.return_value() == 2
    until(lambda: events(queue, done.id)[-1] == "completed")
    waits = queue.enqueue(double, 21, job_id="waits", meta={"a": "b"}, result_ttl=60)
    later = queue.enqueue_in(timedelta(hours=1), double, 4, job_id="later")
    until(lambda: queue.guard.reconcile().compared == 2)
    redis.command("FLUSHALL")
    until(lambda: queue.count == 1)
    back = queue.fetch_job("waits")
    assert (back.func_name, back.args, back.meta, back.result_ttl) == (
        waits.func_name, (21,), {"a": "b"}, 60,
    )  # fmt: skip
    until(lambda: queue.scheduled_job_registry.get_job_ids() == ["later"])
    assert abs(queue.scheduled_job_registry.get_scheduled_time(later).timestamp() - time.time() - 3600) < 60
    assert queue.fetch_job(done.id) is None, "what had ended does not come back"
    work(queue)
    assert queue.fetch_job("waits").return_value() == 42
    until(lambda: events(queue, "waits")[-1] == "completed")
    assert "requeued" in events(queue, "waits")


class TrackedQueue(rq.Queue):
    """A queue around whose method an error tracker has put one of its own."""

    def enqueue_job(self, job: Any, **options: Any) -> Any:
        return super().enqueue_job(job, **options)


def test_a_method_that_an_error_tracker_has_wrapped(connection: Any, schema: str) -> None:
    queue: Any = guard(TrackedQueue(connection=connection), PostgresLedger(postgres_url(), schema))
    try:
        jobs = [queue.enqueue(double, 1), queue.enqueue(double, 2), queue.enqueue(double, 3, at_front=True)]
        later = queue.enqueue_in(timedelta(hours=1), double, 4)
        assert queue.job_ids == [jobs[2].id, jobs[0].id, jobs[1].id]
        assert later.id in queue.scheduled_job_registry
    finally:
        queue.guard.close()


def test_outcomes_are_followed(queue: Any) -> None:
    failed = queue.enqueue(fail)
    gone = queue.enqueue(double, 1, result_ttl=0)
    until(lambda: queue.guard.reconcile().updated == 0)  # both were seen
    work(queue)
    until(lambda: events(queue, failed.id)[-1] == "failed")
    until(lambda: events(queue, gone.id)[-1] == "gone")
    assert queue.count == 0


def test_a_job_that_is_in_the_ledger_alone_is_enqueued(
    queue: Any, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue.guard.foreign.GRACE", -60_000)

    def die(*_args: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rq.Queue, "enqueue_job", die)
        with pytest.raises(KeyboardInterrupt):
            queue.enqueue(double, 5, job_id="a")
    until(lambda: queue.count == 1)
    work(queue)
    assert queue.fetch_job("a").return_value() == 10


def test_what_cannot_be_guarded_is_refused(queue: Any, connection: Any, schema: str) -> None:
    first = queue.enqueue(double, 1)
    with pytest.raises(InvalidArgumentError, match="depends_on"):
        queue.enqueue(double, 1, depends_on=first)
    with pytest.raises(InvalidArgumentError, match="pipeline"):
        queue.enqueue(double, 1, pipeline=connection.pipeline())
    with pytest.raises(InvalidArgumentError, match="one by one"):
        queue.enqueue_many([])
    ledger: Any = PostgresLedger(postgres_url(), schema)
    with pytest.raises(InvalidArgumentError, match="asynchronous"):
        guard(rq.Queue(connection=connection, is_async=False), ledger)
    with pytest.raises(InvalidArgumentError, match="ledger"):
        guard(rq.Queue(connection=connection), "postgresql://localhost")  # type: ignore[arg-type]
    missing = guard(rq.Queue(connection=connection), PostgresLedger(postgres_url(), f"missing {unique_id()}"))
    with pytest.raises(StorageError, match="schema apply"):
        missing.enqueue(double, 1)


def test_a_forked_process_has_a_guard_of_its_own(queue: Any) -> None:
    queue.enqueue(double, 1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            queue.connection.connection_pool.disconnect()
            queue.enqueue(double, 2, job_id="of-the-child")
            queue.guard.close()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert events(queue, "of-the-child")[0] == "enqueued"
    assert queue.count == 2


def test_fields_are_kept_as_they_are() -> None:
    fields = {"data": b"\x80\x04\x00\xff", "timeout": 180, "description": "ü"}
    assert unpacked(packed(fields, None)) == (
        {b"data": b"\x80\x04\x00\xff", b"timeout": b"180", b"description": "ü".encode()}, 0,
    )  # fmt: skip


def test_a_process_that_starts_after_a_loss_brings_jobs_back(
    queue: Any, connection: Any, redis: Server, schema: str
) -> None:
    """As when the machine of both was restarted: nobody has seen the server before and after."""
    queue.enqueue(double, 4, job_id="a")
    until(lambda: queue.guard.reconcile().updated == 0)  # it was seen
    queue.guard.close()
    redis.command("FLUSHALL")
    later = guard(rq.Queue(connection=connection), PostgresLedger(postgres_url(), schema), interval=0.1)
    later.guard.start()
    until(lambda: later.count == 1)
    work(later)
    until(lambda: events(later, "a")[-1] == "completed")
    later.guard.close()
    third = guard(rq.Queue(connection=connection), PostgresLedger(postgres_url(), schema), interval=0.1)
    assert third.guard.reconcile().requeued == 0
    third.guard.close()


def test_a_loss_that_was_found_and_not_mended_is_mended_by_the_next(
    queue: Any, connection: Any, redis: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue(double, 4, job_id="a")
    until(lambda: queue.guard.reconcile().updated == 0)

    async def away(*_args: Any) -> Any:
        raise StorageUnavailableError("Redis has gone away again")

    with monkeypatch.context() as patch:
        patch.setattr("jobqueue.guard.rq._Rq.look", away)
        redis.command("FLUSHALL")
        until(lambda: bool(asked(redis)))  # it was looked at, and found wiped
        with pytest.raises(StorageUnavailableError):
            queue.guard.reconcile()
        queue.guard.close()
    later = guard(rq.Queue(connection=connection), PostgresLedger(postgres_url(), schema), interval=0.1)
    assert later.guard.reconcile().requeued == 1
    later.guard.close()


def asked(redis: Server) -> Any:
    return redis.command("HGET", "jobqueue-guard:rq:default", "asked")


def test_what_is_wiped_in_the_middle_of_a_comparison_has_not_ended(
    queue: Any, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue(double, 1, job_id="a")
    until(lambda: queue.guard.reconcile().updated == 0)
    look, wiped = _Rq.look, threading.Event()

    async def wiped_before(self: Any, ids: Sequence[str]) -> Any:
        if not wiped.is_set():
            wiped.set()
            redis.command("FLUSHALL")
        return await look(self, ids)

    monkeypatch.setattr(_Rq, "look", wiped_before)
    until(wiped.is_set)
    until(lambda: queue.job_ids == ["a"])
    assert "gone" not in events(queue, "a")
    work(queue)
    until(lambda: events(queue, "a")[-1] == "completed")


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b'{"fields": {}, "ttl": 0}', b'{"fields": {"a": 1}, "ttl": "x"}']
)
def test_a_row_that_was_edited_by_hand_holds_up_no_other(
    queue: Any, redis: Server, schema: str, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    for id in ("a", "edited", "z"):
        queue.enqueue(double, 1, job_id=id)
    until(lambda: queue.guard.reconcile().updated == 0)
    execute(schema, "update {s}.job set payload = $1 where id = 'edited'", payload)
    redis.command("FLUSHALL")
    until(lambda: queue.count == 2)
    assert queue.job_ids == ["a", "z"]
    queue.guard.reconcile()
    queue.guard.reconcile()
    assert caplog.text.count("stays as it is") == 1
    work(queue)
    until(lambda: [events(queue, id)[-1] for id in ("a", "z")] == ["completed"] * 2)


@pytest.mark.parametrize("off", [3600.0, -3600.0], ids=["ahead", "behind"])
def test_a_clock_that_is_an_hour_off_doubles_and_loses_nothing(
    queue: Any, redis: Server, schema: str, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    """A job that is only on its way to Redis is no lost one, and one that is long in the ledger alone is."""
    now = time.time
    monkeypatch.setattr(type(SYSTEM_CLOCK), "time", lambda _self: now() + off)
    token = queue.guard.record("on its way", packed({"data": b"x"}, None), 0)
    assert queue.guard.reconcile().requeued == 0
    assert queue.count == 0
    execute(schema, "update {s}.job set created = created - 20000")
    until(lambda: queue.count == 1)
    queue.guard.confirm(token)


def execute(schema: str, text: str, *args: Any) -> None:
    async def run() -> None:
        async with admin_connection() as admin:
            await admin.execute(text.format(s=quoted(schema)), *args)

    asyncio.run(run())


def test_all_jobs_that_ended_long_ago_go_from_the_ledger(queue: Any, schema: str) -> None:
    async def prepare() -> None:
        old = """
            insert into {s}.job (token, queue, id, state, priority, due, max_attempts, max_stalls, ttl,
                                 payload, headers, task, group_name, created, updated)
            select gen_random_uuid(), 'other', n::text, 5, 0, 1, 1, 1, 1, '', '', '', '', 1, 1
            from generate_series(1, 2500) n
        """
        async with admin_connection() as admin:
            await admin.execute(old.format(s=quoted(schema)))

    async def left() -> int:
        async with admin_connection() as admin:
            return int(await admin.fetchval(f"select count(*) from {quoted(schema)}.job"))

    asyncio.run(prepare())
    queue.guard.start()
    until(lambda: asyncio.run(left()) == 0)


def test_a_child_that_is_forked_while_the_guard_starts_is_not_held_up(queue: Any) -> None:
    with queue.guard._starting.setdefault(os.getpid(), threading.Lock()):
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            queue.guard.start()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
