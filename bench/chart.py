"""Bar charts as SVG, without a dependency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, BAR, GAP, HEAD = 460, 132, 16, 6, 44
"""Of a panel: width, room for the names, height of a bar, room between bars, height of the heading."""
MARGIN, TITLE = 24, 64
OURS, OTHERS, INK, PALE = "#2563eb", "#a8b3c4", "#1e293b", "#64748b"


@dataclass(frozen=True)
class Panel:
    """One measurement of several libraries; the first is this one."""

    title: str
    note: str
    bars: Sequence[tuple[str, float | None]]
    """Name and value; ``None`` where a library has no such thing."""


def chart(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """Draw panels in two columns."""
    rows = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    parts = [
        _text(MARGIN, 34, title, size=18, weight=600),
        _text(MARGIN, 54, subtitle, size=12, colour=PALE),
    ]
    top = TITLE
    for row in rows:
        for column, panel in enumerate(row):
            parts.append(_panel(panel, MARGIN + column * (WIDTH + MARGIN), top))
        top += max(HEAD + len(panel.bars) * (BAR + GAP) for panel in row) + MARGIN
    width = 3 * MARGIN + 2 * WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="{width}" height="{top}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(panel: Panel, x: int, y: int) -> str:
    most = max((value for _, value in panel.bars if value is not None), default=1.0) or 1.0
    room = WIDTH - LEFT - 76
    parts = [
        _text(x, y + 16, panel.title, size=14, weight=600),
        _text(x, y + 32, panel.note, size=11, colour=PALE),
    ]
    for place, (name, value) in enumerate(panel.bars):
        top = y + HEAD + place * (BAR + GAP)
        base = top + BAR - 4
        weight = 400 if place else 600
        parts.append(_text(x + LEFT - 8, base, name, size=12, anchor="end", weight=weight))
        if value is None:
            parts.append(_text(x + LEFT, base, "n/a", size=12, colour=PALE))
            continue
        length = max(1.0, room * value / most) if value else 0.0
        fill = OTHERS if place else OURS
        parts.append(f'<rect x="{x + LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" fill="{fill}"/>')
        parts.append(_text(x + LEFT + length + 6, base, number(value), size=12, weight=weight))
    return "\n".join(parts)


def number(value: float) -> str:
    """Write a value with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(
    x: float, y: float, text: str, *, size: int, colour: str = INK, weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
