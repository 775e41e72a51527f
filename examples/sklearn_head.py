"""Train scikit-learn estimators on the features of a classifier: fieldmark's head beside another one.

python sklearn_head.py PHOTOS MODEL
"""

import sys

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from fieldmark import Classifier, FeatureClassifier, load_dataset

photos, model = sys.argv[1:]
dataset = load_dataset(photos)
x_ND = Classifier.load(model).embed(photo.path for photo in dataset.train.files)
for estimator in (FeatureClassifier(), LogisticRegression(max_iter=1000)):
    accuracy = cross_val_score(estimator, x_ND, dataset.train.taxon_ids, cv=3)
    print(f"{type(estimator).__name__}: accuracy {accuracy.mean():.1%} +- {accuracy.std():.1%}")
