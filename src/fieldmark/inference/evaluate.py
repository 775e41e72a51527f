"""Evaluate a classifier on labelled photos, from the photos themselves."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars

from fieldmark.data.dataset import Dataset, PartName, read_photos
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.subset import LabelledPhotos, photos_of
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.evaluation.results import Evaluation
from fieldmark.inference.classifier import Classifier
from fieldmark.utils.errors import ImageRejected, InputError
from fieldmark.utils.logging import progress_bar

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def evaluate(
    classifier: Classifier,
    photos: str | Path | Dataset | PhotoTable | polars.DataFrame | pd.DataFrame,
    part: PartName | Literal["all"] | None = None,
) -> Evaluation:
    """Measure a classifier on labelled photos.

    Photos are read one after the other; only the scores, N x C float32, are held in memory. A photo
    whose label the classifier does not know counts as an error in `top1_error_all_classes`. A photo
    that can no longer be decoded is left out, with a warning in the log.

    Args:
        photos: a `Dataset`, or labelled photos as `load_dataset` takes them.
        part: of a `Dataset`: `train`, `val`, `test` or `all`; None: `test`. Other photos are not
            divided: all of them are used.

    Returns:
        The calibrated log-probabilities with the labels; `summary()` gives the measures.

    Raises:
        InputError: the photos cannot be read, there are none in the part, or a part is named of photos
            that are not divided.
    """
    labelled, taxonomy = _labelled(photos, part)
    if not len(labelled):
        raise InputError(f"There is no labelled photo in the part {part or 'test'}: name another.")
    known = {taxon.name.casefold(): taxon.id for taxon in classifier.taxa}
    known |= {taxon.id: taxon.id for taxon in classifier.taxa}
    ids = labelled.taxon_ids
    own = (known.get(each) or known.get(taxonomy[each].name.casefold()) or each for each in ids)
    labelled = replace(labelled, taxon_ids=tuple(own))
    scores_NC = np.empty((len(labelled), len(classifier.taxa)), np.float32)
    usable_N = np.ones(len(labelled), np.bool_)
    with progress_bar("evaluating", len(labelled)) as bar:
        for row, output in enumerate(classifier.stream(file.path for file in labelled.files)):
            if isinstance(output, ImageRejected):
                logger.warning(f"Photo {labelled.ids[row]} is left out: {output}")
                usable_N[row] = False
            else:
                scores_NC[row] = output[0]
            bar.advance()
    if not usable_N.all():
        labelled, scores_NC = labelled.where(usable_N), scores_NC[usable_N]
    with np.errstate(divide="ignore"):
        np.log(scores_NC, out=scores_NC)
    return Evaluation.of(labelled, scores_NC, classifier.classes)


def _labelled(photos: Any, part: str | None) -> tuple[LabelledPhotos, Taxonomy]:
    """The photos to evaluate on, and the taxa of their labels."""
    if isinstance(photos, Dataset):
        if part not in (None, "train", "val", "test", "all"):
            raise InputError(f"part is {part!r}: choose train, val, test or all.")
        table, split = photos.table, photos.split
    elif part in (None, "all"):
        table, split, part = read_photos(photos)[0], None, "all"
    else:
        raise InputError(
            f"These photos are not divided, so there is no part {part!r}: leave it out, or pass what "
            "load_dataset returns."
        )
    if part == "all" or split is None:
        ids, part = table.labelled["id"].sort(), "test"
        split = Split(polars.DataFrame({"id": ids}).with_columns(part=polars.lit("test")), 0, "official")
    return photos_of(table, split, part or "test"), table.taxonomy  # type: ignore[arg-type]
