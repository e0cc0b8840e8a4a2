"""demo: right on any directory, and not fooled when something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.cli.demo import scenario
from jobqueue.cli.demo.check import Expected, direct, judge
from jobqueue.cli.demo.files import MAX_BYTES, File, Found, Tally, find_files, job_id, measure, pack, unpack
from jobqueue.cli.demo.scenario import Observed
from tests.cli.processes import environ


def silent(_what: str, _total: int):
    return lambda: None


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with files of many kinds."""
    root = tmp_path / "files"
    (root / "sub dir").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / ".hidden/x").write_text("not looked at")
    for number in range(60):
        (root / f"sub dir/file {number}.txt").write_text("some words\n" * number)
    (root / "binary").write_bytes(bytes(range(256)) * 100)
    (root / "empty").touch()
    (root / "ümläut🙂").write_text("ü\n")
    (root / ("n" * 255)).write_text("a long name")
    (root / "tab\tnew\nline").write_text("control characters in a name")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"a name that is no text")
    (root / "link").symlink_to(root / "binary")
    (root / "dangling").symlink_to(root / "nowhere")
    os.mkfifo(root / "fifo")
    with (root / "huge").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    return root


def test_every_answer_is_right(data, files):
    numbers = data("demo", str(files))
    assert numbers["files"] == numbers["jobs"] == numbers["verified"] == 66
    assert numbers["skipped"] == {"not a regular file": 3, "too large": 1}
    assert (numbers["retries"], numbers["cancelled"], numbers["wrong"]) == (1, 1, [])
    assert numbers["duplicates_joined"] >= 1
    assert numbers["cached_replies"] >= 60
    assert numbers["lines"] == sum(range(60)) + 100 + 1
    assert numbers["bytes"] == sum(path.stat().st_size for path in files.rglob("*")
                                   if path.is_file() and not path.is_symlink()
                                   and path.name != "huge" and ".hidden" not in path.parts)  # fmt: skip


def test_table_and_messages(cli, files):
    result = cli("demo", str(files))
    assert "66 of 66 answers equal a direct computation" in result.stdout
    assert "retries            1\n" in result.stdout
    assert "on temporary files" in result.stderr
    assert "checking: 66" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_files(data, tmp_path, number):
    root = tmp_path / "few"
    root.mkdir()
    for name in range(number):
        (root / str(name)).write_text("x")
    numbers = data("demo", str(root))
    assert (numbers["verified"], numbers["wrong"]) == (number, [])


def test_on_a_shared_store_it_leaves_nothing_behind(data, files, store):
    assert data("demo", str(files), "-s", store)["verified"] == 66
    assert [queue for queue in data("stats", "-s", store)["queues"] if any(
        queue[state] for state in ("queued", "completed", "failed", "cancelled", "scheduled")
    )] == []  # fmt: skip


def test_interrupted_it_leaves_no_jobs_that_nobody_will_run(spawn, data, made):
    process = spawn("demo", "--concurrency", "1", "--max-files", "1000", "-s", made)
    process.expect("^A job on")
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.lines["err"][-1] == "Error: interrupted"
    assert "Traceback" not in "\n".join(process.lines["err"])
    for queue in data("stats", "-s", made, "--sample", "0")["queues"]:
        assert (queue["queued"], queue["scheduled"], queue["processing"]) == (0, 0, 0)


def test_the_standard_library_is_the_default(spawn):
    process = spawn("demo", "-o", "json", "--max-files", "300")
    assert process.wait() == 0
    numbers = json.loads(process.lines["out"][0])
    assert numbers["verified"] == 300
    assert Path(numbers["directory"], "asyncio").is_dir()


def test_on_a_terminal_it_shows_bars(files):
    terminal, inside = pty.openpty()
    command = [sys.executable, "-P", "-m", "jobqueue", "demo", str(files)]
    with subprocess.Popen(
        command, env=environ(TERM="xterm", COLUMNS="60"), stdin=inside, stdout=inside, stderr=inside
    ) as process:
        os.close(inside)
        shown = b""
        with suppress(OSError):  # how a terminal says that its last user has gone
            while chunk := os.read(terminal, 65536):
                shown += chunk
    os.close(terminal)
    assert process.returncode == 0
    text = shown.decode()
    assert "66/66" in text
    assert "66 of 66 answers" in text
    assert "\x1b[3" not in text  # NO_COLOR


@pytest.mark.parametrize("make", [lambda _: None, lambda root: root.mkdir()])
def test_no_files(cli, tmp_path, make):
    root = tmp_path / "none"
    make(root)
    assert cli("demo", str(root), code=2).stdout == ""


@pytest.mark.parametrize("url", ["redis://user:sec/ret@localhost", "redis://user:sec#ret@localhost"])
def test_a_password_with_special_characters_is_not_shown(cli, files, url):
    result = cli("demo", str(files), "-s", url, code=2)
    assert "%2F" in result.stderr
    assert "sec" not in result.stderr + result.stdout


@pytest.mark.parametrize("url", ["jobs", "user:secret@localhost"])
def test_a_storage_without_a_kind(cli, url):
    result = cli("status", "a", "-s", url, code=2)
    assert "begins with its kind and ://: use one of ./directory, file:///directory" in result.stderr
    assert url not in result.stderr


def test_a_wrong_answer_is_found(cli, files, monkeypatch):
    truth = measure(files / "binary")

    class Lie(Tally):
        def answer(self):
            answer = super().answer()
            return {**answer, "words": answer["words"] + 1} if answer == truth else answer

    monkeypatch.setattr(scenario, "Tally", Lie)
    result = cli("demo", str(files), "-o", "json", code=1)
    assert "binary: answered" in result.stderr
    assert len(json.loads(result.stdout)["wrong"]) == 1


def found(root: Path) -> Found:
    return find_files(root, 1000)


def observed(**changes) -> Observed:
    answers = {"a": None, "b": {"sha256": "", "lines": 1, "words": 1, "bytes": 1}}
    return Observed(
        **{"answers": answers, "runs": Counter(a=1, b=2), "retries": 1, "cancelled": 1, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answers": {"a": None}}, "b: no answer"),
        ({"answers": {"a": None, "b": None}}, "b: answered None"),
        ({"runs": Counter(a=2, b=2)}, "a: ran 2 times instead of 1"),
        ({"runs": Counter(a=1, b=1)}, "b: ran 1 times instead of 2"),
        ({"differing": {"a"}}, "a: two callers"),
        ({"retries": 0}, "0 retries"),
        ({"cancelled": 0}, "cancelled"),
        ({"runs": Counter({"a": 1, "b": 2, scenario.CANCELLED_ID: 1})}, "cancelled"),
    ],
)
def test_what_is_wrong_is_told(changes, says):
    expected = Expected(dict(observed().answers))
    assert judge(observed(), expected, "b").wrong == ()
    (wrong,) = judge(observed(**changes), expected, "b").wrong
    assert says in wrong


def test_a_file_that_changes_meanwhile_is_no_defect(files):
    seen, listed = found(files), next(file for file in found(files).files if file.path.name == "binary")
    assert not listed.changed()
    listed.path.write_text("something else")
    assert listed.changed()
    expected = direct(seen, silent)
    id = job_id(files, listed.path)
    assert expected.changed == {id}
    old = dict.fromkeys(expected.answers) | expected.answers | {id: {"sha256": "old"}}
    verdict = judge(Observed(answers=old, runs=Counter(expected.answers.keys()), retries=1, cancelled=1),
                    expected, "")  # fmt: skip
    assert (verdict.changed, verdict.wrong) == (1, ())


def test_a_file_that_cannot_be_read_fails_its_job(files):
    import asyncio

    from jobqueue.storage.memory import MemoryStorage

    listed = found(files)
    listed.files.insert(0, File(files / "was here", 0, 0))
    made = scenario.Scenario(MemoryStorage(), listed, 4, silent)
    seen = asyncio.run(made.run())
    verdict = judge(seen, direct(listed, silent), made.stumbling)
    assert (verdict.unreadable, verdict.wrong) == (1, ())


def test_directories_that_cannot_be_listed_are_counted(files, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("sub dir"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found(files).skipped["unreadable"] == 1


def test_measure_is_what_wc_and_sha256sum_say(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one two\n\xff three")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert measure(path) == {"sha256": digest, "lines": 1, "words": 4, "bytes": 15}


@given(pieces=st.lists(st.text("a \n\u00e9", max_size=4).map(str.encode)))
def test_pieces_are_counted_like_the_whole(tmp_path_factory, pieces):
    path, tally = tmp_path_factory.getbasetemp() / "pieces", Tally()
    path.write_bytes(b"".join(pieces))
    for piece in pieces:
        tally.add(piece)
    assert tally.answer() == measure(path)


def test_any_path_can_be_packed_and_named(files):
    paths = [file.path for file in found(files).files]
    assert [unpack(pack(path)) for path in paths] == paths
    ids = {job_id(files, path) for path in paths}
    assert len(ids) == len(paths)
    assert all(len(id.encode()) <= 256 and id.isprintable() for id in ids)
    long = files / ("é" * 100) / ("é" * 100)
    assert len(job_id(files, long)) == 256
    assert job_id(files, long) != job_id(files, long.with_name("e" + "é" * 100))
