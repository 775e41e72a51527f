"""Find animals, people and vehicles in photos and clips, and write their boxes as MegaDetector's JSON.

Arguments:
    photos: Photos, clips, folders, patterns, @lists, - (standard input) or an annotation file.
Options:
    listed: A text file with one path a line; - is standard input; repeatable.
    out: The file of boxes, .json; the same command resumes.
    model: An ONNX file, a file of MegaDetector's weights (.pt), or the name of a version.
    threshold: Leave out boxes with less confidence.
    classes: What the classes of an ONNX file are: name=animal,name=person, or animal,person,vehicle in
        their order (- leaves one out). [default: by their names]
    every: Of a clip, take a frame each so many seconds.
    changed: Of these, take only frames that differ from the last one taken.
    engine: What runs the detector: onnxruntime or openvino for an ONNX file; torch (the processor) for
        MegaDetector. [default: onnxruntime, or as MegaDetector chooses]
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import click

from fieldmark.cli import options as opt
from fieldmark.utils.choices import EngineName
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


def detect(
    photos: tuple[Path, ...] = (),
    listed: Annotated[tuple[str, ...], "--list"] = (),
    out: Path = Path("boxes.json"),
    model: str = "MDV5A",
    threshold: Annotated[float, opt.Number(0.001, 1.0)] = 0.1,
    classes: str | None = None,
    every: Annotated[float, opt.Number(0.01)] = 1.0,
    changed: bool = False,
    engine: EngineName | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark.data.videos import Sampling
    from fieldmark.inference import inputs
    from fieldmark.inference.detection import detect_to_file
    from fieldmark.models import detectors

    items = inputs.find_all(photos, listed, Sampling(every, changed))
    detector = detectors.load(model, classes=classes, engine=engine, threshold=threshold)
    facts = detector.facts
    logger.info(f"{facts.name}{f' ({facts.version})' if facts.version else ''}. {facts.licence}")
    rejected = detect_to_file(out, detector, items, threshold=threshold, settings=classes or "")
    click.echo(f"Written: {out}")
    if rejected:
        raise InputError(f"{rejected:,} of {len(items):,} photos could not be used; {out} has the reasons.")
