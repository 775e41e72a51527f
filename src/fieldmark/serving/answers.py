"""Every JSON object that leaves the server, built here and nowhere else."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from fieldmark.data.taxonomy import Taxon
from fieldmark.inference.classifier import Prediction
from fieldmark.serving.http_errors import Refused


class Label(BaseModel):
    """One label with its probability."""

    taxon_id: str = Field(description="The label as the training data writes it.")
    name: str = Field(description="The scientific name, or the only one that is known.")
    common_name: str = Field(description="The everyday name, or an empty string.")
    rank: str = Field(description="The rank of the name.")
    ranks: dict[str, str] = Field(description="The names of the ranks down to it, widest first.")
    score: float = Field(description="Its probability, calibrated, 0 to 1.")


class Problem(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="One word for a program.")
    message: str = Field(description="One sentence for a person.")


class Given(BaseModel):
    """The answer itself: a label that is sure enough, else a wider taxon that is, else "not sure"."""

    source: str = Field(description='"species" (a label itself), "rolled up" or "not sure".')
    rank: str = Field(description='The rank of the name; "none" where there is no answer.')
    name: str = Field(description="The scientific name; empty where there is no answer.")
    common_name: str = Field(description="The everyday name, or an empty string.")
    ranks: dict[str, str] = Field(description="The names of the ranks down to it, widest first.")
    score: float = Field(description="Its probability; where not sure, that of the first label.")
    reason: str = Field(description="Why this is the answer.")
    unknown: bool | None = Field(
        default=None,
        description="Whether the photo may be of none of the classes; absent: not judged.",
    )


class PhotoAnswer(BaseModel):
    """What was found in one photo, or why nothing was."""

    name: str = Field(description="The file's name as it was sent, or an empty string.")
    width: int | None = Field(default=None, description="Of the upright photo, in pixels.")
    height: int | None = Field(default=None, description="Of the upright photo, in pixels.")
    answer: Given | None = Field(default=None, description="What to say of the photo.")
    labels: list[Label] | None = Field(
        default=None, description="The likeliest labels, likeliest first."
    )
    error: Problem | None = Field(default=None, description="Why the photo could not be used.")


class Answers(BaseModel):
    """What /v1/predict gives: one entry a photo, in the order in which they were sent."""

    photos: list[PhotoAnswer]


class Neighbour(BaseModel):
    """A training photo that resembles the one sent."""

    taxon_id: str
    name: str
    common_name: str
    similarity: float = Field(description="Cosine of the angle between the features, -1 to 1.")
    thumbnail: str | None = Field(default=None, description="A small picture as a data: URL.")


class SimilarPhotos(BaseModel):
    """The training photos that most resemble one photo."""

    name: str
    similar: list[Neighbour] | None = None
    error: Problem | None = None


class Similar(BaseModel):
    """What /v1/similar gives: one entry a photo, in the order in which they were sent."""

    photos: list[SimilarPhotos]


class HeatMap(BaseModel):
    """Where in a photo the network saw what speaks for a label."""

    taxon_id: str = Field(description="The label in question.")
    overlay: str = Field(description="A PNG with transparency, as a data: URL.")
    box: tuple[float, float, float, float] = Field(
        description="Where it belongs: left, top, width, height as shares of the upright photo."
    )


class ClassEntry(BaseModel):
    """One of the classes that the classifier knows."""

    taxon_id: str
    name: str
    common_name: str
    rank: str
    ranks: dict[str, str]


class Classes(BaseModel):
    """What /v1/classes gives."""

    classes: list[ClassEntry]


class Offers(BaseModel):
    """What this server can do besides naming photos."""

    similar: bool
    heat_map: bool


class Limits(BaseModel):
    """What a request may bring."""

    bytes: int
    pixels: int
    photos: int


class About(BaseModel):
    """What /v1/model gives: which classifier answers, and what may be asked of it."""

    name: str
    version: str
    architecture: str
    classes: int
    test: str = Field(description="How good it is, measured on photos it never saw; or empty.")
    licence: str = Field(description="Of the weights.")
    precision: float | None = Field(
        default=None, description="The share of sure answers meant to be right."
    )
    offers: Offers
    limits: Limits


class Refusal(BaseModel):
    """What every request gets that has no other answer."""

    error: Problem
    request_id: str
    photos: list[PhotoAnswer] | None = Field(
        default=None, description="Where several were sent: each."
    )


class Health(BaseModel):
    """How the server is."""

    status: str


def taxon_fields(taxon: Taxon) -> dict[str, Any]:
    """What is said of a taxon."""
    return {
        "taxon_id": taxon.id,
        "name": taxon.name,
        "common_name": taxon.common_name,
        "rank": taxon.rank,
        "ranks": taxon.lineage,
    }


def short(taxon: Taxon) -> dict[str, str]:
    """A taxon by its names alone."""
    return {"taxon_id": taxon.id, "name": taxon.name, "common_name": taxon.common_name}


def named(name: str, width: int, height: int, prediction: Prediction) -> PhotoAnswer:
    """The answer for a photo that the classifier has seen."""
    labels = [
        Label(**taxon_fields(answer.taxon), score=round(answer.score, 6))
        for answer in prediction.answers
    ]
    given = _given(prediction)
    return PhotoAnswer(name=name, width=width, height=height, answer=given, labels=labels)


def _given(prediction: Prediction) -> Given:
    best = taxon_fields(prediction.best.taxon) if prediction.sure else {}
    return Given(
        source=prediction.source,
        rank=prediction.rank,
        name=prediction.name,
        common_name=best.get("common_name", ""),
        ranks=dict(prediction.ranks),
        score=round(prediction.score, 6),
        reason=prediction.reason,
        unknown=prediction.unknown,
    )


def problem(refused: Refused) -> Problem:
    """A refusal's two parts."""
    return Problem(code=refused.code, message=refused.message)


def response(value: BaseModel, status: int = 200) -> Response:
    """An object as a response."""
    body = value.model_dump_json(exclude_none=True)
    return Response(body, status, media_type="application/json")


def refusal(refused: Refused, request_id: str, photos: list[PhotoAnswer] | None = None) -> Response:
    """A refusal as a response."""
    value = Refusal(error=problem(refused), request_id=request_id, photos=photos)
    answer = response(value, refused.status)
    if refused.retry_after is not None:
        answer.headers["Retry-After"] = str(refused.retry_after)
    if refused.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def defect(request_id: str) -> Response:
    """The response where the server itself has failed."""
    message = "The server has failed; its log says more under this request's id."
    return refusal(Refused(500, "defect", message), request_id)
