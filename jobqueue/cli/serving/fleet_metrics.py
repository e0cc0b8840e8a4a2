"""The metrics of a fleet: its parent asks each child for them, and serves them together.

Parent and child have a socket pair for this. A message is a head of two numbers and a text: the number of the
question, and the length of the text. So an answer that comes after the parent has ceased to wait is told from
the next one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from jobqueue.app import App
from jobqueue.cli.serving.health import Exporter
from jobqueue.cli.serving.metrics import exporter
from jobqueue.runtime.loggers import get_logger

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["METRICS_VARIABLE", "ChildMetrics", "MetricsLink", "merged", "metrics_link"]

METRICS_VARIABLE = "JOBQUEUE_FLEET_METRICS_FD"
"""Environment variable with the descriptor on which a child is asked for its metrics."""
PATIENCE = 4.0
"""Seconds that a child gets to answer."""
LONGEST = 16 * 1024 * 1024
"""Bytes of an answer. A longer one ends the asking of that child."""

_HEAD = struct.Struct("!II")
log = get_logger("jobqueue.cli")


class ChildMetrics:
    """The parent's end: asks one child for its metrics."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._asked = 0
        self._answer: asyncio.Future[bytes] | None = None
        self._asking = asyncio.Lock()
        self._listening = asyncio.create_task(self._listen(), name="jobqueue-child-metrics")

    async def ask(self) -> bytes | None:
        """Return the metrics of the child; ``None`` if it does not answer in time."""
        loop = asyncio.get_running_loop()
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(PATIENCE), self._asking:
                if self._listening.done():
                    return None
                self._asked = (self._asked + 1) % 2**32
                self._answer = loop.create_future()
                await loop.sock_sendall(self._link, _HEAD.pack(self._asked, 0))
                return await self._answer
        return None

    async def close(self) -> None:
        """Listen no more."""
        self._listening.cancel()
        with suppress(asyncio.CancelledError):
            await self._listening
        self._link.close()

    async def _listen(self) -> None:
        # Answers are read to their ends whether or not somebody waits: the next one begins there.
        read = partial(_read, asyncio.get_running_loop(), self._link)
        with suppress(OSError, EOFError):
            while True:
                number, length = _HEAD.unpack(await read(_HEAD.size))
                if length > LONGEST:
                    log.warning("a worker process has %d bytes of metrics: it is asked no more", length)
                    break
                text = await read(length)
                if number == self._asked and self._answer is not None and not self._answer.done():
                    self._answer.set_result(text)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(EOFError())


class MetricsLink:
    """The child's end, a `Notifier` whose manager asks: for what ``render`` returns."""

    watchdog: float | None = None

    def __init__(self, descriptor: int, render: Exporter) -> None:
        self._link = socket.socket(fileno=descriptor)
        self._link.set_inheritable(False)
        self._link.settimeout(0)
        self._render = render

    def tell(self, *states: str) -> None:
        """Do nothing: another link tells the parent."""

    async def follow(self) -> None:
        """Answer until cancelled, or until the parent has gone."""
        loop = asyncio.get_running_loop()
        with suppress(OSError, EOFError):
            while True:
                number, _ = _HEAD.unpack(await _read(loop, self._link, _HEAD.size))
                try:
                    text = await self._render()
                except Exception:  # a collector of the user's
                    log.exception("collecting the metrics failed")
                    text = b""
                await loop.sock_sendall(self._link, _HEAD.pack(number, len(text)) + text)


def metrics_link(environ: MutableMapping[str, str], app: App) -> list[MetricsLink]:
    """Return the link to a parent that asks for metrics, if there is one; remove its variable."""
    descriptor = environ.pop(METRICS_VARIABLE, "")
    render = exporter(app) if descriptor.isdecimal() else None
    return [] if render is None else [MetricsLink(int(descriptor), render)]


def merged(texts: Iterable[tuple[int, bytes]]) -> bytes:
    """Put the metrics of several processes together, each with the label ``process``, its number.

    They are not added up: a counter of a process that was restarted begins anew, which a sum would hide.
    """
    from prometheus_client import generate_latest
    from prometheus_client.metrics_core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    for number, text in texts:
        try:
            found = list(text_string_to_metric_families(text.decode()))
        except ValueError as error:
            log.warning("the metrics of worker process %d cannot be read: %s", number, error)
            continue
        for family in found:
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, "process": str(number)}
                whole.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)

    return generate_latest(_Found(families.values()))


class _Found:
    """Metrics that were collected elsewhere, as `generate_latest` asks for them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


async def _read(loop: asyncio.AbstractEventLoop, link: socket.socket, length: int) -> bytes:
    """Read so many bytes; raise `EOFError` if there are no more."""
    data = bytearray()
    while len(data) < length:
        piece = await loop.sock_recv(link, min(65_536, length - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
