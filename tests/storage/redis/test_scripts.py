"""The scripts: header, code and use agree, and an installation has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobqueue.model.outcomes import EXPIRED_ERROR
from jobqueue.storage.redis import scripted_calls as steps
from jobqueue.storage.redis.keys import DocumentKeys, QueueKeys
from jobqueue.storage.redis.net.scripts import script, script_names

LUA = Path(__file__).parents[3] / "lua"
NAMES = script_names()


def test_there_are_scripts() -> None:
    assert {"insert", "exchange", "extend", "sweep", "lock_acquire"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_is_complete(name: str) -> None:
    text = (LUA / f"{name}.lua").read_text()
    lines = text.splitlines()
    assert re.fullmatch(r"#!lua( flags=[a-z,-]+)?", lines[0])
    assert lines[1].startswith(f"-- {name}: ")
    for field in ("KEYS", "ARGV", "Returns", "Invariants"):
        assert re.search(rf"^-- {field}: ", text, re.MULTILINE), field
    assert re.search(r"^-- ARGV: now\b", text, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_named_as_in_the_header(name: str) -> None:
    text = (LUA / f"{name}.lua").read_text()
    keys = script(name).keys
    assert keys == ("lock",) or any(set(keys) <= set(kind._fields) for kind in (QueueKeys, DocumentKeys))
    bound = re.search(r"^local ([\w, ]+) =\s+((?:KEYS\[\d+\],?\s*)+)$", text, re.MULTILINE)
    if bound is None:
        assert name in {"lock_holder", "to_sweep"}  # one key; those of many queues
        return
    assert tuple(bound[1].split(", ")) == keys
    assert [int(n) for n in re.findall(r"\d+", bound[2])] == list(range(1, len(keys) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_only_declared_keys_are_touched(name: str) -> None:
    code = "\n".join(
        line.partition("--")[0] for line in script(name).text.decode().splitlines() if "#!" not in line
    )
    literal = re.findall(r"call\('[A-Z]+', *'([^']+)'", code)
    assert literal == []  # no key is spelled out
    assert "KEYS[#" not in code


@pytest.mark.parametrize("name", ["exchange", "expire"])
def test_a_script_fails_late_jobs_with_the_error_that_all_stores_write(name: str) -> None:
    assert f"'{EXPIRED_ERROR.decode()}'" in script(name).text.decode()


@pytest.mark.parametrize("name", NAMES)
def test_numbers_stand_where_their_names_stood(name: str) -> None:
    text = script(name).text.decode()
    assert re.findall(r"^ *local [A-Z_]+(?:, [A-Z_]+)* =\s+\d+\b.*", text, re.MULTILINE) == []
    code = re.sub(r"'(?:[^'\\]|\\.)*'|--.*", "", text)
    assert re.findall(r"\b(?:KEPT|BUDGET|FENCE|SHORT_BODY)\b", code) == []


def test_every_script_has_one_stub_and_every_stub_a_script() -> None:
    source = Path(steps.__file__).read_text()
    used = re.findall(r'(?:self\._(?:call|call_documents|lock)|script)\(\s*"(\w+)"', source)
    assert sorted(set(used)) == sorted(NAMES)


def test_writes_that_free_memory_are_allowed_at_maxmemory() -> None:
    for name in NAMES:
        first = (LUA / f"{name}.lua").read_text().splitlines()[0]
        assert ("allow-oom" in first) is (name not in {"insert", "documents_write"})


def test_older_servers_get_the_first_line_as_a_comment() -> None:
    for name in NAMES:
        assert script(name).plain.startswith(b"--#!lua")
        assert script(name).plain_sha != script(name).sha


def test_the_check_of_rights_tries_every_command_of_the_scripts() -> None:
    used = {
        command
        for name in NAMES
        for command in re.findall(r"\bcall\('([A-Z]+)'", script(name).text.decode())
        if name != "rights"
    }
    tried = re.findall(r"\btry\('([A-Z]+)'", script("rights").text.decode())
    assert sorted(tried) == sorted(used)
