"""Draws the layers of the package into ``layers.svg``: ``python docs/internals/draw_layers.py``.

They come from the contract in pyproject.toml that import-linter checks, so that the picture cannot say
anything else. A room that has several layers is drawn at each.
"""

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_name("layers.svg")
WIDTH, ROW, GAP, LETTER = 920, 30, 6, 6.9
SHOWN = (
    f'width="{WIDTH}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-labelledby="title"'
)


def layers() -> list[list[str]]:
    """Return the rooms of each layer, top first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract, *_ = config["tool"]["importlinter"]["contracts"]
    return [[name.strip() for name in layer.replace(":", "|").split("|")] for layer in contract["layers"]]


def drawn() -> str:
    """Return the picture."""
    rows = layers()
    height = len(rows) * (ROW + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {SHOWN}>',
        '  <title id="title">The layers of jobqueue: each imports from those below it only</title>',
        f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, names in enumerate(rows):
        y = GAP + place * (ROW + GAP)
        texts = [name.removeprefix("jobqueue.") for name in names]
        free = WIDTH - GAP - sum(len(text) * LETTER + GAP for text in texts)
        x = float(GAP)
        for name, text in zip(names, texts, strict=True):
            width = len(text) * LETTER + free / len(texts)
            colour = "#f0fdf4" if name.startswith("jobqueue.storage") else "#eff6ff"
            parts.append(
                f'  <rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW}" rx="4" fill="{colour}" '
                'stroke="#94a3b8"/>'
            )
            parts.append(
                f'  <text x="{x + width / 2:.0f}" y="{y + 19}" text-anchor="middle" fill="#1e293b">'
                f"{escape(text)}</text>"
            )
            x += width + GAP
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawn())
