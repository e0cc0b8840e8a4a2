"""Charts as SVG. Colours and widths of lines are classes of the stylesheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

__all__ = ["area_chart", "sparkline", "stacked_bar"]

_PAD = 2.0


def sparkline(values: Sequence[float], label: str, width: int = 120, height: int = 28) -> Markup:
    """Draw a line with its area, without axes; an empty text for fewer than two values."""
    if len(values) < 2:
        return Markup()
    line, area = _paths(values, width, height, max(values) or 1.0)
    return _svg("spark", label, width, height) + _path("area", area) + _path("line", line) + Markup("</svg>")


def area_chart(
    series: Sequence[tuple[str, Sequence[float]]], label: str, width: int = 640, height: int = 150
) -> Markup:
    """Draw several lines over each other on one scale, which begins at zero. The first gets an area."""
    longest = max((len(values) for _, values in series), default=0)
    if longest < 2:
        return Markup()
    top = max((max(values, default=0.0) for _, values in series), default=0.0) or 1.0
    parts = _svg("chart", label, width, height)
    for share in (0.0, 0.5, 1.0):
        y = f"{_PAD + (height - 2 * _PAD) * share:.1f}"
        parts += Markup('<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/>').format(width, y, y)
    for place, (name, values) in enumerate(series):
        if len(values) < 2:
            continue
        line, area = _paths(values, width, height, top)
        if not place:
            parts += _path(f"area {name}", area)
        parts += _path(f"line {name}", line)
    return parts + Markup("</svg>")


def stacked_bar(parts: Iterable[tuple[str, int]], label: str, width: int = 200, height: int = 8) -> Markup:
    """Draw shares of a whole beside each other; each that is not zero can be seen."""
    shown = [(name, number) for name, number in parts if number > 0]
    total = sum(number for _, number in shown)
    svg = _svg("bar", label, width, height)
    least = 3.0
    room = width - least * len(shown)
    x = 0.0
    for name, number in shown:
        share = least + room * number / total
        svg += Markup('<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="{}"/>').format(
            escape(name), x, max(0.5, share - 1.0), height
        )
        x += share
    if not shown:
        svg += Markup('<rect class="none" x="0" y="0" width="{}" height="{}"/>').format(width, height)
    return svg + Markup("</svg>")


def _svg(kind: str, label: str, width: int, height: int) -> Markup:
    return Markup(
        '<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">'
    ).format(kind, label, width, height)


def _path(kind: str, points: str) -> Markup:
    return Markup('<path class="{}" d="{}" vector-effect="non-scaling-stroke"/>').format(kind, points)


def _paths(values: Sequence[float], width: int, height: int, top: float) -> tuple[str, str]:
    step = width / (len(values) - 1)
    points = [
        f"{place * step:.1f} {height - _PAD - (height - 2 * _PAD) * min(1.0, max(0.0, value) / top):.1f}"
        for place, value in enumerate(values)
    ]
    line = "M" + "L".join(points)
    return line, f"{line}L{width} {height}L0 {height}Z"
