"""The study: a recipe in, a table of comparable runs out.

All runs share one split, one seed, one crop and one order of training photos. Each row is written as
soon as it is known, with its scores, and a study that was cut off goes on with the rows that are
missing:

    DIR/study.json          everything, rows in the recipe's order
    DIR/rows/ID.json        one row
    DIR/scores/ID.safetensors   its scores on the photos it was measured on
    DIR/photos.parquet, DIR/split.parquet
    DIR/report.html

A file each: what it is told (`config`), which networks there are (`networks`), the photos and classes
(`data`), what is known so far (`work`), how a row comes about by its mode (`modes`), when a kept row
may be taken (`keys`), what a row says (`rows`), what is written (`writing`), and the whole in turn
(`running`).
"""

from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.runner import study

__all__ = ["StudyConfig", "study"]
