"""What tests with real servers rest on."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.services import free_port


def test_a_free_port_stays_reserved_and_a_server_may_have_it() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)) as server:  # with SO_REUSEADDR, as servers have it
            assert server.getsockname()[1] == port


def test_children_of_tests_do_not_ignore_interrupts() -> None:
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
