"""The documentation as a site: every page has its place, in one order."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("yaml")

import yaml

from tests.docs.doc_pages import DOCS, ROOT

SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def listed(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from listed(entry)


def test_every_page_is_in_the_navigation_once() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    found = list(listed(SITE["nav"]))
    assert set(found) - pages == set(), "it lists a page that is gone"
    assert pages - set(found) == set(), "add it to nav in mkdocs.yml"
    assert len(found) == len(set(found))


def test_the_order_is_learn_do_look_up_understand() -> None:
    assert [next(iter(entry)) for entry in SITE["nav"]] == ["Start", "Learn", "Do", "Look up", "Understand"]


def test_nothing_is_loaded_from_elsewhere_by_choice() -> None:
    assert SITE["docs_dir"] == "docs"
    assert not {"extra_javascript", "extra_css", "hooks"} & SITE.keys()


def test_the_picture_of_the_layers_is_drawn_from_them() -> None:
    script = DOCS / "internals" / "draw_layers.py"
    found = runpy.run_path(str(script))
    assert found["PICTURE"].read_text() == found["drawn"](), f"run `python {script.relative_to(ROOT)}`"
