"""Try fieldmark: draw photos of invented butterflies, train on them, predict one.

Options:
    out: The folder to write to.
    species: The number of species. [default: 48]
    photos: The number of photos. [default: 1100]
    stations: Draw photos of camera-trap stations, with boxes, instead, and train nothing.
    like: Annotations of a real data set: draw a small photo for each of its files, and train nothing.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import click

from fieldmark.cli import options as opt
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import format_duration

logger = logging.getLogger(__name__)


def demo(
    out: Path = Path("demo"),
    species: Annotated[int | None, click.IntRange(4)] = None,
    photos: Annotated[int | None, click.IntRange(40)] = None,
    stations: bool = False,
    like: Path | None = None,
    cache: Path | None = None,
) -> None:
    opt.use_cache(cache)
    from fieldmark.data import synthetic
    from fieldmark.inference import clips, formats, inputs

    sized = species is not None or photos is not None
    if (stations and like is not None) or ((stations or like is not None) and sized):
        raise InputError(
            "--like draws what its annotations list, --stations draws cameras: name one of them, "
            "and leave --species and --photos out."
        )
    if stations:
        drawn = synthetic.draw_stations(out)
        click.echo(
            f"{drawn:,} photos drawn. Train on the animals in their boxes: fieldmark train "
            f"{out / 'stations.json'} --boxes {out / 'boxes.json'} --out MODEL"
        )
        return
    if like is not None:
        drawn = synthetic.draw_like(like, out)
        click.echo(f"{drawn:,} photos drawn. Study them: fieldmark study paper {out} --out STUDY")
        return
    from fieldmark.training import TrainConfig, sentence, train

    start = time.perf_counter()
    guide, model = out / "field-guide", out / "classifier"
    logger.info("1. Draw photos of invented butterflies")
    asked = {"species": species, "photos": photos}
    synthetic.draw(guide, **{name: value for name, value in asked.items() if value is not None})
    logger.info("2. Train a classifier, and measure it on test photos")
    trained = train(guide, TrainConfig(), out=model, command=opt.command_line())
    logger.info("3. Predict the species in one photo")
    items = inputs.find_photos([guide / "test2019.json"])[:1]
    for line in formats.text_lines(clips.predict(trained.classifier, items, top=3)):
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
