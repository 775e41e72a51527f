"""Rows of smaller models: the networks that they keep, their teachers, and what they take to run."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET
from safetensors import SafetensorError

from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.records import CurvePoint, StudyRow
from fieldmark.experiments.runs import Run
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.rows import row_of
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.models.runtime import graphs, quantise
from fieldmark.models.runtime.footprint import footprint
from fieldmark.training.finetune import Teacher, measure, split_trained
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.models import Backbone
    from fieldmark.models.network import ClassifierNetwork

NETWORKS = "networks"
"""The folder of kept networks within that of a study: a file of weights a row, named by its id."""
ENGINE = "onnxruntime"
"""What runs compact models: their graphs are measured in the form in which they are given away."""


def kept(folder: Path, row: str) -> Path:
    """Return the file of the network of a row."""
    return folder / NETWORKS / f"{row}.safetensors"


def keep(context: StudyContext, run: Run, network: ClassifierNetwork) -> None:
    """Write the trained network of a run into the folder of the study."""
    from safetensors.torch import save_file

    from fieldmark.models.network import storable

    path = kept(context.out, run.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.replacing(path) as temporary:
        save_file(storable(network.state_dict()), temporary)


def read(folder: Path, row: str, backbone: Backbone, classes: int) -> ClassifierNetwork:
    """Read the network of a row.

    Args:
        folder: of the study.
        row: its id.
        backbone: the network before it was trained; it has the same layers.
        classes: the number of classes that it learned.

    Raises:
        InputError: the file is missing or not that of this network.
    """
    from safetensors.torch import load_file

    path, network = kept(folder, row), backbone.trainable(classes, 0)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{path}, the network of a row, is missing or damaged: delete {folder / 'rows' / row}.json and "
            "run the same study again."
        ) from error
    return network.eval()


def named(context: StudyContext, run: Run, label: str) -> Run:
    """Return the run with a label in the table of another run, whose network is kept.

    Raises:
        InputError: there is none.
    """
    for each in context.runs:
        if (each.table, each.label) == (run.table, label) and each.keep and each.id in context.rows:
            return each
    raise InputError(
        f"Row {run.label!r} of table {run.table} needs the network of an earlier row {label!r} with "
        "mode='tuned' and keep=True."
    )


def teacher_of(context: StudyContext, run: Run) -> Teacher | None:
    """Return the teacher of a run; None where it has none."""
    if not run.teacher:
        return None
    source = named(context, run, run.teacher)
    backbone = context.networks.of(source)
    classes = context.data.classes(source)
    if classes != context.data.classes(run):
        raise InputError(f"Row {run.label!r} of table {run.table} learns other classes than its teacher.")
    network = read(context.out, source.id, backbone, len(classes))
    return Teacher(network, backbone.architecture.input_size)


def with_cost(row: StudyRow, backbone: Backbone) -> StudyRow:
    """Return a row with what its network takes to run; without it where it has no graph."""
    try:
        graph = backbone.tier.graph or graphs.graph(backbone)
    except InputError:
        return row
    found = footprint(graph, backbone.architecture.input_size)
    memory = UNSET if math.isnan(found.memory_megabytes) else found.memory_megabytes
    return replace(row, file_megabytes=found.file_megabytes, rate=found.rate, memory_megabytes=memory)


def quantised(backbone: Backbone, extractor: FeatureExtractor, train: LabelledPhotos) -> Backbone:
    """Return a network in int8, with ranges measured on training photos."""
    few = train.files[:: -(-len(train) // quantise.CALIBRATED)]
    cached = extractor.crops(backbone, few).crop_cache
    decoded = [number for number in range(len(few)) if number not in cached.rejected]
    return quantise.quantised(backbone, cached.take(decoded), ENGINE)


def int8(context: StudyContext, run: Run) -> StudyRow:
    """Measure the kept network of another row in 8-bit integers."""
    start, parts = time.perf_counter(), context.data.parts
    extractor = replace(context.view(run), engine=ENGINE)
    classes, source = context.data.classes(run), named(context, run, run.source)
    backbone = context.networks.of(source)
    network = read(context.out, source.id, backbone, len(classes))
    trained, head = split_trained(backbone, network)
    made, photos = quantised(trained, extractor, parts.train), context.data.measured_on(run)
    extractor.compute((*parts.val.files, *photos.files), {run.label: made})
    val, measured = (extractor.features(made, each, classes) for each in (parts.val, photos))
    known = val.where(val.labels >= 0)
    loss, error = measure(head.logits_of(known.features), known.labels)
    evaluation = Evaluation.of(photos, head.logits_of(measured.features), classes)
    row = row_of(context, run, evaluation, time.perf_counter() - start, 0.0)
    if math.isfinite(loss):
        row = replace(row, curve=(CurvePoint(1, None, loss, error),))
    return with_cost(replace(row, network=source.id), made)
