"""Links within the docs lead somewhere, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.doc_pages import DOCS, PAGES, ROOT, anchors, name, prose

_PATH = re.compile(r"`((?:jobqueue|lua|tests|docs|bench)/[\w./-]*)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return _LINK.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / unquote(target)).resolve() if target else page
        found = file.is_relative_to(ROOT) and file.exists()
        if not found or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            broken.append(link)
    assert not broken


def test_every_page_is_reachable_from_the_index() -> None:
    reached, todo = set[Path](), [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        if page in reached or page not in PAGES:
            continue
        reached.add(page)
        todo += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if ":" not in link]
    unreached = {name(page) for page in PAGES} - {name(page) for page in reached} - {"README.md"}
    assert not unreached


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    assert [path for path in _PATH.findall(page.read_text()) if not (ROOT / path).exists()] == []
