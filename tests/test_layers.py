"""The layers of the package: each imports only downward, and every module has its place."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jobqueue

ROOT = Path(__file__).parent.parent
PACKAGES = {"jobqueue", "jobqueue.storage"}
"""They only hold others."""


def layers() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = config["tool"]["importlinter"]["contracts"]
    return [name.strip() for layer in contract["layers"] for name in layer.replace(":", "|").split("|")]


def modules() -> set[str]:
    found = pkgutil.walk_packages(jobqueue.__path__, "jobqueue.", onerror=lambda name: None)
    return {module.name for module in found} - PACKAGES


def test_imports_go_downward() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 kept, 0 broken" in run.stdout


def test_every_module_is_in_one_layer_and_every_layer_is_a_module() -> None:
    listed, known = layers(), modules()
    assert len(set(listed)) == len(listed)
    assert set(listed) <= known, "a layer names a module that is gone"
    homeless = {name for name in known if not any(f"{name}.".startswith(f"{layer}.") for layer in listed)}
    assert homeless == set(), "add it to the layers in pyproject.toml"
