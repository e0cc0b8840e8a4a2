"""The streams of server-sent events: each says which parts of one page have changed, and not to what."""

from __future__ import annotations

import asyncio
import json

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from jobqueue.runtime.bounded import within
from jobqueue.runtime.clock import Clock
from jobqueue.web.pulse import Listener, Pulse, Topic

__all__ = ["Stream"]

PING = 15.0
"""Seconds after which something is sent: so a proxy keeps the stream, and a peer that is gone is found."""
LIFE = 25.0
"""Seconds after which a stream ends. The browser opens another one, and is asked again who it is. Short:
a server that is told to stop waits for its answers to end, and most managers give it 30 seconds for that."""
SEND = 10.0
"""Seconds that a peer may take to accept what is sent."""
RETRY_AFTER = "60"


class Stream(Response):
    """Tells of changes of one page until the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, pulse: Pulse, topic: Topic, clock: Clock) -> None:
        super().__init__()
        self._pulse = pulse
        self._topic = topic
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["method"] == "HEAD":
            await PlainTextResponse(media_type=self.media_type)(scope, receive, send)
            return
        # Counted here and not before: an answer that is never sent would be counted for ever.
        listener = self._pulse.join(self._topic)
        if listener is None:
            refused = PlainTextResponse("too many streams are open\n", 503, {"Retry-After": RETRY_AFTER})
            await refused(scope, receive, send)
            return
        leaving = asyncio.create_task(_until_left(receive, listener), name="jobqueue-web-stream")
        try:
            await self._send(listener, send)
        except (TimeoutError, OSError):
            return  # the peer is gone, or takes nothing
        finally:
            self._pulse.leave(listener)
            leaving.cancel()

    async def _send(self, listener: Listener, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._write(send, "retry: 1000\n\n")
        until = self._clock.monotonic() + LIFE
        while not listener.over and self._clock.monotonic() < until:
            try:
                await within(self._clock, listener.news.wait(), PING)
            except TimeoutError:
                await self._write(send, ": ping\n\n")
                continue
            parts = listener.take()
            if parts and not listener.over:
                event = "away" if parts == ["away"] else "changed"
                data = json.dumps({"page": self._topic.page, "parts": parts})
                await self._write(send, f"event: {event}\ndata: {data}\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, text: str) -> None:
        message = {"type": "http.response.body", "body": text.encode(), "more_body": True}
        await within(self._clock, send(message), SEND)


async def _until_left(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.end()
