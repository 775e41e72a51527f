"""What pages fetch beside themselves: tiles of a wall, pictures, reports and downloads."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.background import BackgroundTask

from fieldmark.app import exports, pictures, queues
from fieldmark.app.queues import Wall
from fieldmark.app.store import Project
from fieldmark.utils.errors import InputError

_MOST = 500
"""Tiles that are given at once."""
_KEPT = "private, max-age=86400"

walls: dict[str, Wall] = {}
"""The walls that pages show, by their keys; each page takes its own away."""


def add_routes(app: FastAPI, project: Project) -> None:
    """Add the routes; they are synchronous, so that each runs in a thread."""
    thumbnails = pictures.thumbnails_of(project.folder)

    @app.get("/wall/{key}")
    def wall(key: str) -> JSONResponse:
        if key not in walls:
            raise HTTPException(404)
        found = walls[key]
        return JSONResponse({"ids": found.ids, "groups": [asdict(each) for each in found.groups]})

    @app.get("/wall/{key}/tiles")
    def tiles(key: str, start: int, count: int) -> JSONResponse:
        if key not in walls or start < 0 or not 0 < count <= _MOST:
            raise HTTPException(404)
        return JSONResponse(queues.tiles(project, walls[key].ids[start : start + count]))

    @app.get("/thumb/{number}.jpg")
    def thumb(number: int) -> Response:
        photo = project.photo(number)
        data = pictures.thumbnail(thumbnails, photo.picture) if photo else None
        return _jpeg(data)

    @app.get("/photo/{number}.jpg")
    def large(number: int) -> Response:
        photo = project.photo(number)
        return _jpeg(pictures.large(photo) if photo else None)

    @app.get("/report/{name}/report.html")
    def report(name: str) -> FileResponse:
        path = project.folder / "classifiers" / name / "report.html"
        if not name.isdecimal() or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type="text/html")

    @app.get("/download/{form}")
    def download(form: str, request: Request) -> Response:
        days = request.query_params.get("days", "7")
        options: dict[str, Any] = {"species": request.query_params.get("species", "")}
        options["days"] = int(days) if days.isdecimal() and int(days) > 0 else 7
        folder = tempfile.TemporaryDirectory()
        try:
            path = Path(folder.name) / exports.FORMATS.get(form, (form, ""))[0]
            exports.export(project, form, path, **options)
        except InputError as error:
            folder.cleanup()
            raise HTTPException(400, str(error)) from error
        return FileResponse(path, filename=path.name, background=BackgroundTask(folder.cleanup))


def _jpeg(data: bytes | None) -> Response:
    if data is None:
        raise HTTPException(404, "The photo cannot be read.")
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": _KEPT})
