"""Extend a classifier that was made from names alone by its first labelled photos.

The last layer is a logistic regression whose weights are drawn to the names' embeddings instead of to zero:
where photos are few the names count, and with more of them the photos. That is between the two layers that
others mix (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022; Zhang et al., "Tip-Adapter",
2022), and how strongly it is drawn is chosen in folds, the names alone among the choices. A class without a
photo stays a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from fieldmark.data import readers, synonyms
from fieldmark.data.dataset import Dataset
from fieldmark.data.photos import PhotoTable
from fieldmark.data.taxonomy import name_key
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads import logistic
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import Classifier
from fieldmark.models import Backbone
from fieldmark.training.config import TrainConfig
from fieldmark.training.stages import Fitted, Outcome, Prepared
from fieldmark.training.strategies.folds import cross_fitted
from fieldmark.utils.errors import InputError
from fieldmark.utils.printable import some_of

_ALONE = "names alone"
_STRENGTHS = (1.0, 0.1, 0.01)


@dataclass(frozen=True)
class NamesStrategy:
    """Train the last layer of a classifier from names on labelled photos.

    Attributes:
        classifier: made by `train_from_names`.
        table: labelled photos, whose labels are the classifier's.
        name: what they are called.
        config: the choices.
    """

    classifier: Classifier
    table: PhotoTable
    name: str
    config: TrainConfig

    @classmethod
    def of(
        cls, classifier: Classifier, photos: Path, config: TrainConfig, names: Path | None
    ) -> NamesStrategy:
        """Read the photos, and find their labels among the names.

        Raises:
            InputError: the photos cannot be read, or a label is none of the names.
        """
        table = synonyms.read(names).apply(readers.read(photos))
        return cls(classifier, _labelled(table, classifier), photos.resolve().name, config)

    @property
    def backbone(self) -> Backbone:
        """The classifier's network."""
        return self.classifier.lead.network.backbone

    def prepare(self) -> Prepared:
        """Compute the features of the photos; every name is a class."""
        dataset = Dataset.undivided(self.table, name=self.name, seed=self.config.seed)
        dataset = replace(dataset, also=self.classifier.classes)
        extractor = FeatureExtractor(self.classifier.lead.preprocess, engine=self.config.engine)
        data = Prepared(dataset, extractor).compute({self.backbone.architecture.name: self.backbone})
        return data.grouped(self.backbone) if self.config.groups == "auto" else data

    def fit(self, data: Prepared) -> Fitted:
        """Fit the last layer on all photos, and measure them in folds."""
        names = self.classifier.lead.head

        def candidates(some: Any, classes: int) -> dict[str, LinearHead]:
            heads = logistic.fit_path(some, classes, _STRENGTHS, towards=names)
            drawn = (f"names and photos, strength {strength:g}" for strength in _STRENGTHS)
            return {_ALONE: names, **dict(zip(drawn, heads, strict=True))}

        found = cross_fitted(data, [self.backbone], self.config, candidates)
        return replace(found, compare=self._compare)

    def _compare(self, _outcome: Outcome) -> Mapping[str, Any]:
        """Where the classifier came from."""
        made = self.classifier.provenance
        kept = ("weights", "weights_complete", "licence")
        return {**{name: made[name] for name in kept if name in made}, "from_names": True}


def _labelled(table: PhotoTable, classifier: Classifier) -> PhotoTable:
    """Return the photos with the classifier's names as labels."""
    known = {
        name_key(name): taxon.id
        for taxon in classifier.taxa
        for name in filter(None, (taxon.common_name, taxon.name, taxon.id))
    }
    labels = set(table.frame["taxon_id"].drop_nulls())
    becomes = {}
    for taxon in (each for each in table.taxonomy if each.id in labels):
        found = (known.get(name_key(name)) for name in (taxon.id, taxon.name, taxon.common_name) if name)
        becomes[taxon.id] = next((each for each in found if each), None)
    if strange := sorted(label for label, name in becomes.items() if name is None):
        raise InputError(
            f"Labels of the photos are none of the classifier's names: {some_of(strange)}. "
            "Add them to the list of names and make the classifier anew, or give their accepted names "
            "with --names."
        )
    taxon_id = pl.col("taxon_id").replace_strict(becomes, return_dtype=pl.String, default=None)
    return replace(table.with_frame(table.frame.with_columns(taxon_id)), taxonomy=classifier.taxonomy)
