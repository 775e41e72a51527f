"""Run a detector over photos and clips, and write what it finds as MegaDetector's JSON, version 1.5.

https://lila.science/megadetector-output-format. The file does not say when it was made, so that a run
that was killed and resumed gives the same bytes as one that was not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fieldmark import __version__
from fieldmark.data import images
from fieldmark.data.detections import Detection
from fieldmark.data.videos import Clip, Sampling
from fieldmark.inference import journal
from fieldmark.inference.formats.megadetector import NAMES, entry_of
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.journal import Journal
from fieldmark.inference.predictor import place_to_read
from fieldmark.models.detectors import Detector
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order

BATCH = 8  # photos; a batch begins at the same photos in every run, since others may change the last digit

Entry = dict[str, Any]
"""What is known of a photo or clip: `file`, `detections`, perhaps `datetime`; or `rejected`, the reason."""


def detect_to_file(
    path: Path, detector: Detector, photos: Sequence[InputPhoto], *, threshold: float, settings: str = ""
) -> int:
    """Detect animals, people and vehicles into a file, going on where an earlier run stopped.

    Args:
        path: the file, `.json`.
        detector: what finds them.
        photos: and clips, in EXIF orientation, as MegaDetector has them; each is listed once.
        threshold: below which boxes were left out.
        settings: of the detector, with others of which a later run begins anew.

    Returns:
        How many photos could not be used; each has a row with its reason.

    Raises:
        InputError: the file has another suffix, cannot be written, or is another one.
        StoreError: another process writes it.
    """
    if path.suffix.lower() != ".json":
        raise InputError(f"{path} should end in .json: it is written as MegaDetector's JSON.")
    about = {"format": "fieldmark-boxes-1", "detector": detector.facts.digest, "threshold": threshold}
    once = [*{photo.name: photo for photo in photos}.values()]
    clips = [photo for photo in once if photo.sampling is not None]
    single = [photo for photo in once if photo.sampling is None]
    if clips:
        about["clips"] = str(clips[0].sampling)
    kept: Journal[Entry] = Journal(path, about | {"settings": settings}, lambda entry: entry["file"], "seen")
    with publishing.writing_file(path, "--out"):
        known = kept.resume({photo.name: photo.path for photo in once})
        batches = [single[at : at + BATCH] for at in range(0, len(single), BATCH)]
        left = [batch for batch in batches if any(photo.name not in known for photo in batch)]
        left_clips = [clip for clip in clips if clip.name not in known]
        with progress_bar("detecting", sum(map(len, left)) + len(left_clips)) as stage:
            for batch, found in zip(left, _found(detector, left), strict=True):
                both = zip(batch, found, strict=True)
                kept.add([journal.line(photo.path, entry) for photo, entry in both])
                stage.advance(len(batch))
            for clip in left_clips:
                kept.add([journal.line(clip.path, _of_clip(detector, clip))])
                stage.advance(note=clip.name)
        offsets = kept.offsets()
        rows = [offsets[photo.name] for photo in once]
        rejected = sum("rejected" in entry for entry in kept.at(rows))
        with io.replacing(path) as temporary, temporary.open("wb") as handle:
            lines = _lines(_about(detector, threshold), kept.at(rows), len(rows))
            handle.writelines(f"{line}\n".encode() for line in lines)
    return rejected


def _found(detector: Detector, batches: Sequence[Sequence[InputPhoto]]) -> Iterator[list[Entry]]:
    """Yield the entries of each batch; photos are read and resized in threads, ahead of the detector."""
    flat = (photo for batch in batches for photo in batch)
    ready = in_order(lambda photo: _prepared(detector, photo), flat, ahead=BATCH)
    for batch in batches:
        rows = [next(ready) for _ in batch]
        found = iter(detector.detect([given for _, given in rows if not isinstance(given, ImageRejected)]))
        yield [
            _entry(about, given if isinstance(given, ImageRejected) else next(found)) for about, given in rows
        ]


def _prepared(detector: Detector, photo: InputPhoto) -> tuple[Entry, Any]:
    """Return the name and time of a photo, and what the detector takes of it or why it takes nothing."""
    about: Entry = {"file": photo.name}
    try:
        place = place_to_read(photo)
        if isinstance(place, ImageRejected):
            return about, place
        data = images.read_bytes(place)
        pixels = images.decode(data)
        return about | _time(photo, data), detector.prepare(pixels)
    except ImageRejected as error:
        return about, error


def _of_clip(detector: Detector, photo: InputPhoto) -> Entry:
    """Return the entry of a clip: the boxes in those of its frames that are taken, in a stream."""
    place = place_to_read(photo)
    about: Entry = {"file": photo.name, "frame_rate": -1.0, "frames_processed": []}
    seen: list[Entry] = []
    try:
        if isinstance(place, ImageRejected):
            raise place
        frames = Clip(place, photo.sampling or Sampling())
        ready = in_order(lambda each: (each.number, detector.prepare(each.pixels)), frames, ahead=BATCH)
        while batch := list(islice(ready, BATCH)):
            found = detector.detect([given for _, given in batch])
            for (number, _), boxes in zip(batch, found, strict=True):
                if isinstance(boxes, ImageRejected):
                    raise boxes
                about["frames_processed"].append(number)
                seen += [entry_of(each) | {"frame_number": number} for each in boxes]
    except ImageRejected as error:
        return about | {"frames_processed": [], "rejected": str(error)}
    return about | {"frame_rate": round(frames.rate, 6), "detections": seen}


def _time(photo: InputPhoto, data: bytes) -> Entry:
    """Return the time of a photo as EXIF writes it, which MegaDetector's own files have as well."""
    taken = photo.taken or images.exif(data).taken
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d:\d\d:\d\d)", taken)
    return {"datetime": f"{found[1]}:{found[2]}:{found[3]} {found[4]}"} if found else {}


def _entry(about: Entry, found: tuple[Detection, ...] | ImageRejected) -> Entry:
    if isinstance(found, ImageRejected):
        return about | {"rejected": str(found)}
    return about | {"detections": [entry_of(each) for each in found]}


def _about(detector: Detector, threshold: float) -> Mapping[str, Any]:
    facts = detector.facts
    metadata = {
        **({"megadetector_version": facts.version} if facts.version else {}),
        **({"typical_detection_threshold": facts.usual} if facts.usual is not None else {}),
    }
    own = {"fieldmark_version": __version__, "detector_sha256": facts.digest, "threshold": threshold}
    return {
        "info": {
            "format_version": "1.5",
            "detector": facts.name,
            **({"detector_metadata": metadata} if metadata else {}),
            "custom_metadata": own,
        },
        "detection_categories": NAMES,
    }


def _lines(about: Mapping[str, Any], entries: Iterator[Entry], count: int) -> Iterator[str]:
    yield json.dumps(about, ensure_ascii=False)[:-1] + ', "images": ['
    for at, entry in enumerate(entries, 1):
        row = dict(entry)
        if why := row.pop("rejected", None):
            row |= {"detections": None, "failure": f"Failure image access: {why}"}
        yield json.dumps(row, ensure_ascii=False) + ("," if at < count else "")
    yield "]}"
