"""`fieldmark demo`: the whole way on photos that it draws itself, so that it works anywhere."""

from __future__ import annotations

import time
from pathlib import Path

from fieldmark import fieldguide, files, predict, progress
from fieldmark.train import TrainConfig, sentence, train


def run(out: Path, *, species: int, photos: int, command: str) -> None:
    """Draw, train, evaluate, classify one photo, and show the way to the report."""
    start = time.perf_counter()
    guide, model = out / "field-guide", out / "classifier"
    progress.say("1. Drawing a field guide of butterflies that do not exist")
    fieldguide.draw(guide, species=species, photos=photos)
    progress.say("2. Training a classifier on it, and measuring it on photos it never saw")
    trained = train(guide, model, TrainConfig(), command=command)
    progress.say("3. Naming one photo")
    items = predict.items_of([guide / "test2019.json"])[:1]
    results = list(predict.predict(trained.classifier, items, top=3))
    for line in predict.as_text(results):
        progress.say(f"   {line}")
    truth = answers(guide).get(items[0].id or "", "")
    if truth in trained.classifier.taxonomy:
        progress.say(f"   (it is a {trained.classifier.taxonomy[truth].label})")
    progress.say("")
    progress.say(sentence(trained.summary))
    progress.say(f"Look at the report:  {(model / 'report.html').resolve()}")
    progress.say(f"Name your own photo: fieldmark predict {model} PHOTO")
    progress.say(f"Done in {progress.seconds(time.perf_counter() - start)}.")


def answers(guide: Path) -> dict[str, str]:
    """The label of each test photo, which the classifier has not been given."""
    annotations = files.read_json(guide / "answers.json")["annotations"]
    return {str(each["image_id"]): str(each["category_id"]) for each in annotations}
