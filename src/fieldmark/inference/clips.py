"""Predict photos and clips in order: one answer for a clip, from the frames that are taken of it.

A clip is an event: the answers of its frames are combined as those of the photos of a visit, see
`fieldmark.inference.events`. Where boxes are given for its frames, these are cut out and classified.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby

from fieldmark.data.detections import Detection
from fieldmark.data.events import seconds_of, shifted
from fieldmark.data.images import boxes
from fieldmark.data.locations import Location, day_of_year
from fieldmark.data.videos import Clip, Sampling
from fieldmark.inference import predictor
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.asking import rank_at
from fieldmark.inference.events import combine, named_by, rule_of
from fieldmark.inference.inputs import InputPhoto, Kind
from fieldmark.inference.predictor import ClipResult, PhotoResult, place_to_read
from fieldmark.inference.record import to_record
from fieldmark.utils.errors import ImageRejected
from fieldmark.utils.typing import ByteArray


def predict(classifier: Classifier, photos: Sequence[InputPhoto], top: int = 5) -> Iterator[PhotoResult]:
    """Predict each photo (see `fieldmark.inference.predictor`) and clip, in order, with `top` labels."""
    for are_clips, group in groupby(photos, key=lambda photo: photo.sampling is not None):
        if are_clips:
            for clip in group:
                yield _of_clip(classifier, clip, top)
        else:
            yield from predictor.predict(classifier, list(group), top)


def _of_clip(classifier: Classifier, photo: InputPhoto, top: int) -> PhotoResult:
    place = place_to_read(photo)
    if isinstance(place, ImageRejected):
        return PhotoResult(photo, None, place)
    of_frame = None if photo.seen is None else _by_frame(photo.seen)
    if of_frame is not None and not of_frame:
        return _without_animals(photo, photo.seen or ())
    clip = Clip(place, photo.sampling or Sampling(), of_frame)
    frames, waiting = list[PhotoResult](), deque[InputPhoto]()
    where, at = _location(photo), cache(classifier.at)  # one place and day for all frames
    for output in classifier.stream(_crops(clip, photo, of_frame, waiting)):
        if isinstance(output, ImageRejected):
            return PhotoResult(photo, None, output)
        prediction, p_C = rank_at(classifier, *output, top, where, at)
        frames.append(PhotoResult(waiting.popleft(), prediction, scores=p_C))
    if photo.taken is None and seconds_of(clip.started) is not None:
        photo = replace(photo, taken=clip.started)
    if not frames:  # the clip has none of the frames that have boxes
        return _without_animals(photo, ())
    return _combined(classifier, photo, frames, clip.rate, top)


def _location(photo: InputPhoto) -> Location | None:
    """Return where and when a clip was taken, as its list says; None: nowhere known."""
    if photo.latitude is None or photo.longitude is None:
        return None
    return photo.latitude, photo.longitude, day_of_year(photo.taken and shifted(photo.taken, photo.late))


def _by_frame(seen: Sequence[Detection]) -> dict[int, list[Detection]]:
    found = defaultdict(list)
    for each in seen:
        if each.category == "animal" and each.frame is not None:
            found[each.frame].append(each)
    return found


def _without_animals(photo: InputPhoto, seen: Sequence[Detection]) -> PhotoResult:
    """Return what a clip shows whose boxes are of people or vehicles, or that has none: most of them."""
    kinds: Counter[Kind] = Counter(each.category for each in seen)
    kind: Kind = max(kinds, key=lambda each: kinds[each]) if kinds else "blank"
    seconds = {each.second for each in seen if each.category == kind and each.second is not None}
    return PhotoResult(replace(photo, kind=kind), None, clip=ClipResult(-1.0, (), tuple(sorted(seconds))))


def _crops(
    clip: Clip,
    photo: InputPhoto,
    of_frame: Mapping[int, Sequence[Detection]] | None,
    waiting: deque[InputPhoto],
) -> Iterator[ByteArray | ImageRejected]:
    """Yield the frames or crops that are classified, and put what they are of into `waiting`."""
    try:
        for frame in clip:
            own = replace(
                photo,
                name=f"{photo.name}#frame={frame.number}",
                sampling=None,
                seen=None,
                frame=frame.number,
                second=frame.second,
            )
            if of_frame is None:
                waiting.append(own)
                yield frame.pixels
                continue
            for each in of_frame[frame.number]:
                crop = boxes.pixels_in(frame.pixels, each.box)
                waiting.append(replace(own, detection=each))
                yield crop
    except ImageRejected as error:
        yield error


def _combined(
    classifier: Classifier, photo: InputPhoto, frames: list[PhotoResult], rate: float, top: int
) -> PhotoResult:
    among, rule = len(classifier.taxonomy), rule_of(classifier)
    records = [to_record(each, among, wide=True) for each in frames]
    found = combine(records, named_by(classifier, rule), rule, top)
    first = found.prediction.best.taxon.id
    seen = {each["second"] for each in records if each["labels"][0]["taxon_id"] == first}
    also = tuple((each["name"], each["count"]) for each in found.also)
    count = found.count if any(each.photo.detection for each in frames) else 1
    clip = ClipResult(rate, tuple(frames), tuple(sorted(seen)), count, also)
    return PhotoResult(photo, found.prediction, scores=found.p_C, clip=clip)
