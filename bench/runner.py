"""One measurement in a process of its own, between "ready" and its result."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from bench.peers import Peer, command

LONGEST = 400.0
"""Seconds after which a process is ended; its own limit is shorter."""


class Runner:
    """A peer's process. As a context manager: it is ready inside, and has ended afterwards."""

    def __init__(self, peer: Peer, action: str, options: Mapping[str, float], directory: str = "") -> None:
        self.peer = peer
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        environ = os.environ | ({"BENCH_DIRECTORY": directory} if directory else {})
        if not (peer.python or peer.node):
            environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [*command(peer), json.dumps({"action": action} | dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environ,
        )
        self._limit = threading.Timer(LONGEST, self._process.kill)
        self._limit.daemon = True
        self._limit.start()

    def __enter__(self) -> Self:
        try:
            line = self._line()
        except BaseException:
            self.__exit__(KeyboardInterrupt)
            raise
        if line != "ready\n":
            self._fail()
        return self

    def measure(self) -> dict[str, float]:
        """Let it begin; return its result."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._line()
        if not line:
            self._fail()
        result: dict[str, float] = json.loads(line)
        return result

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._limit.cancel()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _fail(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace")[-3000:]
        self.__exit__(None)
        raise SystemExit(f"the runner of {self.peer.title} failed:\n{told}")
