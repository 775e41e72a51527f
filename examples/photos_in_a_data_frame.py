"""Evaluate a classifier on photos whose labels are in a data frame, and write the predictions to it.

python photos_in_a_data_frame.py MODEL TABLE.csv

The table has the columns file_name and label; file names are absolute or relative to this folder.
"""

import sys

import polars as pl

from fieldmark import Classifier, evaluate

model, table = sys.argv[1:]
classifier = Classifier.load(model)
frame = pl.read_csv(table)
summary = evaluate(classifier, frame).summary()
print(f"top-1 error {summary['top1_error_all_classes']:.1%} on {summary['photos']} photos")

found = list(classifier.predict(frame["file_name"], top=1))
frame = frame.with_columns(
    predicted=pl.Series([each.best.taxon.name for each in found]),
    score=pl.Series([each.best.score for each in found]),
)
print(frame.group_by("label", "predicted").len().sort("label", "predicted"))
