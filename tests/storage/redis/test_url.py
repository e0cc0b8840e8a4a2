"""URLs: read as they are meant, or refused with a reason and without a word of what is in them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.errors import InvalidArgumentError
from jobqueue.storage.redis import RedisStorage
from jobqueue.storage.redis.net.url import Target, parse_url
from jobqueue.storage.urls import redact
from tests.services import Server

ODD = "iAI/T+ml7=#?@:%[]é ñ"


def read(url: str) -> dict[str, Any]:
    """Return what differs from a URL that says nothing."""
    target, plain = parse_url(url), parse_url("redis://")
    assert isinstance(target, Target)
    said, unsaid = content(target), content(plain)
    return {name: value for name, value in said.items() if value != unsaid[name]}


def content(target: Target) -> dict[str, Any]:
    login, sentinel = target.login, target.sentinel_login
    return {
        "kind": target.kind,
        "addresses": [tuple(address) for address in target.addresses],
        "service": target.service,
        "db": login.db,
        "username": login.username,
        "password": login.password,
        "sentinel_username": sentinel.username,
        "sentinel_password": sentinel.password,
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"addresses": [("localhost", 6379)]}),
        ("redis:///5", {"addresses": [("localhost", 6379)], "db": 5}),
        ("redis://:6380", {"addresses": [("localhost", 6380)]}),
        ("redis://h", {"addresses": [("h", 6379)]}),
        ("redis://HOST_1.Example.:1/2", {"addresses": [("host_1.example.", 1)], "db": 2}),
        ("redis://münchen.example", {"addresses": [("münchen.example", 6379)]}),
        ("redis://h/", {"addresses": [("h", 6379)]}),
        ("redis://h?db=3", {"addresses": [("h", 6379)], "db": 3}),
        ("redis://[::1]:7000/3", {"addresses": [("::1", 7000)], "db": 3}),
        ("redis://[::1]", {"addresses": [("::1", 6379)]}),
        ("redis://[fe80::1%25eth0]:7000", {"addresses": [("fe80::1%eth0", 7000)]}),
        ("redis://:p+w@h", {"addresses": [("h", 6379)], "password": "p+w"}),
        ("redis://:p w@h", {"addresses": [("h", 6379)], "password": "p w"}),
        ("redis://:a@b:c@h", {"addresses": [("h", 6379)], "password": "a@b:c"}),
        ("redis://user:@h", {"addresses": [("h", 6379)], "username": "user"}),
        ("redis://user@h", {"addresses": [("h", 6379)], "username": "user"}),
        ("redis://@h", {"addresses": [("h", 6379)]}),
        (
            f"redis://us%40er:{quote(ODD, safe='')}@h",
            {"addresses": [("h", 6379)], "username": "us@er", "password": ODD},
        ),
        ("unix:///tmp/a%20b.sock?db=4", {"kind": "unix", "addresses": [("/tmp/a b.sock", 0)], "db": 4}),
        (
            "unix://u:p@/tmp/s@1",
            {"kind": "unix", "addresses": [("/tmp/s@1", 0)], "username": "u", "password": "p"},
        ),
        ("valkey+cluster://a:1,b", {"kind": "cluster", "addresses": [("a", 1), ("b", 6379)]}),
        ("redis+cluster://a/0", {"kind": "cluster", "addresses": [("a", 6379)]}),
        (
            "redis+sentinel://a:1,[::1]/main/2",
            {"kind": "sentinel", "addresses": [("a", 1), ("::1", 26379)], "service": "main", "db": 2},
        ),
        (
            "redis+sentinel://a/main?sentinel_username=u&sentinel_password=a+b/c=%26",
            {
                "kind": "sentinel",
                "addresses": [("a", 26379)],
                "service": "main",
                "sentinel_username": "u",
                "sentinel_password": "a+b/c=&",
            },
        ),
    ],
)
def test_what_a_url_says(url: str, expected: dict[str, Any]) -> None:
    default = {"addresses": [("localhost", 6379)]}
    assert {**default, **read(url)} == expected


BAD = [
    "http://localhost",
    "redis:localhost",
    "redis://h:port",
    "redis://h:0",
    "redis://h:",
    "redis://h:70000",
    "redis://h:99999999999999999999",
    "redis://h:1:2",
    "redis://h:²",
    "redis://::1",
    "redis://[::1",
    "redis://[::g]",
    "redis://[1]",
    "redis://[::1]x",
    "redis://a..b",
    f"redis://{'a' * 64}.example",
    "redis://h ost",
    "redis://h\n",
    "redis://h\x00",
    "redis://h%20",
    "redis://a,b",
    "redis+cluster://a,,b",
    "redis+cluster://a,",
    "redis://h/zero",
    "redis://h/-1",
    "redis://h/²",
    "redis://h/\u0661",
    "redis://h/1/2",
    "redis://h/" + "9" * 5000,
    "redis://h/1?db=1",
    "redis://h?db=x",
    "redis://h?db=",
    "redis://h?db",
    "redis://h?=1",
    "redis://h?db=1&db=2",
    "redis://h?db=1&",
    "redis://h?db=1#part",
    "redis://h?decode_responses=1",
    "redis://h?sentinel_password=x",
    "redis://h?ssl_ca_certs=/etc/ca.pem",
    "redis://h?ssl_cert_reqs=none",
    "rediss://h?ssl_cert_reqs=perhaps",
    "rediss://h?ssl_include_verify_flags=NONE_OF_THEM",
    "rediss://h?ssl_min_version=x",
    "redis://h?socket_timeout=soon",
    "redis://h?socket_connect_timeout=0",
    "redis://h?retry_on_timeout=1",
    "unix:///tmp/socket?socket_keepalive=0",
    "rediss://h?ssl_ca_certs=/does/not/exist",
    "rediss://h?ssl_keyfile=/does/not/exist",
    "redis+cluster://h/2",
    "redis+cluster://h?db=2",
    "redis+sentinel://h",
    "redis+sentinel://h?db=1",
    "redis+sentinel://h/main/1/2",
    "unix://",
    "unix:///",
    "unix://tmp/socket",
    "unix:///tmp/socket?db=-1",
    7,
    None,
]


@pytest.mark.parametrize("url", BAD, ids=lambda url: str(url)[:40])
def test_bad_urls_are_refused_without_repeating_them(url: object) -> None:
    if isinstance(url, str):
        url = url.replace("://", "://user:hunter2@", 1)
    with pytest.raises(InvalidArgumentError, match="url") as raised:
        RedisStorage(url)  # type: ignore[arg-type]
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("reserved", "/?#[]")
def test_a_reserved_character_in_a_password_is_refused_with_the_remedy(reserved: str) -> None:
    for url in (f"redis://u:hunter2{reserved}x=1@h/0", f"redis://u:x{reserved}hunter2=1@h"):
        with pytest.raises(InvalidArgumentError, match="%2F %3F %23") as raised:
            parse_url(url)
        assert "hunter2" not in str(raised.value)
        assert "hunter2" not in redact(url)
    assert parse_url(f"redis://u:hunter2{quote(reserved, safe='')}@h").login.password == f"hunter2{reserved}"


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        parse_url("redis://:%FF@h")


@given(rest=st.text(max_size=30), scheme=st.sampled_from(["redis", "valkeys", "unix", "redis+sentinel"]))
def test_any_text_is_read_or_refused(rest: str, scheme: str) -> None:
    try:
        target = parse_url(f"{scheme}://{rest}")
    except InvalidArgumentError:
        return
    assert target.addresses


@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_quoted_user_and_password_are_read(user: str, password: str) -> None:
    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h/1"
    login = parse_url(url).login
    assert (login.username, login.password) == (user, password)


def test_a_password_without_host_is_not_shown() -> None:
    assert redact("redis://:hunter2") == "redis://***"
    assert redact("redis+cluster://a:1,b:2") == "redis+cluster://a:1,b:2"


def test_an_encrypted_key_is_refused_instead_of_asked_for(tmp_path: Path) -> None:
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", "key.pem", "-out", "cert.pem",
        "-days", "1", "-subj", "/CN=test", "-passout", "pass:secret",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with pytest.raises(InvalidArgumentError, match="TLS files"):
        parse_url(f"rediss://h?ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem")


async def test_a_user_without_a_password_is_that_user(server: Server) -> None:
    server.command("ACL", "SETUSER", "open", "on", "nopass", "allkeys", "allchannels", "+@all")
    storage = RedisStorage(f"redis://open@127.0.0.1:{server.port}")
    await storage.open()
    assert await storage._open_session().transport.command(b"ACL", b"WHOAMI") == b"open"
    await storage.close()
