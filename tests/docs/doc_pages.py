"""The README and the pages of docs/, as tests see them: text, fenced blocks, tables and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL
)
_ROW = re.compile(r"^\|(.+)\|\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block. The first word of its info string is the language, the others are options."""

    page: Path
    line: int
    """Of the first line of code."""
    language: str
    options: frozenset[str]
    code: str

    @property
    def file(self) -> str | None:
        """Name of the file that the block shows, from ``file=NAME``."""
        names = [option.removeprefix("file=") for option in self.options if option.startswith("file=")]
        return names[0] if names else None

    def compiled(self) -> object:
        """Compile the code, with the line numbers of the page."""
        return compile("\n" * (self.line - 1) + self.code, str(self.page), "exec", dont_inherit=True)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        words = match["info"].split()
        line = text.count("\n", 0, match.start("code")) + 1
        language = words[0] if words else ""
        found.append(Block(page, line, language, frozenset(words[1:]), match["code"]))
    return found


def needs(page: Path) -> list[str]:
    """Return the third-party packages that the examples import, from a comment ``needs: NAME NAME``."""
    match = re.match(r"<!-- needs: (.+) -->\n", page.read_text())
    return match[1].split() if match else []


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ +(.+?)\s*$", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, made from its headings as GitHub makes them."""
    seen: dict[str, int] = {}
    found = set()
    for heading in headings(page):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def section(page: Path, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    lines, level, taken = page.read_text().splitlines(), 0, []
    for line in lines:
        match = re.match(r"(#+) +(.+?)\s*$", line)
        if match and level and len(match[1]) <= level:
            break
        if level:
            taken.append(line)
        elif match and match[2] == heading:
            level = len(match[1])
    assert level, f"{name(page)} has no heading {heading!r}"
    return "\n".join(taken)


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows, without headers."""
    found: list[list[str]] = []
    for line in text.splitlines():
        match = _ROW.match(line)
        if not match:
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", match[1])]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found.pop()  # what stood above the rule was the header
        else:
            found.append(cells)
    return found


def code(cell: str) -> list[str]:
    """Return what a cell or sentence has in backticks."""
    return re.findall(r"`([^`]+)`", cell)
