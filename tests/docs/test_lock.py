"""The lock file has every package that the project asks for, in a version that it allows."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.doc_pages import ROOT

LOCK: dict[str, Any] = tomllib.loads((ROOT / "pylock.toml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def asked() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    lists = [PROJECT["dependencies"], *extras.values()]
    return [Requirement(text) for each in lists for text in each if not text.startswith("jobqueue[")]


def test_every_package_is_locked_in_a_version_that_is_allowed() -> None:
    locked = {package["name"]: package["version"] for package in LOCK["packages"]}
    for requirement in asked():
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: run .ci/lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: run .ci/lock"


def test_every_package_comes_with_a_hash_from_the_index() -> None:
    assert LOCK["lock-version"] == "1.0"
    for package in LOCK["packages"]:
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        assert files, package["name"]
        for file in files:
            assert file["url"].startswith("https://files.pythonhosted.org/packages/")
            assert re.fullmatch(r"[0-9a-f]{64}", file["hashes"]["sha256"])
