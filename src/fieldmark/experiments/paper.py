"""The numbers that the paper prints, to stand beside ours.

R. P. Kosaraju, "Deep CNNs for large scale species classification". Every error is the paper's
top-one validation error after 10 epochs, except `TEST_ERROR`.
"""

from __future__ import annotations

PHOTOS = 268_243
CLASSES = 1_010
TRAIN_PHOTOS, VAL_PHOTOS = 241_418, 26_824

TABLE_1 = {"max": 500, "min": 212, "median": 262, "sd": 167}
"""As printed. 212 is the median of the challenge's train part and 262 its mean; its minimum is 16."""

TABLE_2 = {"complete": 0.88, "pruned": 0.86}

TABLE_3 = {"alexnet": 0.86, "densenet": 0.71, "squeezenet": 0.80, "shufflenet": 0.96, "resnext": 0.68}
"""By family: the paper does not say which member of each family it used."""

TEST_ERROR = 0.69  # of ResNeXt, whose validation error is 0.68


def table_3(backbone: str) -> float | None:
    """What the paper's Table 3 prints for the family of a backbone, or None."""
    return next((error for family, error in TABLE_3.items() if backbone.startswith(family)), None)
