"""worker --processes and --reload: children that are watched and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from jobqueue.cli.serving.fleet import exit_text, restart_delay
from jobqueue.cli.serving.sources import changes, is_source, source_trees
from tests.cli.processes import get, until_ready

STARTED = r"\[(\d+)\] queue default started"


def fleet(spawn, *options: str):
    """Start two processes; return the parent and their pids."""
    parent = spawn("worker", "tasks:queue", "--processes", "2", *options)
    return parent, {int(parent.expect(STARTED)[1]) for _ in range(2)}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_children_run_the_jobs_and_drain(store, data, spawn):
    parent, children = fleet(spawn)
    assert data("enqueue", "a", "{}", "-s", store, "--wait")["result"]["pid"] in children
    data("enqueue", "b", '{"sleep": 0.5}', "-s", store)
    parent.expect("running b", "out")
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0
    assert data("status", "b", "-s", store)["state"] == "completed"
    assert all(map(gone, children))


def test_their_names_are_numbered(spawn):
    parent = spawn("worker", "tasks:queue", "--processes", "2", "--name", "left", "--no-reaper")
    parent.expect("2 worker processes of tasks:queue on the queue's own store")
    names = {parent.expect("queue default started, worker (.*)")[1] for _ in range(2)}
    assert names == {"left-1", "left-2"}
    assert not [line for line in parent.lines["err"] if "with a reaper" in line]


def test_signals_are_passed_on(store, data, spawn):
    parent, children = fleet(spawn)
    data("enqueue", "a", '{"sleep": 600}', "-s", store)
    parent.expect("running a", "out")
    parent.signal(signal.SIGINT)
    parent.expect("queue default stopped")  # the other one has nothing to drain
    parent.signal(signal.SIGINT)
    assert parent.wait() == 0, parent.lines
    assert data("status", "a", "-s", store)["state"] == "queued"
    assert all(map(gone, children))


def test_a_dead_child_is_replaced_and_its_exit_told(store, data, spawn):
    parent, children = fleet(spawn)
    data("enqueue", "a", '{"exit": 41}', "-s", store)
    died = int(parent.expect(r"worker process (\d+) exited with code 41, next one in 0.5 s")[1])
    born = int(parent.expect(STARTED)[1])
    assert died in children
    assert born not in children
    os.kill(born, signal.SIGKILL)
    assert int(parent.expect(r"worker process (\d+) was killed by SIGKILL")[1]) == born
    parent.expect(STARTED)


def test_children_end_with_their_parent(spawn):
    parent, children = fleet(spawn)
    parent.signal(signal.SIGKILL)
    # Each stops by itself; wait() sees the end of the pipes that they share with their parent.
    assert parent.wait() == -signal.SIGKILL
    assert sum("queue default stopped" in line for line in parent.lines["err"]) == len(children)


def test_what_cannot_start_ends_the_fleet(spawn, project: Path):
    (project / "broken.py").write_text("1/0")
    parent = spawn("worker", "broken:queue", "--processes", "2")
    parent.expect("ZeroDivisionError")
    parent.expect("cannot start")
    assert parent.wait() == 2


def test_health_of_a_fleet(spawn):
    parent, children = fleet(spawn, "--health-port", "0")
    line = next(line for line in parent.lines["err"] if "health on" in line)
    port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
    until_ready(port)
    victim = children.pop()
    os.kill(victim, signal.SIGKILL)
    parent.expect(rf"worker process {victim} was killed")
    assert get(port, "/readyz") == (503, "not ready\n")
    assert get(port, "/healthz")[0] == 200


def test_options_of_the_parent_do_not_reach_the_children(spawn):
    parent = spawn("worker", "tasks:queue", JOBQUEUE_WORKER_PROCESSES="2", JOBQUEUE_WORKER_HEALTH_PORT="0")
    for _ in range(2):
        parent.expect(STARTED)
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0
    text = "\n".join(parent.lines["err"])
    assert text.count("worker process ") == 2
    assert text.count("health on") == 1


def test_the_store_is_no_argument_of_the_children(spawn, store):
    _, children = fleet(spawn, "-s", f"{store}-with-a-secret")
    for child in children:
        assert b"secret" not in Path(f"/proc/{child}/cmdline").read_bytes()


def test_reload(store, data, spawn, project: Path):
    parent = spawn("worker", "tasks:queue", "--reload")
    parent.expect("watching the Python files")
    first = int(parent.expect(STARTED)[1])
    tasks = project / "tasks.py"
    source = tasks.read_text()
    tasks.write_text("1/0\n")
    parent.expect("tasks.py has changed")
    parent.expect("ZeroDivisionError")
    parent.expect("next one when the sources change")
    tasks.write_text(source.replace('"echo"', '"renewed"'))
    assert int(parent.expect(STARTED)[1]) != first
    assert "renewed" in data("enqueue", "a", "{}", "-s", store, "--wait")["result"]
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0


def test_restart_delay_grows_and_is_bounded():
    assert [restart_delay(failures) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert restart_delay(10_000) == 30.0


def test_exit_text():
    assert exit_text(3) == "exited with code 3"
    assert exit_text(-9) == "was killed by SIGKILL"
    assert exit_text(-250) == "was killed by signal 250"


def test_sources_are_python_files_that_somebody_edits(tmp_path: Path):
    for name in (".git", "pkg/__pycache__", "venv/lib", "node_modules/x", "pkg/sub"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    assert source_trees(tmp_path) == [tmp_path / "pkg"]
    assert all(is_source(Path(name)) for name in ("a.py", "pkg/b.py"))
    assert not any(is_source(Path(name)) for name in ("f.txt", "pkg/.#b.py", "pkg/__pycache__/c.py", "c.pyc"))


async def test_every_kind_of_change_to_a_source_is_seen(tmp_path: Path):
    seen: asyncio.Queue[Path] = asyncio.Queue()

    async def look():
        async for paths in changes(tmp_path):
            for path in paths:
                seen.put_nowait(path)

    async def expect(path: Path):
        while await seen.get() != path:
            pass

    first, late = tmp_path / "a.py", tmp_path / "new/sub/b.py"
    first.write_text("1")
    looking = asyncio.create_task(look())
    async with asyncio.timeout(20):
        while seen.empty():  # until the watch has begun
            first.write_text("12")
            await asyncio.sleep(0.1)
        (tmp_path / "ignored.txt").write_text("1")
        late.parent.mkdir(parents=True)
        late.write_text("1")
        await expect(late)
        (tmp_path / "saved").write_text("2")
        (tmp_path / "saved").replace(first)
        await expect(first)
        late.unlink()
        await expect(late)
    looking.cancel()
    await asyncio.wait([looking])
