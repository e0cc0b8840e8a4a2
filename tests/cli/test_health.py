"""The health server against clients of every kind, and telling process managers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from jobqueue.cli.serving import health
from jobqueue.cli.serving.health import health_server, respond
from jobqueue.cli.serving.notify import LINK_VARIABLE, FleetLink, Systemd, notifiers
from jobqueue.cli.serving.serving import serve


@pytest.mark.parametrize(
    ("line", "ready", "status"),
    [
        (b"GET /healthz HTTP/1.1", False, 200),
        (b"GET /readyz HTTP/1.1", True, 200),
        (b"HEAD /readyz HTTP/1.0", False, 503),
        (b"GET /readyz?verbose HTTP/1.1", True, 200),
        (b"GET / HTTP/1.1", True, 404),
        (b"POST /healthz HTTP/1.1", True, 405),
        (b"GET /healthz", True, 400),
        (b"\x16\x03\x01\x02", True, 400),
        (b"", True, 400),
    ],
)
def test_answers(line, ready, status):
    assert respond(line, ready=ready)[0] == status


async def ask(port: int, request: bytes, *, eof: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if eof:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


async def served(monkeypatch: pytest.MonkeyPatch, *requests: bytes, eof: bool = True) -> list[bytes]:
    ports: list[int] = []
    monkeypatch.setattr(health.log, "info", lambda _text, _host, port: ports.append(port))
    async with health_server("127.0.0.1", 0, lambda: True):
        return [await ask(ports[0], request, eof=eof) for request in requests]


async def test_over_the_wire(monkeypatch):
    good, head, long, cut, wrong = await served(
        monkeypatch,
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /readyz HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"GET /rea",
        b"DELETE /readyz HTTP/1.1\r\n\r\n",
    )
    assert good.startswith(b"HTTP/1.1 200 OK\r\n")
    assert good.endswith(b"\r\n\r\nready\n")
    assert head.endswith(b"Connection: close\r\n\r\n")
    assert b"Content-Length: 6" in head
    assert long.startswith(b"HTTP/1.1 400 ") or long == b""
    assert cut.startswith(b"HTTP/1.1 400 ")
    assert b"Allow: GET, HEAD" in wrong


async def test_a_client_that_says_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr(health, "REQUEST_TIME", 0.05)
    assert await served(monkeypatch, b"GET /readyz", eof=False) == [b""]


async def test_without_a_port_nothing_is_served(monkeypatch):
    served = []
    monkeypatch.setattr("asyncio.start_server", lambda *args, **options: served.append(args))
    async with health_server("127.0.0.1", None, lambda: True):
        assert served == []


def test_systemd_by_path_and_by_abstract_name(tmp_path):
    for address, bound in ((f"{tmp_path}/s", f"{tmp_path}/s"), ("@jobqueue-test", "\0jobqueue-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(bound)
            Systemd(address, None).tell("READY=1", "STATUS=ready")
            assert manager.recv(100) == b"READY=1\nSTATUS=ready"


def test_a_manager_that_has_gone_stops_no_work(tmp_path):
    assert Systemd(f"{tmp_path}/nobody", None).tell("READY=1") is None, "told in vain, without an error"


def test_who_is_told_is_read_from_the_environment_once():
    ours, theirs = socket.socketpair()
    environ = {
        LINK_VARIABLE: str(theirs.detach()), "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "OTHER": "stays",
    }  # fmt: skip
    link, systemd = notifiers(environ)
    assert environ == {"OTHER": "stays"}
    assert systemd.watchdog == 3.0
    link.tell("X_READY=1", "WATCHDOG=1")
    with ours:
        assert ours.recv(100) == b"X_READY=1\nWATCHDOG=1\n"
    link.tell("X_READY=0")  # nobody there: no error
    assert isinstance(link, FleetLink)
    link._socket.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {LINK_VARIABLE: "not a number"},
    ],
)
def test_nobody_to_tell(environ):
    assert notifiers(environ) == []


def test_the_watchdog_of_another_process_is_not_ours():
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert notifiers(environ)[0].watchdog is None


class Told:
    """A manager that remembers."""

    watchdog: float | None = 0.03

    def __init__(self) -> None:
        self.states: list[str] = []
        self.news = asyncio.Event()

    def tell(self, *states: str) -> None:
        self.states += states
        self.news.set()

    async def follow(self) -> None:
        await asyncio.Event().wait()

    async def until(self, state: str) -> None:
        async with asyncio.timeout(20):
            while state not in self.states:
                await self.news.wait()
                self.news.clear()


class Part:
    """A service that a test holds in its hands."""

    def __init__(self) -> None:
        self.ready = False
        self.steps: list[str] = []
        self.defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        self.steps.append("start")

    async def stop(self) -> None:
        self.steps.append("stop")

    def hurry(self) -> None:
        self.steps.append("hurry")

    async def until_broken(self) -> None:
        await self.defect


async def test_readiness_is_told_as_it_changes():
    service, told = Part(), Told()
    serving = asyncio.create_task(serve(service, service.stop, [told], "127.0.0.1", None))
    await told.until("WATCHDOG=1")
    assert "READY=1" not in told.states
    service.ready = True
    await told.until("STATUS=ready")
    service.ready = False
    await told.until("X_READY=0")
    service.ready = True
    told.states.clear()
    await told.until("X_READY=1")
    assert "READY=1" not in told.states  # systemd wants that once
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 20)
    assert "STOPPING=1" in told.states
    assert service.steps == ["start", "stop"]


async def test_a_broken_service_ends_with_its_error():
    service = Part()
    service.defect.set_exception(RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        await serve(service, service.stop, [], "127.0.0.1", None)
