"""`fieldmark predict`: a classifier and photos in; labels sorted by confidence out.

    items.py        which photos the arguments stand for
    naming.py       photos to predictions, in order, with what could not be used
    text.py         what the terminal shows
    entry.py        what came of one photo as a JSON object: what every file is made from
    answer.py       the one answer of an entry in the terms that standards share
    table.py        the same as rows of a table
    writers/        the forms of a file, one each
    journal.py      what was named before a kill; the file is made from it at the end
    submission.py   the challenge's id,predicted

PyTorch is not imported here: a converted graph runs without it, so that one photo is answered at once.
"""

from __future__ import annotations

from fieldmark.inference.checkpoint import to_file
from fieldmark.inference.formats import WRITERS, lines
from fieldmark.inference.formats.submission import check_submission, write_submission
from fieldmark.inference.formats.table import COLUMNS, columns
from fieldmark.inference.formats.text import text_lines
from fieldmark.inference.inputs import (
    SUFFIXES,
    InputPhoto,
    find_photos,
    read_list,
    read_species_list,
)
from fieldmark.inference.predictor import (
    PhotoResult,
    PredictFunction,
    RejectedCounter,
    predict,
    with_progress,
)

__all__ = [
    "COLUMNS",
    "SUFFIXES",
    "WRITERS",
    "InputPhoto",
    "PhotoResult",
    "PredictFunction",
    "RejectedCounter",
    "check_submission",
    "columns",
    "find_photos",
    "lines",
    "predict",
    "read_list",
    "read_species_list",
    "text_lines",
    "to_file",
    "with_progress",
    "write_submission",
]
