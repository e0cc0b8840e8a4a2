"""Ways in which a process that uses the synchronous client ends. argv: URL of the store, the way."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from typing import Any

from jobqueue import JobQueueError, Queue

url, way = sys.argv[1:]
queue: Queue[Any, Any] = Queue(url, "q")


def wait() -> None:
    try:
        queue.sync.wait("a", timeout=600.0)
    except JobQueueError as error:
        print(type(error).__name__, flush=True)


daemon = threading.Thread(target=wait, daemon=True)


def join() -> None:
    """Let the daemon say what it has to: Python ends such threads wherever they are."""
    if daemon.is_alive():
        daemon.join(30.0)


atexit.register(join)  # before the client is used: it comes after the end of that
queue.sync.enqueue("a", 1, delay=600.0)

if way == "interrupted":
    try:
        print("waits", flush=True)  # in here: the interrupt may come at once
        queue.sync.wait("a", timeout=600.0)
    except KeyboardInterrupt:
        print("interrupted", queue.sync.enqueue("b", 1).status, flush=True)
elif way == "a daemon waits":
    daemon.start()
    while not queue.sync.get_status("a"):
        time.sleep(0.01)
elif way == "a child of multiprocessing":
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(
        target=lambda: print("child", queue.sync.enqueue("b", 1).status, flush=True)
    )
    child.start()
    child.join(30.0)
    print("child exit", child.exitcode, flush=True)
elif way == "a child that ends at once":
    if os.fork() == 0:
        sys.exit(0)
    print("child exit", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
elif way == "a child of a child":
    if os.fork() == 0:
        queue.sync.enqueue("b", 1)
        if os.fork() == 0:
            print("grandchild", queue.sync.enqueue("b", 1).status, flush=True)
            sys.exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    print("child exit", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
elif way == "without its store":
    frozen = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: frozen.set())
    print("used", flush=True)
    while not frozen.wait(0.1):
        pass
elif way == "used at the exit":
    atexit.register(lambda: print("late", queue.sync.enqueue("b", 1).status, flush=True))
print("end", flush=True)
