"""What a request says of its photos beside their pixels: boxes, a place and a date."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from fieldmark.data.detections import Detection, Detections
from fieldmark.data.images import Exif
from fieldmark.data.images.boxes import is_inside
from fieldmark.data.locations import Location, day_of_year
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.inputs import Boxes, Kind
from fieldmark.serving.http_errors import HttpError
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import to_say

PRIOR_REASONS = (
    _LEFT_OUT := to_say("the request leaves it out"),
    _OF_ONE_PLACE := to_say("the classifier is of one place"),
    _ASKED := to_say("the place is that of the request"),
    _EXIF := to_say("the place is that of the photo's EXIF data"),
    _NO_PLACE := to_say("the photo has no place"),
)
"""Why the prior of places counts for a photo, or not."""


@dataclass(frozen=True)
class PhotoBoxes:
    """The boxes of a photo, and the confidence from which on they count."""

    detections: tuple[Detection, ...]
    threshold: float

    @property
    def classified(self) -> list[Detection]:
        """Return the boxes that are classified: animals from the threshold on, in the photo."""
        return [each for each in self.detections if self.counts(each) and is_inside(each.box)]

    def counts(self, each: Detection) -> bool:
        """Return whether a box is of an animal and of enough confidence."""
        return each.category == "animal" and each.confidence >= self.threshold

    @property
    def kind(self) -> Kind:
        """Return what the photo shows, as `fieldmark predict` says it."""
        sure = [each for each in self.detections if each.confidence >= self.threshold]
        if any(each.category == "animal" for each in sure):
            return "animal"
        return max(sure, key=lambda each: each.confidence).category if sure else "blank"


class Asked(BaseModel):
    """The parameters of /v1/predict; in a form they may be fields."""

    top: int = Field(default=5, ge=1, le=1000, description="Number of labels per photo.")
    lat: float | None = Field(
        default=None,
        ge=-90,
        le=90,
        description="Latitude of all photos, in degrees; else that of their EXIF data.",
    )
    lon: float | None = Field(default=None, ge=-180, le=180, description="Longitude likewise.")
    date: str | None = Field(
        default=None,
        description="Date of all photos, such as 2024-06-30; else, without lat, that of their EXIF data.",
    )
    prior: Literal["on", "off"] = Field(
        default="on",
        description="Whether what is to be expected at the place counts, where the classifier knows.",
    )
    boxes: str | None = Field(
        default=None,
        description="JSON in MegaDetector's form: a list of detections of the one photo, or a document, "
        "in which photos are found by their names. There is one answer a box.",
    )
    box_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The confidence from which on a box counts; else as in training.",
    )

    def with_fields(self, fields: Mapping[str, str]) -> Asked:
        """Return it with the fields of a form; raises HttpError where one cannot be."""
        own = {name: value for name, value in fields.items() if name in type(self).model_fields}
        try:
            return Asked.model_validate(self.model_dump() | own) if own else self
        except ValidationError as error:
            first = error.errors()[0]
            raise bad_parameter(f"The field {first['loc'][-1]} is invalid: {first['msg']}.") from error

    def check(self, classifier: Classifier) -> None:
        """Raise HttpError where the parameters do not go together, or there is no prior for them."""
        if (self.lat is None) != (self.lon is None):
            raise bad_parameter("A place needs both lat and lon.")
        if self.lat is None and self.date is None:
            return
        if self.prior == "off":
            raise bad_parameter("lat, lon and date are for the prior: leave them out, or prior=off.")
        try:
            classifier.at(self.lat or 0.0, self.lon or 0.0, self.date)
        except InputError as error:
            raise bad_parameter(str(error)) from error

    def location(self, exif: Exif, classifier: Classifier) -> tuple[Location | None, str]:
        """Return where and when a photo was taken, None if no prior counts, and the reason in words."""
        if self.prior == "off":
            return None, _LEFT_OUT
        if classifier.local is not None:
            return None, _OF_ONE_PLACE
        degrees, taken, words = (self.lat, self.lon), self.date, _ASKED
        if self.lat is None:
            degrees, taken = (exif.latitude, exif.longitude), self.date or exif.taken
            words = _EXIF
        latitude, longitude = degrees
        if latitude is None or longitude is None:
            return None, _NO_PLACE
        return (latitude, longitude, day_of_year(taken)), words

    def boxes_of(self, names: Sequence[str], classifier: Classifier) -> list[PhotoBoxes | None]:
        """Return the boxes of each photo, None where there is no entry of it; raises HttpError."""
        if self.boxes is None:
            if self.box_threshold is not None:
                raise bad_parameter("box_threshold is given without boxes.")
            return [None] * len(names)
        keys = [name or f"photo {number}" for number, name in enumerate(names, 1)]
        try:
            found = _read(json.loads(self.boxes), keys)
        except (ValueError, RecursionError) as error:
            raise HttpError(400, "bad-boxes", "The boxes are no JSON.") from error
        except InputError as error:
            raise HttpError(400, "bad-boxes", str(error)) from error
        of_name = found.matched(keys)
        if not of_name:
            raise HttpError(400, "bad-boxes", "The boxes are of other photos: they list none of those sent.")
        learned = (classifier.provenance.get("boxes") or {}).get("threshold")
        threshold = Boxes.of(found, self.box_threshold, learned).threshold
        return [PhotoBoxes(of_name[key], threshold) if key in of_name else None for key in keys]


def bad_parameter(message: str) -> HttpError:
    """Return the error for a parameter that cannot be."""
    return HttpError(400, "bad-parameter", message)


def _read(document: Any, names: Sequence[str]) -> Detections:
    from fieldmark.data.readers.box_files import of_document

    if isinstance(document, list):
        if len(names) > 1:
            raise InputError("A list of boxes is of one photo: for several send a document of MegaDetector.")
        document = {"images": [{"file": names[0], "detections": document}]}
    if isinstance(document, dict) and "images" in document and "annotations" not in document:
        document = {"detection_categories": None, **document}
    return of_document(document, Path("boxes"), strict=True)
