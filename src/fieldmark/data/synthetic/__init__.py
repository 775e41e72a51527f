"""A synthetic data set: photos of invented butterflies, to try fieldmark without a download.

Similar species, a long tail of rare ones, several photos of one animal, rotated and damaged files, in
the layout of the iNaturalist 2019 challenge.

    folder/train2019.json, val2019.json     photos with labels
    folder/test2019.json                    photos without labels
    folder/answers.json                     the labels of the test photos
    folder/train_val2019/<supercategory>/<category id>/<name>.jpg
    folder/test2019/<name>.jpg
    folder/fieldguide.json                  what was drawn, and whether it is complete
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fieldmark.data.synthetic import marker
from fieldmark.data.synthetic.camera import photograph
from fieldmark.data.synthetic.marker import MARKER
from fieldmark.data.synthetic.plan import Frame, plan
from fieldmark.data.synthetic.small import draw_like
from fieldmark.data.synthetic.species import Species, create_species
from fieldmark.data.synthetic.stations import draw_stations
from fieldmark.utils import io
from fieldmark.utils.cpu import cores
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.threads import in_order

__all__ = ["MARKER", "draw", "draw_like", "draw_stations"]

_VERSION = 1  # of the drawings: another one gives other photos
_ANNOTATIONS = ("train2019.json", "val2019.json", "test2019.json", "answers.json")
_WEB_PAGE = b"<!DOCTYPE html><title>404</title><p>The photo that you are looking for has moved.</p>\n"


def draw(
    folder: Path, *, species: int = 48, photos: int = 1100, seed: int = 0, workers: int | None = None
) -> None:
    """Draw a field guide into a new or empty `folder`, or complete one there; equal arguments give equal
    bytes.

    A complete guide is not changed. Two files of the training part are damaged, as in real collections: one
    is truncated, one is a web page. All is drawn from the seed, by so many threads (None: one a core).

    Raises:
        InputError: less than 2 species or 6 photos of each; or the folder has other files, or cannot be
            written to.
    """
    if species < 2 or photos < 6 * species:
        raise InputError(
            f"A field guide of {species} species and {photos} photos is too small: ask for at least "
            "2 species, and for at least 6 photos of each."
        )
    about = {"version": _VERSION, "species": species, "photos": photos, "seed": seed}
    done = marker.is_complete(folder, about)
    kinds = create_species(species, seed)
    frames = plan(kinds, photos, seed)
    missing = [frame for frame in frames if not (folder / frame.path).exists()]
    if done and not missing and all((folder / name).exists() for name in _ANNOTATIONS):
        return
    marker.write(folder, about, complete=False)
    _draw_all(folder, kinds, missing, seed, workers or cores())
    _annotate(folder, kinds, frames)
    marker.write(folder, about, complete=True)


def _draw_all(folder: Path, kinds: tuple[Species, ...], frames: list[Frame], seed: int, workers: int) -> None:
    """Draw the photos in threads: Pillow and NumPy release the GIL."""

    def one(frame: Frame) -> None:
        data = photograph(kinds[frame.species], seed, frame.individual, frame.name)
        if frame.defect == "truncated":
            data = data[: len(data) // 2]
        elif frame.defect == "web page":
            data = _WEB_PAGE
        io.write_bytes(folder / frame.path, data)

    with progress_bar("Drawing the field guide", total=len(frames)) as stage:
        for _ in in_order(one, frames, workers):
            stage.advance()


def _annotate(folder: Path, kinds: tuple[Species, ...], frames: list[Frame]) -> None:
    """Write the annotation files."""
    licence = {
        "id": 1,
        "name": "CC0 1.0 Universal",
        "url": "https://creativecommons.org/publicdomain/zero/1.0/",
    }
    info = {
        "year": 2019,
        "version": str(_VERSION),
        "description": "A synthetic field guide of invented butterflies",
        "contributor": "fieldmark",
        "url": "",
        "date_created": "",
    }
    for part in ("train", "val", "test"):
        within = [frame for frame in frames if frame.part == part]
        document: dict[str, Any] = {
            "info": info,
            "images": [_image(frame) for frame in within],
            "licenses": [licence],
            "categories": [kind.category() for kind in kinds],
        }
        labels = [
            {"id": frame.id, "image_id": frame.id, "category_id": kinds[frame.species].id} for frame in within
        ]
        if part == "test":
            io.write_json(folder / "answers.json", {"annotations": labels})
        else:
            document["annotations"] = labels
        io.write_json(folder / f"{part}2019.json", document)


def _image(frame: Frame) -> dict[str, Any]:
    width, height = frame.size
    entry = {"id": frame.id, "file_name": frame.path, "width": width, "height": height}
    sequence = {} if frame.sequence is None else {"seq_id": frame.sequence}
    return entry | {"license": 1, "rights_holder": ""} | sequence
