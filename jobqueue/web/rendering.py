"""Templates, and what they can call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup

from jobqueue import __version__
from jobqueue.web import text
from jobqueue.web.assets import asset_path

__all__ = ["base_path", "render", "url_maker"]


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("jobqueue.web"),
        autoescape=True,
        finalize=text.finalized,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "anchor": text.anchor,
        "clip": text.clip,
        "compact": text.compact,
        "number": text.count,
        "span": text.span,
    }
    return made


def base_path(root_path: str) -> str:
    """Return the path under which the dashboard stands, for links: empty, or with one slash in front.

    A second slash would make the next segment the name of a host.
    """
    path = root_path.strip("/")
    return f"/{quote(path)}" if path else ""


def url_maker(base: str) -> Callable[..., str]:
    """Return what makes the address of a page: ``url("job", queue="mail", id="a/b")``."""

    def url(page: str, /, **query: object) -> str:
        given = {name: str(value) for name, value in query.items() if value not in {None, ""}}
        encoded = f"?{urlencode(given, quote_via=quote, errors='replace')}" if given else ""
        return f"{base}/{page}{encoded}"

    return url


def render(template: str, base: str, now: float, **data: Any) -> str:
    """Fill in a template. ``now`` in seconds is that of the store."""
    at = datetime.fromtimestamp(now, UTC)

    def asset(name: str) -> str:
        return f"{base}{asset_path(name)}"

    def time(instant: datetime | None) -> Markup:
        return _time(instant, at)

    filled = _environment().get_template(template)
    return filled.render(url=url_maker(base), asset=asset, time=time, now=at, version=__version__, **data)


def _time(instant: datetime | None, at: datetime) -> Markup:
    """Return an instant as people read it, with the exact one behind it."""
    if instant is None:
        return Markup('<span class="none">{}</span>').format(text.DASH)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        instant.isoformat(timespec="milliseconds"), text.instant_text(instant), text.ago_or_in(instant, at)
    )
