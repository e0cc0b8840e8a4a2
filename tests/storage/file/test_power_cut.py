"""A power cut on a real filesystem: an image mounted over a loop device, copied while it is in use.

The copy is what the disk has at that moment; what is still in the caches above it is not in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobqueue.storage.file import FileStorage
from tests.storage.file.test_processes import ROOT, hold_against

MORE = int(os.environ.get("JOBQUEUE_TEST_MORE", "1"))
TOOLS = ("mount", "umount", "mkfs.ext4")

pytestmark = [
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting an image needs root"),
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"),
]


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[None]:
    point.mkdir(exist_ok=True)
    tried = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"an image cannot be mounted here: {tried.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def cut_power(tmp_path: Path, fsync: str, stored: int) -> tuple[Path, list[dict[str, str]]]:
    """Run a process until it has stored so many jobs; return the disk as it is then, and what was said."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(image, tmp_path / "disk"):
        program = [
            sys.executable,
            "-m",
            "tests.storage.file.process",
            "insert_forever",
            tmp_path / "disk" / "store",
        ]
        process = subprocess.Popen(
            [*map(str, program), "p", str(1 << 20), fsync], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout as lines:
            said = [json.loads(next(lines)) for _ in range(stored)]
            shutil.copyfile(image, tmp_path / "after.img")
            process.kill()
        process.wait()
    return tmp_path / "after.img", said


async def recover(directory: Path, said: list[dict[str, str]]) -> None:
    store = FileStorage(directory)
    await store.open()
    try:
        await hold_against(store, said)
    finally:
        await store.close()


@pytest.mark.parametrize("stored", [60 + 20 * number for number in range(2 * MORE)])
def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, stored: int) -> None:
    image, said = cut_power(tmp_path, "fsync", stored)
    with mounted(image, tmp_path / "after"):
        asyncio.run(recover(tmp_path / "after" / "store", said))


def test_without_fsync_it_is(tmp_path: Path) -> None:
    """So the test above would notice."""
    image, said = cut_power(tmp_path, "no-fsync", 200)
    with mounted(image, tmp_path / "after"), pytest.raises(Exception):  # noqa: B017, PT011, PT012
        assert (tmp_path / "after" / "store").exists()
        asyncio.run(recover(tmp_path / "after" / "store", said))
