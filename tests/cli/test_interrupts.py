"""Ctrl-C before a command has begun and after it has ended: no traceback, at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.processes import BOUND, Process, environ

AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""
AT_EXIT = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
RUN = "import sys; sys.argv = ['jobqueue', 'stats', '--help']; from jobqueue.cli import main; main()"


def run(*lines: str, interrupts: signal.Handlers = signal.SIG_DFL) -> subprocess.CompletedProcess[str]:
    def as_a_shell_does() -> None:
        signal.signal(signal.SIGINT, interrupts)

    return subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(lines)],
        env=environ(), capture_output=True, text=True, timeout=BOUND, preexec_fn=as_a_shell_does, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["click", "asyncio", "jobqueue.cli.main", "jobqueue.cli.commands.worker"])
def test_while_the_commands_are_loaded(name: str) -> None:
    ended = run(AT_IMPORT.format(name=name), RUN)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_after_the_command() -> None:
    ended = run(AT_EXIT, RUN)
    assert (ended.returncode, ended.stderr) == (130, "")
    assert "--watch" in ended.stdout


@pytest.mark.parametrize("when", [AT_IMPORT.format(name="click"), AT_EXIT])
def test_ignored_interrupts_stay_ignored(when: str) -> None:
    ended = run(when, RUN, interrupts=signal.SIG_IGN)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "--watch" in ended.stdout


@pytest.mark.parametrize("command", [["worker", "tasks:queue"], ["reaper", "-s", "{store}"]])
def test_while_the_store_does_not_answer(spawn: Callable[..., Process], command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(BOUND)
        store = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        process = spawn(*(part.format(store=store) for part in command), STORE=store)
        with silent.accept()[0]:
            process.signal(signal.SIGINT)
            assert process.wait() == 130
    assert [line for line in process.lines["err"] if "INFO" not in line] == ["Error: interrupted"]


def test_the_package_loads_its_interface_when_it_is_asked_for_a_name() -> None:
    program = """
import sys
import jobqueue.cli
assert not {"click", "jobqueue.public", "jobqueue.queue"} & set(sys.modules), sorted(sys.modules)
import jobqueue
assert jobqueue.queue.Queue is jobqueue.Queue
assert {"Queue", "queue", "__version__"} <= set(dir(jobqueue))
assert not hasattr(jobqueue, "Nothing")
names = {}
exec("from jobqueue import *", names)
assert names["Queue"] is jobqueue.Queue and "open_storage" in names
"""
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")


TWICE = """
import asyncio, os, signal
from jobqueue.cli.running import {run} as run

async def main():
    task = asyncio.current_task()
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("tidies up", flush=True)
        {then}
        print("tidied up", flush=True)
        raise

try:
    run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("runner", ["run", "run_fast"])
def test_an_interrupt_cancels_the_command(runner: str) -> None:
    ended = run(TWICE.format(run=runner, then="await asyncio.sleep(0.01)"))
    assert (ended.stdout.split("\n")[:3], ended.stderr) == (["tidies up", "tidied up", "interrupted"], "")


@pytest.mark.parametrize("runner", ["run", "run_fast"])
def test_a_second_interrupt_ends_it_at_once(runner: str) -> None:
    ended = run(TWICE.format(run=runner, then="os.kill(os.getpid(), signal.SIGINT)"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "tidies up\n", "")


@pytest.mark.parametrize("runner", ["run", "run_fast"])
def test_other_cancellations_and_errors_pass(runner: str) -> None:
    program = f"""
import asyncio, signal
from jobqueue.cli.running import {runner} as run

async def cancelled():
    raise asyncio.CancelledError

before = signal.getsignal(signal.SIGINT)
try:
    run(cancelled())
except asyncio.CancelledError:
    print("passed", signal.getsignal(signal.SIGINT) is before)
"""
    ended = run(program)
    assert (ended.stdout, ended.stderr) == ("passed True\n", "")


@pytest.mark.parametrize("runner", ["run", "run_fast"])
def test_an_interrupt_before_the_loop_runs_leaves_no_warning(runner: str) -> None:
    program = f"""
import asyncio, sys
from jobqueue.cli.running import {runner} as run

async def main():
    print("begun")

def interrupted(*_arguments):
    raise KeyboardInterrupt

sys.modules["uvloop"] = None
asyncio.run = interrupted
try:
    run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = run(program)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_an_interrupt_while_a_loop_is_looked_for_leaves_no_warning() -> None:
    program = """
import sys
from jobqueue.cli.running import run_fast

class Interrupts:
    def find_spec(self, name, *_):
        if name == "uvloop":
            raise KeyboardInterrupt

async def main():
    print("begun")

sys.meta_path.insert(0, Interrupts())
try:
    run_fast(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = run(program)
    assert (ended.stdout, ended.stderr) == ("interrupted\n", "")


def test_a_forked_child_is_interrupted_as_any_process() -> None:
    program = """
import os, signal
from jobqueue.cli.running import run

async def main():
    child = os.fork()
    if not child:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            os._exit(9)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

run(main())
"""
    ended = run(program)
    assert (ended.stdout, ended.stderr) == ("9\n", "")
