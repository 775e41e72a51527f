"""Rows of smaller models: the networks that they keep, their teachers, and what they take to run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fieldmark import models
from fieldmark.data.subset import LabelledPhotos
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments.records import CurvePoint, StudyRow
from fieldmark.experiments.runs import Run
from fieldmark.experiments.study.context import StudyContext
from fieldmark.experiments.study.networks import Networks
from fieldmark.experiments.study.rows import row_of
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads.base import LinearHead
from fieldmark.models import onnx_graph
from fieldmark.models.runtime import graphs, quantise
from fieldmark.models.runtime.footprint import footprint
from fieldmark.training import finetune
from fieldmark.training.finetune import Teacher, measure, split_trained
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

if TYPE_CHECKING:
    from fieldmark.models import Backbone
    from fieldmark.models.network import ClassifierNetwork

logger = logging.getLogger(__name__)

NETWORKS = "networks"
"""The folder of kept networks within that of a study: a file of weights a row, named by its id."""
ENGINE = "onnxruntime"
"""What runs compact models: their graphs are measured in the form in which they are given away."""


def kept(folder: Path, row: str) -> Path:
    """Return the file of the network of a row."""
    return folder / NETWORKS / f"{row}.safetensors"


def keep(context: StudyContext, run: Run, network: ClassifierNetwork) -> Backbone:
    """Write the trained network of a run into the folder of the study; return its backbone.

    One with fewer channels has layers of its own: it is kept as a graph, beside its last layer.
    """
    from safetensors.torch import save_file

    from fieldmark.models.network import storable

    path, backbone = kept(context.out, run.id), context.networks.of(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    exact, tensors = backbone.trained(network)[0], network.state_dict()
    if run.channels is not None:
        tensors = network.last_layer.state_dict()
        exact = _of_graph(onnx_graph.write_trunk(exact, _graph(path)), backbone)
    with io.replacing(path) as temporary:
        save_file(storable(tensors), temporary)
    return exact


def _graph(path: Path) -> Path:
    """Return the file of the graph beside that of a kept last layer."""
    return path.with_suffix(".onnx")


def _of_graph(graph: Path, backbone: Backbone) -> Backbone:
    """Read the graph of a network; it is given the crops of the one that it was made from."""
    found, crops = models.load(f"{onnx_graph.PREFIX}{graph}"), backbone.architecture.preprocess
    return replace(found, architecture=replace(found.architecture, preprocess=crops))


def trained(folder: Path, row: str, backbone: Backbone, classes: int) -> tuple[Backbone, LinearHead]:
    """Read the network of a row as its backbone and its last layer; see `read`."""
    graph = _graph(kept(folder, row))
    if not graph.exists():
        return split_trained(backbone, read(folder, row, backbone, classes))
    try:
        tensors = load_file(kept(folder, row))
        head = LinearHead(np.ascontiguousarray(tensors["weight"].T), tensors["bias"])
        return _of_graph(graph, backbone), head
    except (OSError, SafetensorError, KeyError, InputError) as error:
        raise _damaged(folder, row) from error


def step(context: StudyContext, run: Run, network: ClassifierNetwork) -> Callable[[int], Callable[[], None]]:
    """Return what a run takes away from its network in each round."""
    if run.channels is None:
        return finetune.zeros(network, run.sparsity or 0.0)
    side = context.networks.of(run).architecture.input_size
    return finetune.fewer_channels(network, run.channels, side)


def possible(runs: list[Run], networks: Networks) -> list[Run]:
    """The runs without those whose channels cannot be removed, and those made from them; log these."""
    left: set[str] = set()
    for run in runs:
        if run.channels is not None:
            network = networks.of(run).trainable(2, 0)
            try:
                finetune.channels.check(network, run.channels, networks.of(run).architecture.input_size)
            except InputError as error:
                logger.info(f"{run.table}: “{run.label}” is left out: {error}")
                left.add(run.label)
    return [run for run in runs if not {run.label, run.source, run.teacher} & left]


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
    from safetensors.torch import load_file as load_tensors

    path, network = kept(folder, row), backbone.trainable(classes, 0)
    try:
        network.load_state_dict(load_tensors(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _damaged(folder, row) from error
    return network.eval()


def _damaged(folder: Path, row: str) -> InputError:
    return InputError(
        f"{kept(folder, row)}, the network of a row, is missing or damaged: delete "
        f"{folder / 'rows' / row}.json and run the same study again."
    )


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
    exact, head = trained(context.out, source.id, backbone, len(classes))
    made, photos = quantised(exact, extractor, parts.train), context.data.measured_on(run)
    extractor.compute((*parts.val.files, *photos.files), {run.label: made})
    val, measured = (extractor.features(made, each, classes) for each in (parts.val, photos))
    known = val.where(val.labels >= 0)
    loss, error = measure(head.logits_of(known.features), known.labels)
    evaluation = Evaluation.of(photos, head.logits_of(measured.features), classes)
    row = row_of(context, run, evaluation, time.perf_counter() - start, 0.0)
    if math.isfinite(loss):
        row = replace(row, curve=(CurvePoint(1, None, loss, error),))
    return with_cost(replace(row, network=source.id), made)
