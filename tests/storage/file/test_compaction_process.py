"""The process that compacts: the package alone decides what it runs, not where a program was started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jobqueue.storage.file import FileStorage
from jobqueue.storage.file.disk.directory import Directory
from jobqueue.storage.file.disk.files import Files
from jobqueue.storage.file.upkeep import child, rotation
from jobqueue.storage.values import NewJob
from tests.storage.file.layers import Quiet

PACKAGE = Path(child.__file__).parents[3]
TELL = """\
import json, os, sys
print(json.dumps({
    "cwd": os.getcwd(), "leads": os.getsid(0) == os.getpid(),
    "fds": sorted(map(int, os.listdir("/proc/self/fd"))),
    "path": sys.path, "python": sorted(name for name in os.environ if name.startswith("PYTHON")),
}), file=sys.stderr)
"""


async def grown(directory: Path) -> Path:
    """Make a store with a sealed journal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation.Compaction, "start", lambda *_: None)
        store = FileStorage(directory, files=Quiet(), rotate_at=2000)
        await store.open()
        for number in range(40):
            await store.insert("q", [NewJob(str(number), bytes(200))])
        await store.close()
    assert (directory / "journal-0000000001").exists()
    return directory


def start(store: Path) -> subprocess.Popen[bytes] | None:
    with Directory.open(Files(), store) as directory:
        return Files().spawn(directory.fd, store)


def ended(process: subprocess.Popen[bytes] | None) -> tuple[int, str]:
    assert process is not None
    _, told = process.communicate(timeout=60)
    return process.returncode, told.decode()


async def test_no_module_comes_from_where_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, here, proof = await grown(tmp_path / "store"), tmp_path / "here", tmp_path / "proof"
    here.mkdir()
    planted = f"open({str(proof)!r}, 'a').write(__name__)\nraise ImportError('planted')\n"
    for name in ("zlib", "selectors", "struct", "sitecustomize", "usercustomize", "jobqueue"):
        (here / f"{name}.py").write_text(planted)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", ".", str(here))))
    monkeypatch.setenv("PYTHONSTARTUP", str(here / "zlib.py"))
    assert ended(start(store)) == (0, "")
    assert not proof.exists()
    assert not (store / "journal-0000000001").exists()


def test_it_has_nothing_of_the_program_but_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_PROGRAM", TELL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONINSPECT", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        code, told = ended(start(tmp_path))
    finally:
        os.close(inherited)
    found = json.loads(told)
    assert code == 0
    assert found["cwd"] == "/"
    assert found["leads"]
    assert inherited not in found["fds"]
    assert found["python"] == []
    assert not {"", ".", str(tmp_path)} & set(found["path"])


async def test_signals_that_the_program_keeps_away_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await grown(tmp_path / "store")
    held = os.open(store / "compact.lock", os.O_RDWR | os.O_CREAT)
    wait = "import time; print('up', flush=True, file=sys.stderr); time.sleep(60)"
    monkeypatch.setattr(child, "_PROGRAM", child._PROGRAM + wait)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = start(store)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)
        os.close(held)
    assert process is not None
    assert process.stderr is not None
    assert process.stderr.readline() == b"up\n"
    process.terminate()
    assert ended(process)[0] == -signal.SIGTERM


async def test_it_runs_the_package_that_the_program_runs(tmp_path: Path) -> None:
    """Here one in an archive that nobody else knows of, while another is installed."""
    store, archive = await grown(tmp_path / "store"), tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in PACKAGE.rglob("*.py"):
            text = path.read_text()
            if path.name == "compact.py":
                text = text.replace("    os.nice(5)", "    os.write(2, __file__.encode())\n    os.nice(5)")
            zipped.writestr(str(Path("jobqueue") / path.relative_to(PACKAGE)), text)
    program = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from jobqueue.storage.file.disk.files import Files\n"
        "directory = os.open(sys.argv[2], os.O_RDONLY)\n"
        "process = Files().spawn(directory, Path(sys.argv[2]))\n"
        "sys.exit(process.communicate()[1].decode())"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, archive.name, store],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.stderr.strip() == str(archive / "jobqueue/storage/file/upkeep/compact.py")
    assert not (store / "journal-0000000001").exists()


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi", "/opt/app/server"])
def test_no_program_that_is_not_an_interpreter_is_started(
    executable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", executable)
    assert start(tmp_path) is None


def test_a_frozen_program_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    assert start(tmp_path) is None
