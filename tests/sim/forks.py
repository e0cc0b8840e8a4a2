"""A fork of a simulated process, as far as one operating system process can show it.

The child gets copies of what the parent had started, and each copy is told, as `jobqueue.runtime.forks` does
in a real child. A copy shares everything below with its parent, where a real one has its own: so a call in
the child that is not refused at once, and uses a connection, a task or a future of the parent, breaks a
promise here. Sockets and locks that are copied for real are what `tests/lifecycle/test_fork.py` is for.
"""

from __future__ import annotations

import copy
from collections.abc import Coroutine
from typing import Any

from jobqueue import App
from jobqueue.errors import WrongLoopError
from jobqueue.runtime.lifecycle import Service
from tests.sim.process import Process, Role
from tests.sim.work import KINDS, tag
from tests.sim.world import ViolationError


def fork(parent: Process, number: int) -> Process | None:
    """Fork a started process; return the child, or ``None`` if there is nothing that a child could use."""
    if any(isinstance(part, Service) and part._session is None for part in [*parent.services, *parent.parts]):
        return None
    queues = [_copied(queue) for queue in parent.queues]
    copies = [_copied(part) for part in parent.services if isinstance(part, Service)]
    for part in copies:
        if isinstance(part, App):
            part._session._queues = part._queues = queues
    role = Role(f"{parent.name}~{number}")
    child = Process(parent.world, parent.store, parent.checks, role, parent.common)
    child.world.tell(f"{child.name} is forked from {parent.name}")
    child.spawn(_live(child, copies, queues, number))
    return child


def _copied(service: Any) -> Any:
    """Return a service as a forked child has it."""
    forked = copy.copy(service)
    if service._session is not None:
        forked._session = copy.copy(service._session)
        forked._session.forked()
    return forked


async def _live(child: Process, copies: list[Any], queues: list[Any], number: int) -> None:
    """Find that everything is refused; then do as the error says, and make a queue of its own."""
    for queue in queues:
        await _refused(child, queue.enqueue("forked", "#f forked"))
        await _refused(child, queue.enqueue_and_wait("forked", "#f forked"))
        await _refused(child, queue.wait("forked"))
        await _refused(child, queue.cancel("forked"))
        await _refused(child, queue.get_status("forked"))
    for service in copies:
        if service.ready:
            raise ViolationError(f"{child.name}: {service!r} says that it is ready in a forked child")
        await _refused(child, service.start())
        await service.stop()
    await child.start()
    await KINDS["rpc"].act(child, 0, f"forked{number}", tag(900 + number), 30.0, "return")
    await child.stop(1.0)


async def _refused(child: Process, call: Coroutine[Any, Any, Any]) -> None:
    try:
        answer = await call
    except WrongLoopError:
        return
    raise ViolationError(f"{child.name} used what its parent had started, and got {answer!r}")
