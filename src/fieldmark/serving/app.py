"""The routes: each takes a request apart, calls the service, and puts the answer together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from fieldmark import __version__
from fieldmark.inference.classifier import Classifier
from fieldmark.serving import answers, docs, pages
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.http_errors import Refused
from fieldmark.serving.middleware import Guard, Keys
from fieldmark.serving.service import Service, first_refusal

_api = APIRouter()

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Refusal, "description": why}
    for status, why in {
        400: "The form or a parameter cannot be read.",
        401: "The server asks for a key.",
        408: "The photo took too long to arrive.",
        413: "Too many bytes, pixels or photos.",
        415: "Not a photo, or of a kind that is not read.",
        422: "A photo that is damaged or cut off.",
        503: "All places are taken; Retry-After says when to try again.",
    }.items()
}
_NOT_OFFERED: dict[int | str, dict[str, Any]] = {
    501: {"model": answers.Refusal, "description": "This classifier does not offer it."}
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PHOTOS = {
    "requestBody": {
        "required": True,
        "description": "One photo as it is, or a form with one or several as files.",
        "content": {
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "photo": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
        },
    }
}


def create_app(classifier: Classifier, config: ServeConfig) -> ASGIApp:
    """The application: an ASGI callable that any ASGI server can run.

    Args:
        classifier: what answers.
        config: limits and keys; `host` and `port` are not looked at.
    """
    service = Service(classifier, config)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="fieldmark",
        version=__version__,
        description="Names what is in photos of living things.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from another host
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(_api)
    app.include_router(pages.router)
    app.include_router(docs.router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _parameter)
    app.add_exception_handler(Exception, _defect)
    routes = {*app.openapi()["paths"], "/", "/docs", "/openapi.json"}
    return Guard(app, Keys(config.keys), service.metrics, routes)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@_api.post(
    "/v1/predict",
    response_model=answers.Answers,
    responses=_REFUSALS,
    openapi_extra=_PHOTOS,
    summary="Name what is in photos",
    tags=["photos"],
)
async def predict(
    request: Request,
    top: Annotated[int, Query(ge=1, le=1000, description="How many labels for each photo.")] = 5,
) -> Response:
    """Labels sorted by probability; where several photos are sent, each has its own entry."""
    service = _service(request)
    found = await service.each_photo(request, partial(service.name, top=top))
    photos = [
        answers.PhotoAnswer(name=name, error=answers.problem(value))
        if isinstance(value, Refused)
        else value
        for name, value in found
    ]
    refused = first_refusal(found)
    if refused is not None:
        several = photos if len(photos) > 1 else None
        return answers.refusal(refused, _id(request), several)
    return answers.response(answers.Answers(photos=photos))


@_api.post(
    "/v1/similar",
    response_model=answers.Similar,
    responses=_REFUSALS | _NOT_OFFERED,
    openapi_extra=_PHOTOS,
    summary="Find the training photos that most resemble photos",
    tags=["photos"],
)
async def similar(
    request: Request,
    count: Annotated[int, Query(ge=1, le=50, description="How many for each photo.")] = 6,
) -> Response:
    """The nearest ones first, by the network's features; pictures where they are at hand."""
    service = _service(request)
    found = await service.each_photo(request, partial(service.similar, count=count))
    refused = first_refusal(found)
    if refused is not None:
        return answers.refusal(refused, _id(request))
    photos = [
        answers.SimilarPhotos(name=name, error=answers.problem(value))
        if isinstance(value, Refused)
        else value
        for name, value in found
    ]
    return answers.response(answers.Similar(photos=photos))


@_api.post(
    "/v1/heat-map",
    response_model=answers.HeatMap,
    responses=_REFUSALS | _NOT_OFFERED,
    openapi_extra=_PHOTOS,
    summary="Show where in a photo the network looked",
    tags=["photos"],
)
async def heat_map(
    request: Request,
    taxon_id: Annotated[
        str | None, Query(description="For which label; by default for the likeliest.")
    ] = None,
) -> Response:
    """A picture to lay over the photo. Of several photos the first is taken."""
    service = _service(request)
    found = await service.each_photo(request, partial(service.heat_map, taxon_id=taxon_id))
    _, value = found[0]
    if isinstance(value, Refused):
        return answers.refusal(value, _id(request))
    return answers.response(value)


@_api.get(
    "/v1/classes",
    response_model=answers.Classes,
    summary="What the classifier can name",
    tags=["classifier"],
)
async def classes(request: Request) -> Response:
    """Every class, in the order of the classifier's scores."""
    return answers.response(_service(request).model.classes())


@_api.get(
    "/v1/model",
    response_model=answers.About,
    summary="Which classifier answers",
    tags=["classifier"],
)
async def model(request: Request) -> Response:
    """Its name, how good it is, what the server offers and which limits it keeps."""
    service = _service(request)
    return answers.response(service.model.about(service.config))


@_api.get("/health/live", response_model=answers.Health, summary="Is it there", tags=["health"])
async def live() -> Response:
    """200 as long as the server runs."""
    return answers.response(answers.Health(status="live"))


@_api.get("/health/ready", response_model=answers.Health, summary="Can it answer", tags=["health"])
async def ready(request: Request) -> Response:
    """200 when photos can be answered, 503 when not."""
    if not _service(request).ready:
        raise Refused(503, "not-ready", "The server cannot answer photos now.", retry_after=1)
    return answers.response(answers.Health(status="ready"))


@_api.get("/metrics", response_class=Response, summary="Prometheus metrics", tags=["health"])
async def metrics(request: Request) -> Response:
    """Counters and histograms in Prometheus' text form."""
    text = _service(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _id(request: Request) -> str:
    return str(request.scope.get("fieldmark.request_id", ""))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answers.refusal(error, _id(request))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: ("not-found", "There is nothing here."), 405: ("method", "Not with this method.")}
    code, message = words.get(error.status_code, ("refused", str(error.detail)))
    response = answers.refusal(Refused(error.status_code, code, message), _id(request))
    response.headers.update(error.headers or {})
    return response


async def _parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    message = f"The parameter {first['loc'][-1]} cannot be used: {first['msg']}."
    return answers.refusal(Refused(400, "bad-parameter", message), _id(request))


async def _defect(request: Request, _error: Exception) -> Response:
    return answers.defect(_id(request))
