"""A web server that forks its children after it has used the queue itself. argv: URL of the store, children.

As gunicorn does with --preload: the parent listens, and each child accepts, answers in threads, and ends on
SIGTERM by a normal exit of the interpreter.
"""

from __future__ import annotations

import os
import signal
import socketserver
import sys
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from jobqueue import JobQueueError, Queue

url, children = sys.argv[1], int(sys.argv[2])
queue: Queue[Any, Any] = Queue(url, "q")


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    id = environ["PATH_INFO"].strip("/")
    try:
        answer = f"{os.getpid()} {queue.sync.enqueue_and_wait(id, id, timeout=30.0)}"
    except JobQueueError as error:
        answer = f"{os.getpid()} {type(error).__name__}: {error}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]


def serve(server: WSGIServer) -> None:
    def end(*_: Any) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    server.serve_forever(poll_interval=0.05)
    print(f"child {os.getpid()} ends", flush=True)


server = make_server("127.0.0.1", 0, application, Threaded, Quiet)
server.socket.setblocking(False)  # all children hear of a connection, and one of them gets it
queue.sync.enqueue("before", "before")
waiting = threading.Thread(target=lambda: print("waited", queue.sync.wait("slow", timeout=40.0), flush=True))
queue.sync.enqueue("slow", "slow", delay=2.0)
waiting.start()  # so that a call is under way at the forks
pids: list[int] = []
for _ in range(children):
    pid = os.fork()
    if pid == 0:
        serve(server)
        sys.exit(0)
    pids.append(pid)
    queue.sync.enqueue(f"fork:{len(pids)}", 1)  # the parent goes on
print(f"serving {server.server_port}", flush=True)


def end(*_: Any) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGTERM)


signal.signal(signal.SIGTERM, end)
print("parent:", queue.sync.enqueue_and_wait("parent", "p"), flush=True)
for pid in pids:
    print("child exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
waiting.join()
print("parent:", queue.sync.enqueue_and_wait("last", "p"), flush=True)
