"""Train and extend classifiers: the entry points, and the folder that they write."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.data.dataset import Dataset, load_dataset, read_photos
from fieldmark.data.locations import with_exif
from fieldmark.data.photos import PhotoTable, coordinates
from fieldmark.data.readers import BoxFile
from fieldmark.data.subset import photo_finder
from fieldmark.evaluation.results import Evaluation
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.folder import KIND, save
from fieldmark.models import onnx_graph
from fieldmark.reports import classifier_page
from fieldmark.training import pipeline
from fieldmark.training.callbacks import Callback
from fieldmark.training.config import TrainConfig
from fieldmark.training.finetune import distributed
from fieldmark.training.in_words import in_words
from fieldmark.training.stages import Outcome
from fieldmark.training.strategies import (
    EnsembleStrategy,
    ExtendConfig,
    ExtendStrategy,
    NamesStrategy,
    SingleStrategy,
)
from fieldmark.training.summary import ClassifierSummary
from fieldmark.utils import io, publishing
from fieldmark.utils.choices import Language
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import speaking
from fieldmark.utils.logging import listening

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from torch import nn

    from fieldmark.models import Backbone

_DATA_FIELDS = ("val", "test", "split", "limit", "names", "boxes", "box_threshold")


@dataclass(frozen=True)
class Trained:
    """A trained classifier, and how good it is.

    Attributes:
        classifier: ready to use.
        evaluation: its scores on the test part, which neither training nor any choice used.
        summary: the measures computed from them.
        outcome: what it was made from.
        folder: where it was written; None: nowhere yet.
        language: of its report.
    """

    classifier: Classifier
    evaluation: Evaluation
    summary: ClassifierSummary
    outcome: Outcome
    folder: Path | None = None
    language: Language = "en"

    def save(self, folder: str | Path, *, thumbnails: bool = False) -> Trained:
        """Write the classifier, its evaluation, its nearest training photos and its report.

        Args:
            folder: a new or empty folder, or that of an older classifier.
            thumbnails: whether small pictures of training photos are kept in it.

        Raises:
            InputError: the folder cannot be written to, or holds other files.
        """
        out = Path(folder)
        save(self.classifier, out, partial(self._write_more, thumbnails=thumbnails))
        return replace(self, folder=out)

    def _write_more(self, out: Path, *, thumbnails: bool) -> None:
        """Write what belongs to the classifier beside itself."""
        data, splits = self.outcome.fitted.data, self.outcome.splits
        self.evaluation.save(out / "evaluation.safetensors")
        io.write_json(out / "evaluation.json", self.summary.to_dict())
        data.table.write(out / "photos.parquet")
        data.split.write(out / "split.parquet")
        neighbours.write(out, self.classifier, data.table, self.outcome.train_features, thumbnails=thumbnails)
        with speaking(self.language):
            page = classifier_page(
                in_words(self.classifier.provenance),
                self.evaluation,
                taxonomy=data.table.taxonomy,
                photos=photo_finder(data.table),
                train_counts=splits.train_counts(),
                coordinates=_coordinates(data.table),
                rejected=data.table.rejected_names(),
                share_learned=self.summary.measurement.least_ratio,
            )
        io.write_text(out / "report.html", page)


def _coordinates(table: PhotoTable) -> dict[str, tuple[float, float]]:
    """Return the places of locations as the list says, else by the EXIF data of one photo of each."""
    firsts = table.kept.filter(table.kept["location"].is_not_null()).unique("location", maintain_order=True)
    return coordinates(with_exif(table.with_frame(firsts))) | coordinates(table)


def train(
    photos: str | Path | Dataset | PhotoTable | pl.DataFrame | pd.DataFrame,
    config: TrainConfig | None = None,
    *,
    network: nn.Module | Backbone | None = None,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    command: str = "",
) -> Trained:
    """Train a classifier, and measure it on photos that it has not seen.

    Args:
        photos: labelled photos: a path, a data frame, or a `Dataset`. A `Dataset` is already divided:
            `config` must then leave `val`, `test`, `split`, `limit` and `names` as they are.
        config: every choice; None: the defaults.
        network: a network of your own in the place of `config.backbone`: normalised crops, float32
            (N, 3, S, S), to features (N, D) or a feature map (N, D, h, w); S is `config.size`, or else
            224. It is traced as an ONNX graph, which the classifier's folder holds; see
            `fieldmark.models.onnx_graph.write`.
        out: the folder to write the classifier to; None: it stays in memory (see `Trained.save`).
        callbacks: are told of progress, epochs and measures.
        command: what was typed, for the report.

    Raises:
        InputError: anything about the photos, the choices, the networks or the folder.
        StoreError: another process writes to the folder.

    Example:
        >>> trained = train(photos, TrainConfig(epochs=5))  # doctest: +SKIP
        >>> trained.summary.top1_error  # doctest: +SKIP
        0.08
    """
    config = config or TrainConfig()
    if network is not None:
        if config.backbone:
            raise InputError("network takes the place of backbone: leave one of them out.")
        config = replace(config, backbone=onnx_graph.traced(network, config.size))
    with _claimed(out):
        config.check()
        config = config.named()
        strategy: pipeline.Strategy
        divided = isinstance(photos, Dataset)
        if config.several:
            strategy = EnsembleStrategy.of(dataset_for(photos, config, config.seed), config, divided=divided)
        else:
            read = partial(dataset_for, photos, config, config.seed)
            strategy = SingleStrategy.of(config, read, divided=divided)
        return _run(strategy, out, callbacks, command)


def extend(
    model: str | Path,
    photos: str | Path,
    config: ExtendConfig | None = None,
    *,
    out: str | Path,
    callbacks: Sequence[Callback] = (),
    command: str = "",
) -> Trained:
    """Add photos, and perhaps new classes, to a trained classifier.

    Args:
        model: a folder that `train` wrote.
        photos: labelled photos in any layout, or a table of them.
        config: every choice; None: the defaults.
        out: the folder to write the new classifier to; not that of the old one.
        callbacks: are told of progress, epochs and measures.
        command: what was typed, for the report.

    Raises:
        InputError: the classifier cannot be extended, or anything about the photos or the folder.
        StoreError: another process writes to the folder.
    """
    model, out = Path(model), Path(out)
    if out.resolve() == model.resolve():
        raise InputError(f"{out} is the classifier that is extended: name another folder with --out.")
    config = config or ExtendConfig()
    with _claimed(out):
        strategy: pipeline.Strategy
        classifier = Classifier.load(model, compute=config.compute)
        if classifier.provenance.get("names_only"):
            how = TrainConfig(
                backbone=classifier.architecture,
                engine=config.engine,
                groups=config.groups or "auto",
                thumbnails=config.thumbnails,
                language=config.language,
            )
            strategy = NamesStrategy.of(classifier, Path(photos), how, config.names)
        else:
            strategy = ExtendStrategy.of(classifier, model, Path(photos), config)
        return _run(strategy, out, callbacks, command)


def train_by(strategy: pipeline.Strategy, out: str | Path, *, command: str = "") -> Trained:
    """Make a classifier by a strategy, and write it to a folder.

    Args:
        strategy: how photos are prepared, and what is fitted.
        out: a new or empty folder, or that of an older classifier.
        command: what was typed, for the report.

    Raises:
        InputError: anything about the photos or the folder.
        StoreError: another process writes to the folder.
    """
    with _claimed(out):
        return _run(strategy, out, (), command)


def _claimed(out: str | Path | None) -> AbstractContextManager[object]:
    """Be the only writer of the folder; of several processes that train together, the first one is."""
    if out is None or distributed.process_index():
        return nullcontext()
    return publishing.claimed(Path(out), KIND)


def _run(
    strategy: pipeline.Strategy, out: str | Path | None, callbacks: Sequence[Callback], command: str
) -> Trained:
    with ExitStack() as stack:
        for callback in callbacks:
            stack.enter_context(listening(callback))
        outcome = pipeline.run(strategy, command=command)
        trained = Trained(
            *(outcome.classifier, outcome.evaluation, outcome.summary, outcome),
            language=strategy.config.language,
        )
        # Of several processes that train together, the first one writes.
        if out is not None and not distributed.process_index():
            trained = trained.save(out, thumbnails=strategy.config.thumbnails)
        for callback in callbacks:
            callback.on_end(trained.summary.to_dict())
    return trained


def dataset_for(photos: Any, config: Any, seed: int) -> Dataset:
    """Return the photos, divided as the configuration says.

    Args:
        photos: what `load_dataset` takes, or a `Dataset`.
        config: a dataclass with the fields of `_DATA_FIELDS`.
        seed: of the split and of the drawing.

    Raises:
        InputError: the photos are divided already, and the configuration asks for another division.
    """
    if not isinstance(photos, Dataset):
        if getattr(config, "in_folds", False):
            table, name = read_photos(
                photos,
                limit=config.limit,
                names=config.names,
                seed=seed,
                boxes=BoxFile.of(config.boxes, config.box_threshold),
                by_place=config.split == "location",
            )
            return Dataset.undivided(table, name=name, seed=seed)
        return load_dataset(
            photos,
            val=config.val,
            test=config.test,
            split=config.split,
            limit=config.limit,
            names=config.names,
            seed=seed,
            boxes=config.boxes,
            box_threshold=config.box_threshold,
        )
    usual = type(config)()
    for name in _DATA_FIELDS:
        if (value := getattr(config, name)) != getattr(usual, name):
            raise InputError(
                f"The data set is divided already, so {name}={value!r} of the configuration has no "
                "effect: pass it to load_dataset, or leave it out."
            )
    return photos
