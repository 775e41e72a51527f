"""Studies: a recipe in, a table of comparable runs out.

All runs share one split, one seed, one crop and one order of training photos. Each row is written as
soon as it is known, with its scores, and a study that was interrupted continues with the rows that are
missing:

    DIR/study.json          everything, rows in the order of the recipe
    DIR/rows/ID.json        one row
    DIR/scores/ID.safetensors   its scores on the photos it was measured on
    DIR/photos.parquet, DIR/split.parquet
    DIR/report.html
"""

from fieldmark.experiments.study.config import StudyConfig
from fieldmark.experiments.study.result import StudyResult
from fieldmark.experiments.study.runner import study

__all__ = ["StudyConfig", "StudyResult", "study"]
