"""What a person sees on a terminal: tables that fit, questions, colours, completion."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete

from jobqueue import Fatal, Job, JobFailedError, Queue
from jobqueue.cli import choosing
from jobqueue.cli.main import main
from tests.cli.processes import BOUND, ROOT, environ
from tests.cli.terminals import Terminal, shown

STYLE = re.compile(r"\x1b\[[\d;]*m")
AGE = re.compile(r"\d+(\.\d)? s ago")


def steady(text: str) -> str:
    """Return the text with one age in place of all, and without the blanks that other ages would need."""
    return re.sub(r" +\n", "\n", AGE.sub("NOW", STYLE.sub("", text)))


TOLD = "the picture is broken, and this is told in many words"


async def fill(url: str) -> None:
    def work(job: Job[bool]) -> None:
        if not job.payload:
            raise Fatal(TOLD)

    async with Queue[bool, None](url, worker_id="left") as queue:
        queue.execute(work)
        with contextlib.suppress(JobFailedError):
            await queue.enqueue_and_wait("thumb:42", payload=False, group="tenant:7")
        await queue.enqueue_and_wait("thumb:43", payload=True)
        await queue.enqueue("later", payload=True, delay=86_700)


@pytest.fixture
def jobs(store) -> str:
    """URL of a store with jobs of every kind."""
    asyncio.run(fill(store))
    return store


def test_a_wide_terminal_gets_a_table(jobs):
    text = steady(shown("job", "ls", "-s", jobs, columns=200))
    assert re.sub(r"  +", "  ", text) == """\
id  state  group  attempts  created  due  ended  reason  error
later  scheduled  -  0/3  NOW  in 24 h  -  -  -
thumb:43  completed  -  1/3  NOW  -  NOW  -  -
thumb:42  failed  tenant:7  1/3  NOW  -  NOW  fatal  jobqueue.Fatal: the picture is broken, and this is told in many words
"""  # fmt: skip  # noqa: E501


def test_where_it_is_narrower_the_error_is_cut(jobs):
    lines = STYLE.sub("", shown("dead", "ls", "-s", jobs, columns=100)).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("thumb:42  failed  tenant:7  1/3")
    assert re.search(r"  jobqueue\.Fatal: the .*…$", lines[1])
    assert all(len(line) <= 100 for line in lines)


def test_where_it_is_very_narrow_each_job_has_lines_of_its_own(jobs):
    assert (
        steady(shown("dead", "ls", "-s", jobs, columns=40))
        == """\
id        thumb:42
state     failed
group     tenant:7
attempts  1/3
created   NOW
ended     NOW
reason    fatal
error     jobqueue.Fatal: the picture is
          broken, and this is told in
          many words
"""
    )


def test_one_job_on_a_narrow_terminal(jobs):
    text = steady(shown("job", "show", "thumb:42", "-s", jobs, columns=50))
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-01-01 00:00:00", text)
    assert (
        re.sub(r"\(in .*\)", "(in 60 min)", text)
        == """\
id         thumb:42
state      failed
group      tenant:7
created    2026-01-01 00:00:00 UTC (NOW)
changed    2026-01-01 00:00:00 UTC (NOW)
forgotten  2026-01-01 00:00:00 UTC (in 60 min)
attempts   1 of 3
payload    false
reason     fatal
error      jobqueue.Fatal: the picture is broken,
           and this is told in many words

attempt  1
failed   NOW
worker   left
reason   fatal
error    jobqueue.Fatal: the picture is broken,
         and this is told in many words
"""
    )


def test_states_have_colours_unless_they_are_unwanted(jobs):
    assert "\x1b[31mfailed" in shown("dead", "ls", "-s", jobs, NO_COLOR="")
    assert "\x1b[31m" not in shown("dead", "ls", "-s", jobs)


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y\n", 0, 2), ("n\n", 1, 3), ("\n", 1, 3), ("\x04", 1, 3)]
)
def test_a_change_of_many_is_asked_about(jobs, data, answer, code, left):
    terminal = Terminal("dead", "rm", "--all", "-s", jobs)
    terminal.read_until(r"Remove 1 job of queue default\? \[y/N\]: ")
    terminal.type(answer)
    assert terminal.wait() == code
    assert ("1 job removed" if code == 0 else "Error: nothing was changed") in terminal.text
    assert len(data("job", "ls", "-s", jobs)["jobs"]) == left


def test_nothing_is_asked_about_no_job(made):
    assert shown("dead", "rm", "--all", "-s", made) == "0 jobs removed\n"


def test_ctrl_c_at_the_question_is_an_interrupt(monkeypatch):
    def interrupted(*_: object, **__: object) -> bool:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise click.Abort from None  # as click does

    monkeypatch.setattr(choosing, "_can_ask", lambda: True)
    monkeypatch.setattr(click, "confirm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choosing.confirm("Remove 1 job?")


def test_the_directory_of_a_store_is_completed():
    completing = BashComplete(main, {}, "jobqueue", "_JOBQUEUE_COMPLETE")
    (offered,) = completing.get_completions(["job", "ls", "-s"], "./jo")
    assert (offered.type, offered.value) == ("dir", "./jo")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("jobqueue jo", {"job"}),
        ("jobqueue job ", {"ls", "show", "cancel", "retry", "rm", "watch"}),
        ("jobqueue job ls --created-", {"--created-before", "--created-after"}),
        ("jobqueue job ls --state f", {"failing", "failed"}),
        ("jobqueue completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes(tmp_path, line, offered):
    command = tmp_path / "jobqueue"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m jobqueue "$@"\n')
    command.chmod(0o755)
    words = line.split(" ")
    script = (
        'eval "$(jobqueue completion bash)"; '
        f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words) - 1}; COMPREPLY=(); "
        '_jobqueue_completion jobqueue; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = environ()
    ended = subprocess.run(
        ["bash", "-c", script], env={**env, "PATH": f"{tmp_path}:{env['PATH']}"}, cwd=ROOT,
        capture_output=True, text=True, timeout=BOUND, check=True,
    )  # fmt: skip
    assert offered <= set(ended.stdout.split()), ended.stderr
