"""Error replies of Redis: which code they carry, also from inside a script, and what it means."""

from __future__ import annotations

import pytest

from jobqueue import QueueFullError, StorageError, StorageUnavailableError
from jobqueue.storage.redis.net.faults import RefusedError, Remedy, code_of, error_for, remedy_for

SCRIPT_62 = (
    "ERR Error running script (call to f_079e9d10dcb80d199f50a2cd0f960dde5fe4aceb): "
    "@user_script:351: @user_script: 351: "
)
SCRIPT_70 = " script: 079e9d10dcb80d199f50a2cd0f960dde5fe4aceb, on @user_script:351."


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("OOM command not allowed when used memory > 'maxmemory'." + SCRIPT_70, "OOM"),
        (SCRIPT_62 + "-OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("READONLY You can't write against a read only replica." + SCRIPT_70, "READONLY"),
        (SCRIPT_62 + "-READONLY You can't write against a read only replica.", "READONLY"),
        (SCRIPT_62 + "WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        ("ERR max number of clients reached", "MAXCLIENTS"),
        ("ERR Protocol error: unauthenticated multibulk length", "NOAUTH"),
        ("ERR The user executing the script can't run this command or subcommand" + SCRIPT_70, "NOPERM"),
        ("NOPERM this user has no permissions to run the 'time' command", "NOPERM"),
        ("ERR unknown command 'NONSENSE'", "UNKNOWN"),
        ("ERR unknown command `nonsense`", "UNKNOWN"),
        ("ERR unknown subcommand 'SETNAME'. Try CLIENT HELP.", "UNKNOWN"),
        ("ERR Unknown Redis command called from script" + SCRIPT_70, "UNKNOWN"),
        (SCRIPT_62 + "Unknown Redis command called from Lua script", "UNKNOWN"),
        ("ERR unsupported command 'INFO'", "UNKNOWN"),
        ("ERR Command is not available: 'CLIENT'. See https://example.com", "UNKNOWN"),
        ("ERR wrong number of arguments for 'get' command", "ERR"),
        ("no code at all", "ERR"),
    ],
)
def test_the_code_of_a_reply(message: str, code: str) -> None:
    assert code_of(message) == code


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("OOM", QueueFullError),
        ("READONLY", StorageUnavailableError),
        ("LOADING", StorageUnavailableError),
        ("MISCONF", StorageUnavailableError),
        ("NOPERM", RefusedError),
        ("WRONGTYPE", StorageError),
        ("MOVED", StorageError),
        ("ERR", StorageError),
    ],
)
def test_what_remains_of_it(code: str, kind: type[Exception]) -> None:
    error = error_for(code, f"{code} details", "Redis at example:6379/0: insert")
    assert type(error) is kind
    assert "example:6379/0: insert" in str(error)
    assert "details" in str(error)


@pytest.mark.parametrize(
    ("code", "message", "says"),
    [
        (
            "ERR",
            "ERR DB index is out of range",
            "INFO: ERR DB index is out of range. The server has `databases`",
        ),
        ("WRONGPASS", "WRONGPASS user is disabled.", "user is disabled. Give the user and password"),
    ],
)
def test_it_tells_the_remedy(code: str, message: str, says: str) -> None:
    assert says in str(error_for(code, message, "Redis at example:6379/0: INFO"))


def test_only_what_can_pass_is_repeated() -> None:
    assert {
        code
        for code in ("OOM", "NOPERM", "WRONGTYPE", "MISCONF", "ERR")
        if remedy_for(code) is not Remedy.RAISE
    } == set()
