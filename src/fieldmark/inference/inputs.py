"""Find the photos that the arguments of `fieldmark predict` stand for."""

from __future__ import annotations

import glob
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Literal

from fieldmark.data import videos
from fieldmark.data.detections import USUAL_THRESHOLD, Detection, Detections, check_matched
from fieldmark.data.events import place_of
from fieldmark.data.locations import SEEN
from fieldmark.data.storage import fsspec
from fieldmark.data.storage.fsspec import Remote
from fieldmark.data.storage.places import Boxed, Place, boxed_text, file_of
from fieldmark.data.videos import Sampling
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, RejectReason
from fieldmark.utils.printable import printable

logger = logging.getLogger(__name__)

RAW = (".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pnm", ".avif", ".heic", ".heif", ".hif", ".jxl"),
        *RAW,
    )
)
Kind = Literal["animal", "human", "vehicle", "blank"]
_ANNOTATIONS = (".json", ".json.gz")
_LISTS = (*_ANNOTATIONS, ".csv", ".tsv", ".xlsx", ".parquet", ".tar", ".zip", ".xml")
"""Suffixes of files that a reader can read."""


@dataclass(frozen=True)
class InputPhoto:
    """One photo to predict."""

    name: str  # in the output
    path: Place
    id: str | None = None  # its id in its list; None where that is its name
    outside: bool = False  # its path in its list leads out of the list's folder, so it is not read
    deployment: str | None = None  # the camera deployment, where its list gives it
    taken: str | None = None  # its time, where its list gives it
    location: str | None = None  # its place, where its list gives it
    sequence: str | None = None  # its sequence, where its list gives it
    latitude: float | None = None  # in degrees, where its list gives it
    longitude: float | None = None
    temperature: float | None = None  # in degrees Celsius, where its list gives it
    camera_model: str | None = None  # maker and model, where its list gives them
    camera_serial: str | None = None  # of the camera, where its list gives it
    late: float = 0.0  # by how many seconds the camera's clock was slow
    detection: Detection | None = None  # the box that it is cut to, or that shows a person or a vehicle
    kind: Kind = "animal"  # what the boxes of a photo show; only an animal is classified
    others: tuple[Detection, ...] = ()  # further boxes of the photo, with its first row
    sampling: Sampling | None = None  # of a clip: which of its frames are taken
    seen: tuple[Detection, ...] | None = None  # of a clip: the boxes of its frames; None: they are unknown
    frame: int | None = None  # of a frame: its number in its clip
    second: float | None = None  # of a frame: its time, from the first

    @property
    def place(self) -> str:
        """Return the deployment, the location, or the folder that it is in."""
        return place_of(self.deployment, self.location, self.name)

    @property
    def key(self) -> str:
        """Return its name, and that of the box: no other photo has it."""
        return boxed_text(self.name, self.detection.box) if self.detection else self.name


@dataclass(frozen=True)
class Boxes:
    """Boxes of the photos to predict.

    Attributes:
        detections: of the photos.
        threshold: the confidence from which on a box counts.
    """

    detections: Detections
    threshold: float

    @classmethod
    def read(cls, path: Path, threshold: float | None, learned: float | None) -> Boxes:
        """Read a file of boxes.

        Args:
            path: the file, see `fieldmark.data.readers.box_files`.
            threshold: None: that of the photos that a classifier learned from, else that of the file.
            learned: the confidence that was found to be best on those.

        Raises:
            InputError: the file cannot be read.
        """
        from fieldmark.data.readers.box_files import read_boxes

        return cls.of(read_boxes(path), threshold, learned)

    @classmethod
    def of(cls, found: Detections, threshold: float | None, learned: float | None) -> Boxes:
        """Return boxes that were read, see `read`."""
        known = (each for each in (threshold, learned, found.threshold) if each is not None)
        return cls(found, next(known, USUAL_THRESHOLD))

    @cached_property
    def digest(self) -> str:
        """Return a digest of the boxes and the threshold."""
        found = {name: [str(each) for each in boxes] for name, boxes in self.detections.of_file.items()}
        return io.digest([found, self.threshold])


def at_boxes(photos: Sequence[InputPhoto], boxes: Boxes) -> list[InputPhoto]:
    """Return a row for each box of an animal; a photo without one is blank, or shows a person or vehicle.

    A photo that the file of boxes does not list is classified as a whole.

    Raises:
        InputError: the file lists none of the photos.
    """
    of_photo = boxes.detections.matched([photo.name for photo in photos])
    check_matched(len(of_photo), len(photos))
    return [
        row
        for photo in photos
        for row in (
            _rows_of(photo, of_photo[photo.name], boxes.threshold) if photo.name in of_photo else [photo]
        )
    ]


def _rows_of(photo: InputPhoto, found: Sequence[Detection], threshold: float) -> list[InputPhoto]:
    sure = sorted((each for each in found if each.confidence >= threshold), key=lambda each: -each.confidence)
    if photo.sampling is not None:
        return [replace(photo, seen=tuple(sure))]
    animals = [each for each in sure if each.category == "animal"]
    if not animals or isinstance(photo.path, Boxed):
        first = next(iter(sure), None)
        rows = [replace(photo, detection=first, kind=first.category if first else "blank")]
        shown = [first]
    else:
        rows = [replace(photo, path=Boxed(photo.path, each.box), detection=each) for each in animals]
        shown = [*animals]
    others = tuple(each for each in found if each not in shown)
    return [replace(rows[0], others=others), *rows[1:]]


def at_clocks(photos: Sequence[InputPhoto], clocks: Mapping[str, float]) -> list[InputPhoto]:
    """Correct the times of photos, see `fieldmark.data.events.read_clocks`.

    A deployment is a place of the photos (see `InputPhoto.place`), or the end of the path of one.

    Raises:
        InputError: a deployment of the clocks has no photo, or is the end of several places.
    """
    places = {photo.place for photo in photos}
    late = {}
    for name, seconds in clocks.items():
        found = [name] if name in places else sorted(each for each in places if each.endswith(f"/{name}"))
        if len(found) > 1:
            raise InputError(
                f"The deployment {name!r} of the clocks is {len(found)} places ({found[0]}, {found[1]}): "
                "write more of their path."
            )
        if not found:
            raise InputError(
                f"No photo is of the deployment {name!r} of the clocks: write the folder of its photos, or "
                "its name in the photos' list."
            )
        late[found[0]] = seconds
    return [replace(photo, late=late.get(photo.place, 0.0)) for photo in photos]


def find_photos(arguments: Sequence[Path]) -> list[InputPhoto]:
    """Return the photos that the arguments stand for.

    An argument is a file, a folder, a pattern (`photos/**/*.jpg`), a list (`@list.txt`, `-` for
    standard input), an annotation file without labels, a tar, a table; or the URL of any of these.

    Raises:
        InputError: an argument does not exist, a folder or pattern contains no photo, or a store
            refuses the credentials or does not answer.
    """
    return [photo for argument in arguments for photo in _found(argument)]


def find_all(
    arguments: Sequence[Path], listed: Sequence[str], sampling: Sampling | None = None
) -> list[InputPhoto]:
    """Return the photos of arguments (see `find_photos`) and of lists (see `read_list`).

    Files whose names are those of clips become clips, of which `sampling` says which frames are taken.

    Raises:
        InputError: as they do, or there is none.
    """
    found = find_photos(arguments)
    for each in listed:
        found += read_list(each)
    if not found:
        raise InputError("No photo is given: name photos or folders, or a list with --list.")
    sampling = sampling or Sampling()
    return [
        replace(photo, sampling=sampling) if videos.is_video(str(file_of(photo.path) or "")) else photo
        for photo in found
    ]


def _found(argument: Path) -> list[InputPhoto]:
    text = str(argument)
    if text == "-" or (text.startswith("@") and not argument.exists()):
        return read_list(text.removeprefix("@"))
    if (place := fsspec.parse_url(argument)) is not None:
        return _at_url(place, argument)
    if argument.is_dir():
        return _in_folder(argument)
    if _is_list(argument.name):
        return _in_list(argument)
    if argument.exists():
        return [InputPhoto(_shown(argument), argument)]
    if any(character in text for character in "*?["):
        return _matching(text)
    raise InputError(f"{argument} does not exist: name a photo, a folder or an annotation file.")


def read_list(name: str) -> list[InputPhoto]:
    """Return the photos of a list: a path or URL a line, or separated by zero bytes; `-` is standard input.

    A missing file becomes a rejected photo in the output. Folders are searched. Raises InputError if the
    list cannot be read, or is empty.
    """
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{name} could not be read ({error.strerror or error}): name a text file with a path a line."
        ) from error
    lines = raw.split(b"\0") if b"\0" in raw else raw.splitlines()
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        where = "Standard input" if name == "-" else name
        raise InputError(f"{where} names no photo: a list has a path a line.")
    found: list[InputPhoto] = []
    for path in paths:
        if (place := fsspec.parse_url(path)) is not None:
            found.append(InputPhoto(str(place), place))
        else:
            found += _in_folder(path) if path.is_dir() else [InputPhoto(_shown(path), path)]
    return found


def _matching(pattern: str) -> list[InputPhoto]:
    """Return the photos, and the photos of folders, that match a pattern."""
    found: list[InputPhoto] = []
    for path in sorted(map(Path, glob.glob(pattern, recursive=True))):  # noqa: PTH207  # absolute
        if path.is_file() and _is_picture(path.name):
            found.append(InputPhoto(_shown(path), path))
        elif path.is_dir() and "**" not in pattern:
            found += _in_folder(path)
    if not found:
        raise InputError(f"{pattern} matches no photo: name one with JPEG, PNG or other pictures.")
    return found


def _is_list(name: str) -> bool:
    return name.lower().endswith(_LISTS)


def _in_folder(folder: Path) -> list[InputPhoto]:
    """Return the photos of a folder's list or, without one, all photos in it and its subfolders.

    The challenge's annotations do not count as a list: a folder of them has several parts.
    """
    from fieldmark.data import readers

    if readers.is_list(folder) and not readers.inat.annotation_files(folder):
        found = _in_list(folder)
        if any(isinstance(photo.path, Path) for photo in found):  # there may be others beside it
            logger.info(
                f"{folder} has a list of its photos: using these {len(found):,}. For all photos in "
                f'the folder, write "{folder}/**/*".'
            )
        return found
    paths = [
        Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
        if _is_picture(name) and not name.startswith(".")
    ]
    if not paths:
        if any(_is_list(path.name) for path in folder.iterdir()):
            return _in_list(folder)  # raises the error that explains what is wrong
        raise InputError(f"{folder} holds no photo: name a folder with JPEG, PNG or other pictures.")
    developed = {path.with_suffix("") for path in paths if path.suffix.lower() not in RAW}
    # Cameras can write a JPEG beside each raw file, with the same name: it is the same photo.
    kept = (path for path in paths if path.suffix.lower() not in RAW or path.with_suffix("") not in developed)
    return [InputPhoto(_shown(path), path) for path in sorted(kept)]


def _shown(path: Path) -> str:
    """Return a path as printable text: control characters, and bytes that are no Unicode, are escaped."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def _is_picture(name: str) -> bool:
    return PurePath(name).suffix.lower() in SUFFIXES or videos.is_video(name)


def _at_url(place: Remote, argument: Path) -> list[InputPhoto]:
    """Return the photos that the URL of a photo, a folder, a tar or a list stands for."""
    if _is_picture(place.name):
        return [InputPhoto(str(place), place)]
    names = [] if _is_list(place.name) else fsspec.list_objects(place)
    every = [place / name for name in names if not PurePath(name).name.startswith(".")]
    found = [InputPhoto(str(photo), photo) for photo in every if _is_picture(photo.name)]
    return found or _in_list(argument)


def _in_list(path: Path) -> list[InputPhoto]:
    """Return the photos that a reader lists, with their ids.

    Photos of an annotation file have the names that the file gives them.
    """
    from fieldmark.data import readers

    annotations = path.name.lower().endswith(_ANNOTATIONS) and path.name != "datapackage.json"
    table = readers.read(path, source="inat" if annotations else None, verify=False)
    columns = ("id", "path", "reason", "deployment", "taken", "location", "sequence", *SEEN)
    found = []
    for photo_id, file, reason, *about in table.frame.select(columns).iter_rows():
        if reason == RejectReason.DUPLICATE_ID:
            continue  # the first photo with this id has a row
        place, outside = table.file_of(file), reason == RejectReason.OUTSIDE
        # A photo within a tar has the name of its id: its place is two numbers.
        below = file if isinstance(place, (Path, Remote)) else photo_id
        name = file if annotations else str(table.root / below)
        own_id = photo_id if annotations or photo_id != below else None
        found.append(InputPhoto(name, place, own_id, outside, *about))
    return found
