"""All JSON objects that the server sends."""

from __future__ import annotations

from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, Self

from pydantic import BaseModel, Field
from starlette.responses import Response

from fieldmark.data.detections import Detection
from fieldmark.data.taxonomy import Taxon
from fieldmark.inference.classifier import Prediction
from fieldmark.serving.http_errors import HttpError

PROBLEM = "application/problem+json"
"""The media type of every refusal."""


class ClassEntry(BaseModel):
    """One class of the classifier."""

    taxon_id: str = Field(description="The label as in the training data.")
    name: str = Field(description="The scientific name, or the only known one.")
    common_name: str = Field(description="The everyday name, or an empty string.")
    rank: str = Field(description="The rank of the name.")
    ranks: dict[str, str] = Field(description="The names of its ranks, kingdom first.")

    @classmethod
    def of(cls, taxon: Taxon, **more: Any) -> Self:
        """Describe a taxon; `more` are the fields of a subclass."""
        names = {"name": taxon.name, "common_name": taxon.common_name}
        return cls(taxon_id=taxon.id, rank=taxon.rank, ranks=taxon.lineage, **names, **more)


class Label(ClassEntry):
    """A label and its probability."""

    score: float = Field(description="Its calibrated probability, 0 to 1.")


class ErrorDetail(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="One word for programs.")
    message: str = Field(description="One sentence for people.")


class Answer(BaseModel):
    """A label whose confidence reaches its threshold, else a higher taxon, else "not sure"."""

    source: str = Field(
        description='"species" (a label), "rolled up" (a higher taxon), "not sure" or "unknown".'
    )
    rank: str = Field(description='The rank of the name; "none" where there is no answer.')
    name: str = Field(description="The scientific name; empty where there is no answer.")
    common_name: str = Field(description="The everyday name, or an empty string.")
    ranks: dict[str, str] = Field(description="The names of its ranks, kingdom first.")
    score: float = Field(description="Its probability; if not sure, that of the first label.")
    reason: str = Field(description="Why this is the answer, in words.")
    unknown: bool | None = Field(
        default=None, description="Out-of-distribution flag: the photo may show none of the classes."
    )


class PriorAnswer(BaseModel):
    """Whether what is to be expected at the place counts."""

    used: bool = Field(description="Whether it counts in the answers for this photo.")
    reason: str = Field(description="Where the place is from, or why there is none, in words.")


class BoxAnswer(BaseModel):
    """The answer for one box; one of a person, a vehicle or of too low a confidence has none."""

    category: str = Field(description="animal, human or vehicle.")
    confidence: float = Field(description="Of the detector.")
    bbox: tuple[float, float, float, float] = Field(description="As sent.")
    answer: Answer | None = Field(default=None, description="The answer.")
    labels: list[Label] | None = Field(default=None, description="Labels, most likely first.")
    error: ErrorDetail | None = Field(default=None, description="Why there is no answer.")

    @classmethod
    def of(cls, found: Detection) -> Self:
        """Describe a box."""
        box = found.box
        sides = (box.left, box.top, box.width, box.height)
        return cls(category=found.category, confidence=found.confidence, bbox=sides)


class PhotoAnswer(BaseModel):
    """The answer for one photo, or for each of its boxes, or the error."""

    name: str = Field(description="The file name as sent, or an empty string.")
    width: int | None = Field(default=None, description="Of the upright photo, in pixels.")
    height: int | None = Field(default=None, description="Of the upright photo, in pixels.")
    note: str | None = Field(
        default=None, description='"truncated": what is there of the photo was classified.'
    )
    prior: PriorAnswer | None = Field(default=None, description="Where the classifier has a prior.")
    answer: Answer | None = Field(
        default=None, description="The answer; with boxes each of them has its own."
    )
    labels: list[Label] | None = Field(default=None, description="Labels, most likely first.")
    kind: str | None = Field(default=None, description="With boxes: animal, human, vehicle or blank.")
    boxes: list[BoxAnswer] | None = Field(default=None, description="The boxes of the photo, as sent.")
    error: ErrorDetail | None = Field(default=None, description="Why there is no answer.")


class Answers(BaseModel):
    """Response of /v1/predict: one entry per photo, in the order sent."""

    photos: list[PhotoAnswer]


class Neighbour(BaseModel):
    """A training photo similar to the photo sent."""

    taxon_id: str
    name: str
    common_name: str
    similarity: float = Field(description="Cosine of the angle between the features, -1 to 1.")
    thumbnail: str | None = Field(default=None, description="A small JPEG as a data: URL.")


class SimilarPhotos(BaseModel):
    """The training photos most similar to one photo."""

    name: str
    similar: list[Neighbour] | None = None
    error: ErrorDetail | None = None


class Similar(BaseModel):
    """Response of /v1/similar: one entry per photo, in the order sent."""

    photos: list[SimilarPhotos]


class HeatMap(BaseModel):
    """Response of /v1/heat-map: which parts of a photo support a label."""

    taxon_id: str = Field(description="The label.")
    overlay: str = Field(description="A PNG with transparency, as a data: URL.")
    box: tuple[float, float, float, float] = Field(
        description="Its left, top, width and height as shares of the upright photo."
    )


class Classes(BaseModel):
    """Response of /v1/classes."""

    classes: list[ClassEntry]


class SpeciesList(BaseModel):
    """A list of species, as of a park, that counts in all answers: other labels are less likely."""

    name: str = Field(description="Of the list.")
    classes: int = Field(description="How many classes are on it.")


class Offers(BaseModel):
    """Which further routes this classifier supports."""

    similar: bool
    heat_map: bool
    prior: bool = Field(description="Whether it knows what is to be expected where and when.")


class Limits(BaseModel):
    """Limits of one request."""

    bytes: int
    pixels: int
    photos: int


class ModelInfo(BaseModel):
    """Response of /v1/model."""

    name: str
    version: str
    architecture: str
    engine: str = Field(description="What runs its networks on this server.")
    classes: int
    test: str = Field(description="Its top-1 error on test photos, in words; or empty.")
    licence: str = Field(description="Licence of the weights.")
    precision: float | None = Field(
        default=None, description="The share of right answers that the threshold was set for."
    )
    species_list: SpeciesList | None = Field(
        default=None, description="The list of species that counts in all answers; missing without one."
    )
    offers: Offers
    limits: Limits


class ErrorResponse(BaseModel):
    """Response of every request that fails: problem details (RFC 9457) with further members."""

    type: str = Field(default="about:blank", description="The title says what the status does.")
    title: str = Field(description="The name of the status.")
    status: int = Field(description="The status.")
    detail: str = Field(description="One sentence for people, that of the error.")
    error: ErrorDetail
    request_id: str
    photos: list[PhotoAnswer] | None = Field(
        default=None, description="If several photos were sent: the error of each."
    )


class Health(BaseModel):
    """Response of the health checks."""

    status: str


def answered(prediction: Prediction) -> tuple[Answer, list[Label]]:
    """Return what an entry says of a prediction."""
    labels = [Label.of(answer.taxon, score=round(answer.score, 6)) for answer in prediction.answers]
    answer = Answer(
        source=prediction.source,
        rank=prediction.rank,
        name=prediction.name,
        common_name=prediction.best.taxon.common_name if prediction.sure else "",
        ranks=dict(prediction.ranks),
        score=round(prediction.score, 6),
        reason=prediction.reason,
        unknown=prediction.unknown,
    )
    return answer, labels


def error_detail(error: HttpError) -> ErrorDetail:
    """Return the code and the message of an error."""
    return ErrorDetail(code=error.code, message=error.message)


def response(value: BaseModel, status: int = 200) -> Response:
    """Return an object as a JSON response."""
    return Response(value.model_dump_json(exclude_none=True), status, media_type="application/json")


def problem(error: HttpError, request_id: str) -> ErrorResponse:
    """Return the body of the response for an error."""
    failed = error.each_photo if len(error.each_photo) > 1 else ()
    known = error.status in HTTPStatus._value2member_map_
    return ErrorResponse(
        title=HTTPStatus(error.status).phrase if known else "Refused",
        status=error.status,
        detail=error.message,
        error=error_detail(error),
        request_id=request_id,
        photos=[PhotoAnswer(name=name, error=error_detail(each)) for name, each in failed] or None,
    )


def error_response(error: HttpError, scope: MutableMapping[str, Any]) -> Response:
    """Return an error as a JSON response to the request with this ASGI scope."""
    answer = response(problem(error, scope["fieldmark.request_id"]), error.status)
    answer.headers["Content-Type"] = PROBLEM
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
