"""Train a classifier on a folder of labelled photos, and predict more photos with it.

python train_and_predict.py PHOTOS MODEL PHOTO ...
"""

import sys

from fieldmark import ImageRejected, load_dataset, train

photos, model, *more = sys.argv[1:]
dataset = load_dataset(photos, test=0.2)
print(f"{len(dataset.train)} training, {len(dataset.val)} validation, {len(dataset.test)} test photos")

trained = train(dataset, out=model)
low, high = trained.summary["top1_error_interval"]
print(f"top-1 error {trained.summary['top1_error']:.1%} (95 % CI {low:.1%} to {high:.1%})")

for path, found in zip(more, trained.classifier.predict(more, on_error="return"), strict=True):
    if isinstance(found, ImageRejected):
        print(f"{path}: {found}")
    else:
        print(f"{path}: {found.best.taxon.label}, {found.best.score:.1%}; {found.reason}")
