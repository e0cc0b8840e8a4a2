"""The stylesheet and the scripts: a fixed set of files, whose addresses change with their content."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

__all__ = ["asset", "asset_path"]

_TYPES = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def _read(name: str) -> tuple[bytes, str]:
    data = files("jobqueue.web").joinpath("static", name).read_bytes()
    return data, hashlib.sha256(data).hexdigest()[:12]


def asset_path(name: str) -> str:
    """Return the path of a file below the root path."""
    return f"/static/{_read(name)[1]}/{name}"


async def asset(request: Request) -> Response:
    """Answer with a file."""
    name = request.path_params["name"]
    if name not in _TYPES:
        return PlainTextResponse("no such file\n", 404)
    data, version = _read(name)
    # An address of another release, on a page that is still open: it gets the file of this one.
    caching = (
        "public, max-age=31536000, immutable" if request.path_params["version"] == version else "no-cache"
    )
    return Response(data, headers={"Content-Type": _TYPES[name], "Cache-Control": caching})
