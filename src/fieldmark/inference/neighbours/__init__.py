"""The nearest labelled training photos of a photo: vectors kept beside the classifier, and the search.

`neighbours.safetensors` in the classifier's folder holds, for at most 50 training photos a class:

    vectors                float16 (N, D): the photos' features, each of length 1
    labels                 int32 (N,): the class of each, as a number in the classifier's taxonomy
    ids, ids_ends          uint8, int64 (N,): their ids, one text after the other, and where each ends
    paths, paths_ends      the same for where they lie, relative to `root` in the metadata
    digests                uint8 (N, 32): SHA-256 of the files
    thumbs, thumbs_ends    only where asked for: small JPEGs in the same form
    centres, cells_ends    only above 200,000 rows: the index

Of an ensemble the member with the largest weight gives the features.

Similarity is the cosine. The search is exact: every row is compared, in blocks of 1,024, so that the
vectors stay on disk (memory-mapped) and a search takes 4 x 1,024 x D bytes, 5 MB for D = 1280.

From 200,000 rows on they are sorted into cells around sqrt(N) centres (spherical k-means; Dhillon and
Modha, "Concept decompositions for large sparse text data using clustering", 2001), and only the rows of
the nearest cells are compared, exactly. How many cells those are is set when the file is written: so
many that 98 % of the 10 nearest rows of 200 photos are found; what was reached is in the metadata.

A folder may come from anywhere: a file on this machine is shown as a training photo only if it has the
digest of that photo.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.inference.classifier import Classifier
from fieldmark.inference.neighbours.index import FILE, Neighbour, Neighbours
from fieldmark.inference.neighbours.writing import write
from fieldmark.utils.errors import InputError

__all__ = ["FILE", "Neighbour", "Neighbours", "of", "similar", "write"]


def similar(classifier: Classifier, photo: npt.NDArray[Any], k: int = 5) -> list[Neighbour]:
    """The training photos that are most like a photo, the nearest first.

    Args:
        classifier: as loaded from its folder.
        photo: a crop, uint8 (size, size, 3), as `classifier.lead.preprocess` makes it; or its features,
            float (D,).
        k: how many, at most.

    Raises:
        InputError: nothing is kept in the classifier's folder.
        ClassifierError: what is kept there is damaged, or of another classifier.
    """
    kept = of(classifier)
    if kept is None:
        raise InputError(
            f"{classifier.source} keeps no training photos ({FILE}): train the classifier anew."
        )
    x_1D = classifier.lead.network.engine(photo[None]) if photo.dtype == np.uint8 else photo[None]
    return kept.similar(x_1D, k)[0]


@lru_cache(maxsize=4)
def of(classifier: Classifier) -> Neighbours | None:
    """What is kept beside a classifier; None where there is nothing.

    Raises:
        ClassifierError: it is damaged, or of another classifier.
    """
    if not isinstance(classifier.source, Path) or not (classifier.source / FILE).is_file():
        return None
    return Neighbours(classifier.source / FILE, classifier)
