"""The page and its files, read once and held in memory."""

from __future__ import annotations

from functools import cache
from importlib import resources

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from fieldmark.serving.http_errors import Refused
from fieldmark.utils import io

router = APIRouter(include_in_schema=False)

_KINDS = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
async def static(request: Request, name: str) -> Response:
    """What the page is made of."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    if name not in _KINDS:
        raise Refused(404, "not-found", "There is nothing here.")
    data, tag = _read(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=_KINDS[name], headers=headers)


@cache
def _read(name: str) -> tuple[bytes, str]:
    data = (resources.files("fieldmark.serving") / "static" / name).read_bytes()
    return data, f'"{io.sha256(data)[:16]}"'
