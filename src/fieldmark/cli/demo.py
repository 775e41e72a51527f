"""Try fieldmark: draw photos of invented butterflies, train on them, predict one.

Options:
    out: The folder to write to.
    species: The number of species.
    photos: The number of photos.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli import options as opt
from fieldmark.utils import io
from fieldmark.utils.logging import format_duration

logger = logging.getLogger(__name__)


def demo(
    out: Path = Path("demo"),
    species: Annotated[int, typer.Option(min=4)] = 48,
    photos: Annotated[int, typer.Option(min=40)] = 1100,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark import inference
    from fieldmark.data import synthetic
    from fieldmark.training import TrainConfig, sentence, train

    start = time.perf_counter()
    guide, model = out / "field-guide", out / "classifier"
    logger.info("1. Draw photos of invented butterflies")
    synthetic.draw(guide, species=species, photos=photos)
    logger.info("2. Train a classifier, and measure it on test photos")
    trained = train(guide, TrainConfig(), out=model, command=opt.command_line())
    logger.info("3. Predict the species in one photo")
    items = inference.find_photos([guide / "test2019.json"])[:1]
    for line in inference.text_lines(inference.predict(trained.classifier, items, top=3)):
        logger.info(f"   {line}")
    answers = io.read_json(guide / "answers.json")["annotations"]  # the classifier does not see them
    label = next((str(each["category_id"]) for each in answers if str(each["image_id"]) == items[0].id), "")
    if label in trained.classifier.taxonomy:
        logger.info(f"   (the label is {trained.classifier.taxonomy[label].label})")
    logger.info("")
    logger.info(sentence(trained.summary))
    logger.info(f"Report:             {(model / 'report.html').resolve()}")
    logger.info(f"Predict your photo: fieldmark predict {model} PHOTO")
    logger.info(f"Done in {format_duration(time.perf_counter() - start)}.")
