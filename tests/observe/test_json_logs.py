"""Lines of JSON: what stands in them, of which job they are, and that no text is too long."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue import Backoff, Job, JobFailedError, MemoryStorage, Queue, Reaper
from jobqueue.observe.json_logs import JobFields, JsonFormatter
from tests.support import Recorder, die, until, within


class Lines:
    """What a handler with the formatter and the filter has written."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(JsonFormatter())
        self.handler.addFilter(JobFields())

    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def saying(self, text: str) -> list[dict[str, Any]]:
        return [line for line in self.all if text in line["message"]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, root = Lines(), logging.getLogger()
    root.addHandler(lines.handler)
    level, root.level = root.level, logging.DEBUG
    yield lines
    root.removeHandler(lines.handler)
    root.level = level


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_line_of_a_handler_names_its_job(lines: Lines, threaded: bool) -> None:
    log = logging.getLogger("shop.mail")
    queue: Queue[Any, Any] = Queue("memory://", "mail", worker_id="w1")

    def below() -> str:
        log.info("sending")
        log.info("another job's", extra={"job_id": "other"})
        return "sent"

    async def send() -> str:
        return below()

    task = queue.task(below if threaded else send, name="send")
    async with queue:
        await within(task.using(id="a").enqueue_and_wait())
    log.info("after all")
    (line,) = lines.saying("sending")
    job = {name: line.pop(name) for name in ("job_id", "queue", "task", "attempt", "worker_id")}
    assert job == {"job_id": "a", "queue": "mail", "task": "send", "attempt": 1, "worker_id": "w1"}
    assert line.keys() == {"time", "level", "logger", "process", "message"}
    assert line["logger"] == "shop.mail"
    assert lines.saying("another")[0]["job_id"] == "other"
    assert "job_id" not in lines.saying("after all")[0]


async def test_each_line_about_a_job_has_its_fields(lines: Lines) -> None:
    queue: Queue[Any, Any] = Queue("memory://", "mail", max_attempts=2, backoff=Backoff.fixed(0.001))

    @queue.execute
    async def fails(job: Job[Any]) -> None:
        raise ValueError("no route")

    async with queue:
        with pytest.raises(JobFailedError):
            await within(queue.enqueue_and_wait("a", 1))
        await until(lambda: bool(lines.saying("after 2 attempts")))
    for text in ("is enqueued", "begins attempt 1", "failed attempt 1", "after 2 attempts"):
        (line,) = lines.saying(text)
        assert (line["job_id"], line["queue"]) == ("a", "mail")
    assert lines.saying("failed attempt 1")[0]["delay"] == 0.001
    (last,) = lines.saying("after 2 attempts")
    assert (last["level"], last["attempt"], last["reason"]) == ("error", 2, "error")
    assert last["duration"] >= 0
    assert "ValueError: no route" in last["exception"]


async def test_lines_of_a_reaper_have_their_fields(lines: Lines) -> None:
    storage = MemoryStorage()
    await storage.open()
    reaper = Reaper(storage, sweep_interval=0.05)
    heard = Recorder(reaper)
    await die(storage, "a", max_stalls=0)
    async with reaper:
        await until(lambda: "stalled" in heard.names)
    await storage.close()
    (line,) = lines.saying("lost its lease")
    assert (line["level"], line["job_id"], line["queue"], line["reason"]) == ("error", "a", "q", "stalled")


async def test_a_long_text_is_cut_and_stays_one_line(lines: Lines) -> None:
    queue: Queue[Any, Any] = Queue("memory://", "mail", max_attempts=1)

    @queue.execute
    async def fails(job: Job[Any]) -> None:
        raise ValueError("\x1b[2J\u202e\n" + "x" * 1_000_000)

    async with queue:
        with pytest.raises(JobFailedError):
            await within(queue.enqueue_and_wait("a", 1))
        await until(lambda: bool(lines.saying("after 1 attempts")))
    raw = lines._stream.getvalue()
    assert raw.isascii()
    assert not {"\x1b", "\r"} & set(raw)
    (line,) = lines.saying("after 1 attempts")
    assert len(line["message"]) < 40_000
    assert len(line["exception"]) < 40_000
    assert line["exception"].endswith("x")
