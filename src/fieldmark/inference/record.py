"""The prediction for one photo as a JSON object, from which every output file is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NotRequired, Required, TypedDict

from fieldmark.data import events, images
from fieldmark.data.detections import Category, Detection
from fieldmark.data.storage import places
from fieldmark.data.storage.places import Box, Place, boxed_text
from fieldmark.inference.classifier import Prediction
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.predictor import ClipResult, PhotoResult
from fieldmark.utils import io

Timed = bool | Literal["local"]
"""Whether EXIF data are read for a record: never, always, or of photos on this machine only."""


class HigherTaxonRecord(TypedDict):
    """The probability of one higher taxon."""

    rank: str
    name: str
    score: float


class BoxRecord(TypedDict):
    """A box of a detector: [left, top, width, height] as shares of the photo."""

    category: Category
    confidence: float
    box: list[float]
    size: NotRequired[list[int]]  # of the photo that it was drawn in, see `Box`; where that is known


class EventRecord(TypedDict):
    """What is known of an event beside its answer."""

    photos: list[str]  # the names of its photos, in the order of their times
    start: str  # the time of the first, ISO 8601; "" where it is unknown
    end: str
    place: str
    count: int  # the largest number of animals in one of its photos; 0 where there is none
    also: list[AlsoRecord]


class AlsoRecord(TypedDict):
    """A further species of an event."""

    name: str
    count: int


class ClipRecord(TypedDict):
    """What is known of a clip beside its answer."""

    rate: float  # frames a second
    seconds: list[float]  # the times of the frames that show its answer
    count: int  # the largest number of animals in one frame
    also: list[AlsoRecord]
    frames: list[Record]  # of its frames, or of the boxes in them


class LabelRecord(TypedDict):
    """One of the most probable labels."""

    taxon_id: str
    name: str
    common_name: str
    rank: str
    score: float


class Record(TypedDict, total=False):
    """The prediction for one photo, or the reason why it was rejected."""

    file_name: Required[str]
    id: str
    deployment: str
    taken: str
    latitude: float  # degrees, both or none
    longitude: float
    temperature: float  # of the camera in degrees Celsius
    camera_model: str  # its maker and model
    camera_serial: str  # its serial number
    location: str
    sequence: str
    detection: BoxRecord  # the box that was classified, or what else the photo shows
    others: list[BoxRecord]  # the boxes of the photo that were not classified, with its first record
    kind: str  # blank, human or vehicle: what a photo shows that was not classified
    note: str  # "truncated": the file ends before the photo does, and what is there was classified
    rejected: str  # the reason why there is no prediction; the keys below are then missing
    source: str
    rank: str
    name: str
    score: float
    sure: bool
    unknown: bool | None
    reason: str
    among: int  # the number of labels that the scores are divided among
    ranks: dict[str, str]
    wider: list[HigherTaxonRecord]  # the higher taxa, from species up
    labels: list[LabelRecord]  # the most probable labels, highest score first
    scores: list[float]  # of all labels, if asked for
    clip: ClipRecord  # where the record is of a clip
    frame: int  # of a frame: its number in its clip
    second: float  # of a frame: its time, from the first
    event: EventRecord  # where the record is of an event, and not of a photo
    reviewer: str  # the person who named the photo; without it a classifier did
    reviewed: str  # when that was, ISO 8601 in UTC


def to_record(result: PhotoResult, among: int, *, wide: bool = False, timed: Timed = False) -> Record:
    """Return the prediction for one photo as a JSON object.

    `wide` adds the scores of all labels, and `timed` reads the place, the camera and the temperature from the
    EXIF data, and the time where the photo's list gives none.
    """
    photo, prediction = result.photo, result.prediction
    record: Record = {"file_name": photo.name}
    if photo.id is not None:
        record["id"] = photo.id
    if photo.deployment is not None:
        record["deployment"] = photo.deployment
    known = ":" in (photo.taken or "")  # else there is no time, or a date alone
    of_clip = photo.sampling is not None or photo.frame is not None
    about = _exif(photo.path, False if of_clip else "local" if known and timed else timed)
    taken = photo.taken if known else about.taken or photo.taken
    if taken is not None:
        record["taken"] = events.shifted(taken, photo.late) if photo.late else taken
    record |= _surroundings(photo, about)
    if photo.sequence is not None:
        record["sequence"] = photo.sequence
    if photo.location is not None:
        record["location"] = photo.location
    record |= _in_clip(result, among)
    if photo.detection is not None:
        record["detection"] = box_record(photo.detection)
    if photo.others:
        record["others"] = [box_record(each) for each in photo.others]
    if prediction is None and result.rejected is None:
        return record | {"kind": photo.kind}
    if prediction is None:
        assert result.rejected is not None
        return record | {"rejected": result.rejected.reason.value}
    if result.note:
        record["note"] = result.note
    record |= prediction_record(prediction, among)
    if wide and result.scores is not None:
        record["scores"] = [round(float(score), 6) for score in result.scores]
    return record


def _surroundings(photo: InputPhoto, about: images.Exif) -> Record:
    """Return the place, temperature and camera of a photo, of its list or else its EXIF data."""
    found: Record = {}  # type: ignore[typeddict-item]  # the name is added
    at = (photo.latitude, photo.longitude)
    latitude, longitude = (about.latitude, about.longitude) if None in at else at
    if latitude is not None and longitude is not None:
        found |= {"latitude": latitude, "longitude": longitude}
    warm = about.temperature if photo.temperature is None else photo.temperature
    if warm is not None:
        found["temperature"] = warm
    if camera := photo.camera_model or about.camera_model:
        found["camera_model"] = camera
    if serial := photo.camera_serial or about.camera_serial:
        found["camera_serial"] = serial
    return found


def _in_clip(result: PhotoResult, among: int) -> Record:
    """Return what is known of a clip, or of a frame as a part of one; nothing for a photo."""
    found: Record = {}  # type: ignore[typeddict-item]  # the name is added
    if result.clip is not None:
        found["clip"] = _clip_record(result.clip, result.photo.name, among)
    if result.photo.frame is not None and result.photo.second is not None:
        found |= {"frame": result.photo.frame, "second": result.photo.second}
    return found


def _clip_record(clip: ClipResult, name: str, among: int) -> ClipRecord:
    return {
        "rate": round(clip.rate, 6),
        "seconds": list(clip.seconds),
        "count": clip.count,
        "also": [{"name": each, "count": count} for each, count in clip.also],
        "frames": [{**to_record(each, among), "file_name": name} for each in clip.frames],
    }


def in_frames(records: Iterable[Record]) -> Iterator[Record]:
    """Return the records of the frames of clips in place of those of clips."""
    for record in records:
        yield from (record["clip"]["frames"] if "clip" in record else ()) or (record,)


def prediction_record(prediction: Prediction, among: int) -> Record:
    """Return what a record says of a prediction; `among` is the number of labels."""
    return {  # type: ignore[typeddict-item]  # the name of the photo is added
        "source": prediction.source,
        "rank": prediction.rank,
        "name": prediction.name,
        "score": round(prediction.score, 6),
        "sure": prediction.sure,
        "unknown": prediction.unknown,
        "reason": prediction.reason,
        "among": among,
        "ranks": dict(prediction.ranks),
        "wider": [
            {"rank": each.rank, "name": each.name, "score": round(each.score, 6)} for each in prediction.wider
        ],
        "labels": [
            {
                "taxon_id": answer.taxon.id,
                "name": answer.taxon.name,
                "common_name": answer.taxon.common_name,
                "rank": answer.taxon.rank,
                "score": round(answer.score, 6),
            }
            for answer in prediction.answers
        ],
    }


def key_of(record: Record) -> str:
    """Return what `InputPhoto.key` of the photo, or of the box, is."""
    found = record.get("detection")
    return record["file_name"] if found is None else boxed_text(record["file_name"], box_in(found))


def box_in(found: BoxRecord) -> Box:
    """Return the box of which `box_record` is."""
    left, top, width, height = found["box"]
    wide, high = found.get("size", (0, 0))
    return Box(left, top, width, height, (wide, high) if wide else None)


def event_id(record: Record) -> str:
    """Return the name of an event: a digest of its place and its photos."""
    event = record["event"]
    return io.digest([event["place"], *sorted(event["photos"])])[:16]


def box_record(found: Detection) -> BoxRecord:
    """Return a box as a JSON object."""
    box = found.box
    sides = [box.left, box.top, box.width, box.height]
    record: BoxRecord = {"category": found.category, "confidence": round(found.confidence, 6), "box": sides}
    return record | {"size": list(box.size)} if box.size else record


def _exif(place: Place, timed: Timed) -> images.Exif:
    """Return the EXIF data, if they are to be read; nothing where there are none."""
    if timed is False or (timed == "local" and not places.is_local(place)):
        return images.Exif()
    return images.exif_of(place)
