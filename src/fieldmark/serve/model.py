"""What is asked of a classifier, and what it has to offer besides names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fieldmark import __version__
from fieldmark.classifier import Classifier, Prediction
from fieldmark.serve import answers
from fieldmark.serve.config import ServeConfig

Crop = npt.NDArray[np.uint8]


class Model:
    """A classifier as the server sees it. Its methods run the network: one thread at a time."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def warm_up(self) -> None:
        """Load the network, so that the first photo does not wait for it.

        Raises:
            InputError: the classifier cannot be run on this machine.
        """
        side = self.classifier.preprocess.size
        self.predict([np.zeros((side, side, 3), np.uint8)], [1])

    def predict(self, crops: Sequence[Crop], tops: Sequence[int]) -> list[Prediction]:
        """What the classifier says of crops, uint8 (S, S, 3), with `top` labels for each."""
        scores_NC = self.classifier.scores(np.stack(crops))
        return [self.classifier.rank(p_C, top) for p_C, top in zip(scores_NC, tops, strict=True)]

    def offers(self) -> answers.Offers:
        """What it has besides names."""
        return answers.Offers(similar=False, heat_map=False)

    def about(self, config: ServeConfig) -> answers.About:
        """What /v1/model says."""
        classifier, made = self.classifier, self.classifier.provenance
        source = classifier.source
        name = made.get("name") or (source.name if isinstance(source, Path) else "classifier")
        threshold = classifier.threshold
        return answers.About(
            name=str(name),
            version=__version__,
            architecture=classifier.architecture,
            classes=len(classifier.taxa),
            test=str(made.get("test", "")),
            licence=str(made.get("licence", "")),
            precision=threshold.precision if threshold else None,
            offers=self.offers(),
            limits=answers.Limits(
                bytes=config.max_bytes,
                pixels=config.max_pixels,
                photos=config.photos_a_request,
            ),
        )

    def classes(self) -> answers.Classes:
        """What /v1/classes says."""
        fields = (answers.taxon_fields(taxon) for taxon in self.classifier.taxa)
        return answers.Classes(classes=[answers.ClassEntry(**each) for each in fields])
