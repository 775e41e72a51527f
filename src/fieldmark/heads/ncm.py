"""Nearest class mean: the class whose mean feature vector is nearest, as a linear layer.

The squared distance to a mean is x·x - 2 x·m + m·m; the first term is the same for all classes
(Mensink et al., "Distance-based image classification", 2013, section 3).
"""

from __future__ import annotations

import time

import numpy as np
import torch

from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import FittedHead, LinearHead, Scaling
from fieldmark.heads.ridge import class_counts
from fieldmark.heads.scaling import fit_weights, subsample


def fit(
    train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int = 0
) -> FittedHead[LinearHead]:
    """Compute the means in one pass, and fit the scale of the logits on the validation photos.

    Args:
        train: training photos; those with label -1 are ignored.
        val: validation photos.
        classes: C; a class without training photos is never predicted.
        seed: not used; nothing here is random.
    """
    del seed
    start = time.perf_counter()
    train = train.where(train.labels >= 0)
    scaling, count_C = Scaling.of(train.features), class_counts(train, classes)
    sum_CD = np.zeros((classes, train.features.dim))
    for first, block in train.features.blocks():
        np.add.at(sum_CD, train.labels[first : first + len(block)], scaling.apply(block))
    mean_CD = sum_CD / np.maximum(1, count_C)[:, None]
    near = LinearHead(mean_CD.T.astype(np.float32), (-0.5 * np.square(mean_CD).sum(1)).astype(np.float32))
    head = scaling.fold(near).exclude_unseen(count_C)
    measured = subsample(val, classes)
    s_NC = torch.from_numpy(head.logits_of(measured.features))
    # Distances are sums over features, so their unit is the number of features.
    unit = 1 / max(1, train.features.dim)
    weights = fit_weights((s_NC * unit,), torch.from_numpy(measured.labels), ((10.0, 10.0),))
    scale = max(weights.values[0], 0.05) * unit
    return FittedHead(head.times(scale), weights.loss, time.perf_counter() - start)
