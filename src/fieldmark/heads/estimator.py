"""The default head as a scikit-learn estimator over features (`fieldmark[sklearn]`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fieldmark.evaluation.metrics import log_softmax
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads import default
from fieldmark.utils.errors import InputError
from fieldmark.utils.random import hashes
from fieldmark.utils.typing import IntArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise InputError(
        "scikit-learn is not installed, or older than 1.6: pip install 'fieldmark[sklearn]'."
    ) from error

_Array = npt.NDArray[Any]


class FeatureClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains the head that `fieldmark train` uses, on features such as `Classifier.embed` returns.

    Follows the conventions of scikit-learn, so that it works in pipelines, grid searches and
    cross-validation. What cannot be used is a `ValueError` or `NotFittedError` of scikit-learn.

    Args:
        epochs: passes over the training rows; None: as many as needed.
        validation_fraction: the share of the rows that hyperparameters and the scale of the logits are
            chosen on, from each class; they are not trained on. 0: all rows are trained on, and chosen
            on as well.
        seed: of the order of training and of the validation rows.

    Attributes:
        classes_: the C labels, sorted.
        coef_: float32 (D, C), and `intercept_` float32 (C,): logits are x @ coef_ + intercept_.
        n_features_in_: D.
    """

    def __init__(self, *, epochs: int | None = None, validation_fraction: float = 0.1, seed: int = 0) -> None:
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.seed = seed

    def fit(self, X: Any, y: Any) -> FeatureClassifier:
        """Train on features (N, D) with their labels (N,)."""
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction!r}: it must be from 0 to below 1."
            )
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels_N = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y holds one class: at least two classes are needed.")
        ids = tuple(str(row) for row in range(len(X)))
        every = LabelledFeatures(Features.of(X), labels_N.astype(np.int64), ids)
        held_N = self._validation(every.labels)
        train, val = every.where(~held_N), every.where(held_N) if held_N.any() else every
        head = default.fit(train, val, len(self.classes_), self.seed, epochs=self.epochs).head
        self.coef_, self.intercept_ = head.weight, head.bias
        return self

    def _validation(self, labels_N: IntArray) -> npt.NDArray[np.bool_]:
        """Draw the validation rows: a share of each class, never all of its rows."""
        drawn_N = hashes([str(row) for row in range(len(labels_N))], "validation", self.seed)
        held_N = np.zeros(len(labels_N), np.bool_)
        for label in range(len(self.classes_)):
            rows = np.flatnonzero(labels_N == label)
            count = min(round(self.validation_fraction * len(rows)), len(rows) - 1)
            held_N[rows[np.argsort(drawn_N[rows], kind="stable")[:count]]] = True
        return held_N

    def _logits(self, X: Any) -> _Array:
        check_is_fitted(self)
        x_ND = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(x_ND @ self.coef_.astype(np.float64) + self.intercept_)

    def decision_function(self, X: Any) -> _Array:
        """Return logits (N, C); of two classes the second less the first, (N,)."""
        logits_NC = self._logits(X)
        return logits_NC[:, 1] - logits_NC[:, 0] if len(self.classes_) == 2 else logits_NC

    def predict_proba(self, X: Any) -> _Array:
        """Return probabilities (N, C), the columns in the order of `classes_`."""
        return np.asarray(np.exp(log_softmax(self._logits(X))))

    def predict(self, X: Any) -> _Array:
        """Return the likeliest label of each row, (N,)."""
        best_N = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best_N])
