"""Routes of the HTTP API and the web page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from fieldmark import __version__
from fieldmark.inference.classifier import Classifier
from fieldmark.serving import answers, http_errors, openapi, web_page
from fieldmark.serving.asked import Asked
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.http_errors import HttpError
from fieldmark.serving.middleware import RequestMiddleware
from fieldmark.serving.model import info
from fieldmark.serving.service import Service

Entry = TypeVar("Entry", answers.PhotoAnswer, answers.SimilarPhotos)

_static = StaticFiles(directory=Path(__file__).parent / "static")
_shared = StaticFiles(directory=Path(__file__).parents[1] / "reports" / "templates")
_templates = Jinja2Templates(Path(__file__).parent / "templates")

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.ErrorResponse, "description": why}
    for status, why in {
        400: "The form or a parameter is invalid.",
        408: "The photo took too long to arrive.",
        413: "Too many bytes, pixels or photos.",
        415: "Not a photo, or an unsupported image format.",
        422: "The photo is damaged or cut off.",
    }.items()
}
_photos = APIRouter(tags=["photos"], responses=_ERRORS)
_classifier = APIRouter(tags=["classifier"])
_health = APIRouter(tags=["health"])
_pages = APIRouter(include_in_schema=False)

_NOT_OFFERED: dict[int | str, dict[str, Any]] = {
    501: {"model": answers.ErrorResponse, "description": "Not supported by this classifier."}
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "array", "minItems": 1, "items": _BINARY["schema"]}
_FORM = {"type": "object", "properties": {"photo": _FILES}, "required": ["photo"]}
_PHOTOS = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one photo, or a form with one or several photos as files; of "
        "/v1/predict the parameters may be fields of the form.",
        "content": {
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {"schema": _FORM},
        },
    }
}


def create_app(classifier: Classifier, config: ServeConfig) -> ASGIApp:
    """Create the ASGI application; of the configuration, `port` is not used."""
    service = Service(classifier, config)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="fieldmark",
        version=__version__,
        description="Classifies photos of species.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    for router in (_photos, _classifier, _health, _pages):
        app.include_router(router)
    app.mount("/static", _static)
    for kind in (HttpError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _failed)
    schema = app.openapi()  # FastAPI keeps it, and sends what is added to it here
    openapi.complete(schema, keys=bool(config.keys))
    routes = {*schema["paths"], "/", "/docs", "/openapi.json"}
    return RequestMiddleware(app, config, service.metrics, routes)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _entries(kind: type[Entry], found: Sequence[tuple[str, Entry | HttpError]]) -> list[Entry]:
    """Return the entries of the photos of a request; raises the first error if no photo was answered."""
    errors = [(name, value) for name, value in found if isinstance(value, HttpError)]
    if len(errors) == len(found):
        _, first = errors[0]
        first.each_photo = errors
        raise first
    return [
        kind(name=name, error=answers.error_detail(value)) if isinstance(value, HttpError) else value
        for name, value in found
    ]


@_photos.post("/v1/predict", response_model=answers.Answers, openapi_extra=_PHOTOS, summary="Classify photos")
async def predict(request: Request, asked: Annotated[Asked, Query()]) -> Response:
    """Return the most likely labels; each photo has its own entry, and with boxes each box."""
    service = _service(request)
    found = await service.each_photo(request, service.classify, asked)
    return answers.response(answers.Answers(photos=_entries(answers.PhotoAnswer, found)))


@_photos.post(
    "/v1/similar",
    response_model=answers.Similar,
    responses=_NOT_OFFERED,
    openapi_extra=_PHOTOS,
    summary="Find similar training photos",
)
async def similar(
    request: Request,
    count: Annotated[int, Query(ge=1, le=50, description="Number of training photos per photo.")] = 6,
) -> Response:
    """Return the most similar training photos by the network's features, with thumbnails if any."""
    service = _service(request)
    found = await service.each_photo(request, partial(service.similar, count=count))
    return answers.response(answers.Similar(photos=_entries(answers.SimilarPhotos, found)))


@_photos.post(
    "/v1/heat-map",
    response_model=answers.HeatMap,
    responses=_NOT_OFFERED,
    openapi_extra=_PHOTOS,
    summary="Show which parts of a photo support a label",
)
async def heat_map(
    request: Request,
    taxon_id: Annotated[str | None, Query(description="The label; by default the most likely one.")] = None,
) -> Response:
    """Return a transparent image to lay over the photo; only the first photo is used."""
    service = _service(request)
    found = await service.each_photo(request, partial(service.heat_map, taxon_id=taxon_id))
    _, first = found[0]
    if isinstance(first, HttpError):
        raise first
    return answers.response(first)


@_classifier.get("/v1/classes", response_model=answers.Classes, summary="List the classes")
async def classes(request: Request) -> Response:
    """Return all classes in the order of the classifier's scores."""
    taxa = _service(request).classifier.taxa
    return answers.response(answers.Classes(classes=[answers.ClassEntry.of(each) for each in taxa]))


@_classifier.get("/v1/model", response_model=answers.ModelInfo, summary="Describe the classifier")
async def model(request: Request) -> Response:
    """Return its name and test error, the supported routes and the limits."""
    service = _service(request)
    return answers.response(info(service.classifier, service.config))


@_health.get("/health/live", response_model=answers.Health, summary="Check that the server runs")
async def live() -> Response:
    """Return 200 as long as the server runs."""
    return answers.response(answers.Health(status="live"))


@_health.get("/health/ready", response_model=answers.Health, summary="Check that photos can be answered")
async def ready(request: Request) -> Response:
    """Return 200 if photos can be answered, else 503."""
    if not _service(request).ready:
        raise HttpError(503, "not-ready", "The server is not ready, retry later.", retry_after=1)
    return answers.response(answers.Health(status="ready"))


@_health.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """Return counters, gauges and histograms in Prometheus' text format."""
    text = _service(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@_pages.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Return the web page."""
    return web_page.answer(request)


@_pages.api_route("/static/theme.css", methods=["GET", "HEAD"])
async def theme(request: Request) -> Response:
    """Return the colours and sizes that all pages of fieldmark share."""
    return await _shared.get_response("theme.css", request.scope)


@_pages.get("/docs")
async def docs(request: Request) -> Response:
    """Show the API documentation, from the same /openapi.json that programs read."""
    schema = request.app.openapi()
    context = {"paths": schema["paths"], "fields": partial(_fields, schema)}
    return _templates.TemplateResponse(request, "docs.html", context)


def _fields(schema: dict[str, Any], value: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Return the fields of an object and of the objects in it, with descriptions."""
    for option in (value, *value.get("anyOf", ())):
        if "$ref" in option:
            value = schema["components"]["schemas"][option["$ref"].rsplit("/", 1)[-1]]
        elif option.get("type") == "array":
            return _fields(schema, option.get("items", {}), f"{path}[]")
    found: list[tuple[str, str]] = []
    for name, field in value.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        if field.get("description"):
            found.append((inner, field["description"]))
        found += _fields(schema, field, inner)
    return found


async def _failed(request: Request, error: Exception) -> Response:
    """Return the response for an exception in a route or in the framework."""
    match error:
        case HttpError():
            return answers.error_response(error, request.scope)
        case HTTPException():
            code = {404: "not-found", 405: "method"}.get(error.status_code, "refused")
            refused = HttpError(error.status_code, code, f"{error.detail}: see /docs for the routes.")
            response = answers.error_response(refused, request.scope)
            response.headers.update(error.headers or {})
            return response
        case RequestValidationError():
            first = error.errors()[0]
            message = f"The parameter {first['loc'][-1]} is invalid: {first['msg']}."
            return answers.error_response(HttpError(400, "bad-parameter", message), request.scope)
        case _:
            return answers.error_response(http_errors.defect(), request.scope)
