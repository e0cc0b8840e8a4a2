"""The layers of the package: each imports only downward, and every module has its place."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jobqueue

ROOT = Path(__file__).parent.parent
PACKAGES = {"jobqueue", "jobqueue.observe", "jobqueue.storage"}
"""They only hold others."""


def layers() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract, *_ = config["tool"]["importlinter"]["contracts"]
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
    assert ", 0 broken" in run.stdout


def test_every_module_is_in_one_layer_and_every_layer_is_a_module() -> None:
    listed, known = layers(), modules()
    assert len(set(listed)) == len(listed)
    assert set(listed) <= known, "a layer names a module that is gone"
    homeless = {name for name in known if not any(f"{name}.".startswith(f"{layer}.") for layer in listed)}
    assert homeless == set(), "add it to the layers in pyproject.toml"


def exports() -> dict[str, set[str]]:
    """The names that each module lists in ``__all__``, but for lists that are made from others."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "jobqueue").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.Assign([ast.Name("__all__")], ast.List(names)):
                    found[name] = {ast.literal_eval(item) for item in names}
    return found


def test_a_module_lists_what_other_modules_import_from_it() -> None:
    listed, known = exports(), modules()
    assert len(listed) > 100
    del listed["jobqueue.errors"]  # lists the errors, which the reference shows; its helpers are our own
    unlisted = {
        f"{node.module}.{alias.name}"
        for path in (ROOT / "jobqueue").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in listed
        for alias in node.names
        if alias.name not in {"*", "__all__", *listed[node.module]}
    }
    assert unlisted - known == set()
