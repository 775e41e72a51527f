"""`fieldmark predict`: a classifier and photos in; labels sorted by confidence out.

PyTorch is not imported here: a converted graph runs without it, so that one photo is answered at once.
"""

from __future__ import annotations

from fieldmark.data.checklist import accepted_names
from fieldmark.data.species_list import read_species_list
from fieldmark.inference.checkpoint import records_of, to_file
from fieldmark.inference.clips import predict
from fieldmark.inference.formats import WRITERS, lines, text_lines
from fieldmark.inference.formats.deployments import read_deployments
from fieldmark.inference.formats.submission import check_submission, write_submission
from fieldmark.inference.formats.table import COLUMNS, columns
from fieldmark.inference.formats.tidy import row_of
from fieldmark.inference.inputs import (
    SUFFIXES,
    Boxes,
    InputPhoto,
    at_boxes,
    at_clocks,
    find_all,
    find_photos,
    read_list,
)
from fieldmark.inference.predictor import (
    PhotoResult,
    PredictFunction,
    RejectedCounter,
    for_all,
    with_progress,
)

__all__ = [
    "COLUMNS",
    "SUFFIXES",
    "WRITERS",
    "Boxes",
    "InputPhoto",
    "PhotoResult",
    "PredictFunction",
    "RejectedCounter",
    "accepted_names",
    "at_boxes",
    "at_clocks",
    "check_submission",
    "columns",
    "find_all",
    "find_photos",
    "for_all",
    "lines",
    "predict",
    "read_deployments",
    "read_list",
    "read_species_list",
    "records_of",
    "row_of",
    "text_lines",
    "to_file",
    "with_progress",
    "write_submission",
]
