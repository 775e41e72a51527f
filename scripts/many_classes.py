"""Train with very many classes from end to end, on generated features: time and memory of each stage.

    python scripts/many_classes.py 100000 --photos 300000

A photo table and cached features are written as `fieldmark index` and `fieldmark extract` would write
them (the photos themselves do not exist), and `fieldmark train` does the rest: split, last layer,
calibration, evaluation, the folder and its page. Then the classifier is loaded in a process of its own
and predicts a photo from its cached features; and `predict`, `export` (which compares the file's
answers with the classifier's own) and `serve` are run on generated photos as a user runs them. Classes
are generated in genera of ten, and of unequal frequency, like species.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

NETWORK = "squeezenet1_1"
BLOCK = 8192


def lay_out(folder: Path, classes: int, photos: int) -> Path:
    """Write the table and the cached features."""
    from fieldmark import models
    from fieldmark.data.photos import PhotoTable, build_frame
    from fieldmark.data.taxonomy import Taxon, Taxonomy
    from fieldmark.features.extractor import FeatureExtractor
    from fieldmark.utils import io, random

    rng = random.generator(0, "many classes")
    share_C = rng.lognormal(0.0, 1.0, classes)
    label_N = np.concatenate(
        [np.repeat(np.arange(classes), 2), rng.choice(classes, photos, p=share_C / share_C.sum())]
    )[:photos]
    digests = [io.sha256(str(number).encode()) for number in range(photos)]
    backbone = models.load(NETWORK, weights="random")
    cache = FeatureExtractor().cache(backbone)
    genus_GD = rng.normal(size=(classes // 10 + 1, cache.dim)).astype(np.float32)
    own_CD = 0.7 * rng.normal(size=(classes, cache.dim)).astype(np.float32)
    with cache.writing() as writer:
        for start in range(0, photos, BLOCK):
            y_B = label_N[start : start + BLOCK]
            x_BD = genus_GD[y_B // 10] + own_CD[y_B]
            x_BD += 2.2 * rng.standard_normal(x_BD.shape, np.float32)
            writer.append(digests[start : start + BLOCK], np.maximum(x_BD, 0))
    taxa = [Taxon(f"{n:06}", f"Genus{n // 10} s{n}", ranks=_ranks(n)) for n in range(classes)]
    frame = build_frame(
        {
            "id": [f"{number:07}" for number in range(photos)],
            "path": [f"{number:07}.jpg" for number in range(photos)],
            "sha256": digests,
            "taxon_id": [taxa[label].id for label in label_N],
        }
    )
    path = folder / "photos.parquet"
    PhotoTable(frame, Taxonomy(taxa), folder, "drawn").write(path)
    return path


def _ranks(number: int) -> dict[str, str]:
    return {
        "family": f"Family{number // 200}",
        "genus": f"Genus{number // 10}",
        "species": f"Genus{number // 10} s{number}",
    }


def learn(folder: Path, head: str | None) -> None:
    """Run `fieldmark train` in this process."""
    from fieldmark.training import TrainConfig, train

    config = TrainConfig(backbone=NETWORK, weights="random", engine="torch", head=head)  # type: ignore[arg-type]
    start = time.perf_counter()
    done = train(folder / "photos.parquet", out=folder / "model", config=config)
    told = done.classifier.provenance
    say(
        step="train",
        seconds=time.perf_counter() - start,
        last_layer=told["seconds"]["training"],
        tried=told["tried"],
        curve=told["curve"],
        photos=done.summary["photos"],
        error=done.summary["top1_error"],
        not_among_5=done.summary["top5_error"],
    )


def ask(folder: Path) -> None:
    """Load the classifier and predict photos from cached features."""
    start = time.perf_counter()
    from fieldmark import models
    from fieldmark.data.photos import PhotoTable
    from fieldmark.features.extractor import FeatureExtractor
    from fieldmark.inference.classifier import Classifier

    classifier = Classifier.load(folder / "model")
    loaded = time.perf_counter() - start
    rows = PhotoTable.read(folder / "photos.parquet").frame.tail(1)
    cache = FeatureExtractor().cache(models.load(NETWORK, weights="random"))
    x_1D = cache.get(rows["sha256"].to_list())[:]
    start = time.perf_counter()
    answer = classifier.rank(np.exp(classifier.log_probabilities([x_1D])[0]), 5)
    say(
        step="load and ask",
        load=loaded,
        answer=time.perf_counter() - start,
        right=rows["taxon_id"][0],
        given=[(each.taxon.id, round(each.score, 4)) for each in answer.answers],
        wider=[(each.name, round(each.score, 4)) for each in answer.wider],
    )


def use(folder: Path) -> None:
    """Run the commands that use a classifier, each with the peak memory of its process."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        noise.resize((320, 240)).save(pictures / f"{number}.jpg")
    answers = folder / "answers.jsonl"
    run("predict", folder / "model", pictures, "--out", answers)
    say(step="predict", photos=len(answers.read_text().splitlines()))
    run("export", folder / "model", "--onnx", folder / "model.onnx", "--check", pictures)
    serve(folder / "model", (pictures / "0.jpg").read_bytes())


def run(*words: object) -> None:
    """Run a command in a process of its own; return seconds and its peak memory."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "fieldmark", *map(str, words)]) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    _said_of(str(words[0]), time.perf_counter() - start, used)
    if process.returncode:
        sys.exit(f"fieldmark {words[0]} failed with exit code {process.returncode}")


def serve(model: Path, photo: bytes) -> None:
    """Start the server, send one request, stop it."""
    start = time.perf_counter()
    words = [sys.executable, "-m", "fieldmark", "serve", str(model), "--port", "8917"]
    with subprocess.Popen(words) as process:
        url = "http://127.0.0.1:8917"
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                break
            time.sleep(0.5)
        ready = time.perf_counter() - start
        asked = urllib.request.Request(f"{url}/v1/predict?top=5", data=photo, method="POST")
        start = time.perf_counter()
        with urllib.request.urlopen(asked, timeout=60) as answer:
            labels = json.load(answer)["photos"][0]["labels"]
        say(step="serve", ready=ready, answer=time.perf_counter() - start, labels=len(labels))
        process.terminate()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    _said_of("serve", time.perf_counter() - start, used)


def _said_of(verb: str, seconds: float, used: resource.struct_rusage) -> None:
    told = {"verb": verb, "seconds": seconds, "peak_gib": round(used.ru_maxrss / 2**20, 2)}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def say(**told: object) -> None:
    """Print a line of JSON with the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(json.dumps(told | {"peak_gib": round(peak, 2)}) + "\n")
    sys.stdout.flush()


STEPS = {
    "learn": lambda given: learn(given.folder, given.head),
    "ask": lambda given: ask(given.folder),
    "use": lambda given: use(given.folder),
}


def main() -> None:
    """Run each step in a process of its own, for its memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("classes", type=int)
    parser.add_argument("--photos", type=int, default=300_000)
    parser.add_argument("--head", choices=("softmax", "sampled"))
    parser.add_argument("--step", choices=tuple(STEPS))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.step:
        STEPS[given.step](given)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        os.environ["FIELDMARK_CACHE"] = str(folder / "cache")
        lay_out(folder, given.classes, given.photos)
        for step in STEPS:
            subprocess.run([sys.executable, *sys.argv, "--step", step, "--folder", str(folder)], check=True)
        for path in sorted((folder / "model").iterdir()):
            say(file=path.name, mb=round(path.stat().st_size / 1e6, 1))


if __name__ == "__main__":
    main()
