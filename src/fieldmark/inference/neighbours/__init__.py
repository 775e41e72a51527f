"""The most similar training photos of a photo: vectors in the classifier's folder, and the search.

`neighbours.safetensors` in the classifier's folder holds, for at most 50 training photos a class:

    vectors                float16 (N, D): the photos' features, each of length 1
    labels                 int32 (N,): the class of each, as a number in the classifier's taxonomy
    ids, ids_ends          uint8, int64 (N,): their ids, concatenated, and the end of each
    paths, paths_ends      the same for their paths, relative to `root` in the metadata
    digests                uint8 (N, 32): SHA-256 of the files
    thumbs, thumbs_ends    optional: small JPEGs in the same form
    centres, cells_ends    only above 200,000 rows: the index

For an ensemble the features are those of the member with the largest weight. Similarity is the cosine. The
search is exact: every row is compared, in blocks, so that the vectors stay on disk (memory-mapped). With
200,000 rows or more they are sorted into cells around sqrt(N) centres (spherical k-means; Dhillon and Modha,
"Concept decompositions for large sparse text data using clustering", 2001), and only the rows of the nearest
cells are compared, exactly; as many as find 98 % of the 10 nearest rows of 200 photos. A folder may come from
anyone: a file on this computer is shown as a training photo only if its digest is that of the photo.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.inference.classifier import Classifier
from fieldmark.inference.neighbours.index import FILE, Neighbour, Neighbours, thumbnail
from fieldmark.inference.neighbours.writing import write
from fieldmark.utils.errors import InputError

__all__ = ["FILE", "Neighbour", "Neighbours", "load_index", "similar", "thumbnail", "write"]


def similar(classifier: Classifier, photo: npt.NDArray[Any], k: int = 5) -> list[Neighbour]:
    """Return the training photos most similar to a photo, the nearest first.

    The photo is a crop of `classifier.lead.preprocess`, uint8 (size, size, 3), or its features, float (D,).

    Raises:
        InputError: the classifier's folder has no training photos.
        ClassifierError: their file is damaged, or of another classifier.
    """
    index = load_index(classifier)
    if index is None:
        raise InputError(f"{classifier.source} has no training photos ({FILE}): train the classifier again.")
    x_1D = classifier.lead.network.engine(photo[None]) if photo.dtype == np.uint8 else photo[None]
    return index.similar(x_1D, k)[0]


@lru_cache(maxsize=4)
def load_index(classifier: Classifier) -> Neighbours | None:
    """Open the training photos in a classifier's folder, if any; raises ClassifierError if damaged."""
    if not isinstance(classifier.source, Path) or not (classifier.source / FILE).is_file():
        return None
    return Neighbours(classifier.source / FILE, classifier)
