"""`fieldmark demo`: options -> config -> one call."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, typed, use_cache
from fieldmark.utils import io
from fieldmark.utils.logging import format_duration

logger = logging.getLogger(__name__)


def demo(
    out: Annotated[Path, typer.Option(help="The folder to work in.")] = Path("demo"),
    species: Annotated[int, typer.Option(help="How many species to draw.", min=4)] = 48,
    photos: Annotated[int, typer.Option(help="How many photos to draw.", min=40)] = 1100,
    cache: Cache = None,
) -> None:
    """Draw a field guide of invented butterflies, train on it, and look at the result."""
    use_cache(cache)
    run(out, species=species, photos=photos, command=typed())


def run(out: Path, *, species: int, photos: int, command: str) -> None:
    """Draw, train, evaluate, classify one photo, and show the way to the report."""
    from fieldmark import inference
    from fieldmark.data import synthetic
    from fieldmark.training import TrainConfig, sentence, train

    start = time.perf_counter()
    guide, model = out / "field-guide", out / "classifier"
    logger.info("1. Drawing a field guide of butterflies that do not exist")
    synthetic.draw(guide, species=species, photos=photos)
    logger.info("2. Training a classifier on it, and measuring it on photos it never saw")
    trained = train(guide, TrainConfig(), out=model, command=command)
    logger.info("3. Naming one photo")
    items = inference.find_photos([guide / "test2019.json"])[:1]
    results = list(inference.predict(trained.classifier, items, top=3))
    for line in inference.text_lines(results):
        logger.info(f"   {line}")
    truth = answers(guide).get(items[0].id or "", "")
    if truth in trained.classifier.taxonomy:
        logger.info(f"   (it is a {trained.classifier.taxonomy[truth].label})")
    logger.info("")
    logger.info(sentence(trained.summary))
    logger.info(f"Look at the report:  {(model / 'report.html').resolve()}")
    logger.info(f"Name your own photo: fieldmark predict {model} PHOTO")
    logger.info(f"Done in {format_duration(time.perf_counter() - start)}.")


def answers(guide: Path) -> dict[str, str]:
    """The label of each test photo, which the classifier has not been given."""
    annotations = io.read_json(guide / "answers.json")["annotations"]
    return {str(each["image_id"]): str(each["category_id"]) for each in annotations}
