"""Measure index (annotations only), stats, split, prune of 1,000,000 photos in 10,000 classes.

And the split alone of the 268,243 photos of the challenge, where its annotations are available.

    python -m benchmarks.tables [PHOTOS CLASSES]

The annotations are generated in iNaturalist layout with every field of the official files (long-tailed
classes, one photo in five in a group of one to four) and written to a temporary folder first. The
work then runs in a process of its own, so that the reported memory is its own. The aim for
the million is 20 s and 2 GiB.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common

PHOTOS = 1_000_000
CLASSES = 10_000
PLAIN = "json.load and scikit-learn's split"


def annotations(photos: int, classes: int) -> dict[str, Any]:
    """Generate a document in the layout of the iNaturalist 2019 challenge."""
    chance = np.random.default_rng(0)
    weight = 1 / np.arange(1, classes + 1) ** 0.7
    of_tail = chance.choice(classes, size=photos - 2 * classes, p=weight / weight.sum())
    labels = np.concatenate([of_tail, np.repeat(np.arange(classes), 2)]).tolist()
    group = np.repeat(np.arange(photos), chance.choice([1, 2, 3, 4], size=photos))[:photos].tolist()
    in_group = (chance.random(photos) < 0.2).tolist()
    images = []
    for number, label in enumerate(labels):
        name = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
        image = {
            "license": 3,
            "file_name": f"train_val2019/Group{label % 6}/{label}/{name}.jpg",
            "rights_holder": f"Person {number % 5000}",
            "height": 618,
            "width": 800,
            "id": number,
        }
        if in_group[group[number]]:
            image["seq_id"] = f"s{group[number]}"
        images.append(image)
    return {
        "images": images,
        "annotations": [
            {"image_id": number, "category_id": label, "id": number} for number, label in enumerate(labels)
        ],
        "categories": [{"id": n, "name": f"SPECIES{n}", "genus": f"GENUS{n // 4}"} for n in range(classes)],
    }


def work(path: Path) -> list[dict[str, Any]]:
    """Time each step on one annotation file, and measure the memory of the process."""
    from fieldmark.data.readers import read
    from fieldmark.data.split import prune, split_photos
    from fieldmark.data.stats import stats

    rows: list[dict[str, Any]] = []

    def timed(step: str, call: Any) -> Any:
        start = time.perf_counter()
        result = call()
        rows.append({"step": step, "seconds": round(time.perf_counter() - start, 3)})
        return result

    begin = time.perf_counter()
    table = timed("index", lambda: read(path))
    timed("write the table", lambda: table.write(path.parent / "index.parquet"))
    timed("stats", lambda: stats(table))
    timed("split, random", lambda: split_photos(table, way="random"))
    split = timed("split, stratified", lambda: split_photos(table))
    kept = timed("prune", lambda: prune(split, table))
    peak = common.peak_gib()
    total = round(time.perf_counter() - begin, 3)
    what = {"photos": len(table), "classes": len(table.taxonomy), "classes_kept": len(kept)}
    rows.append({"step": "all", "seconds": total, "peak_gib": round(peak, 2), **what})
    return rows


def plain(path: Path, train_test_split: Any) -> None:
    """Do the same with usual tools: `json.load`, a dict, a `Counter`, scikit-learn's split."""
    document = json.loads(path.read_bytes())
    label_of = {note["image_id"]: note["category_id"] for note in document["annotations"]}
    names = [image["file_name"] for image in document["images"]]
    labels = [label_of[image["id"]] for image in document["images"]]
    train, _, of_train, _ = train_test_split(names, labels, test_size=0.1, stratify=labels, random_state=0)
    counts = Counter(of_train)
    kept = {label for label, count in counts.items() if count >= 100}
    _ = [(name, label) for name, label in zip(train, of_train, strict=True) if label in kept]


def run(quick: bool = False, photos: int | None = None, classes: int | None = None) -> list[common.Row]:
    """Compare all steps with the plain script; the seconds of each step are in `more`.

    The script reads no taxonomy, checks nothing, ignores groups and writes no table.
    """
    photos = photos or (20_000 if quick else PHOTOS)
    classes = classes or (200 if quick else CLASSES)
    studies: list[list[dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train2019.json"
        path.write_text(json.dumps(annotations(photos, classes)))

        def ours() -> float:
            studies.append(json.loads(_own_process("--work", path)))
            return float(studies[-1][-1]["seconds"])

        ways = {"ours": ours, PLAIN: lambda: float(_own_process("--plain", path))}
        values = common.alternate(ways, common.rounds(quick))
    last = studies[-1][-1]
    steps = {
        each["step"]: statistics.median(study[number]["seconds"] for study in studies)
        for number, each in enumerate(studies[0])
    }
    note = f"peak {last['peak_gib']} GiB; the script checks nothing and tears groups apart"
    what = f"index, count, split, prune {photos:,} photos"
    million = common.compare(what, values, "ours", PLAIN, note=note, more=last | {"steps": steps})
    return [million, *_challenge(quick)]


def _challenge(quick: bool) -> list[common.Row]:
    """Measure the split of the challenge's own photos, both from prepared lists."""
    from sklearn.model_selection import train_test_split

    from fieldmark.data.readers import read
    from fieldmark.data.split import split_photos

    try:
        table = read(common.shared("data", "inat2019-annotations"))
    except common.Unavailable:
        return []
    labels = table.labelled["taxon_id"].to_list()
    peer = "scikit-learn's stratified split"

    def theirs() -> None:
        train_test_split(range(len(labels)), test_size=0.1, stratify=labels, random_state=0)

    ways = {"ours": common.timed(lambda: split_photos(table)), peer: common.timed(theirs)}
    values = common.alternate(ways, common.rounds(quick), warm_up=True)
    note = "aim: 2 s; scikit-learn tears groups apart"
    return [common.compare(f"split {len(labels):,} real photos", values, "ours", peer, note=note)]


def _own_process(word: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tables", word, str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=common.ROOT,
    )
    return done.stdout


def main(words: list[str]) -> None:
    if words[:1] == ["--work"]:
        print(json.dumps(work(Path(words[1]))))
    elif words[:1] == ["--plain"]:
        from sklearn.model_selection import train_test_split  # not timed, as our imports

        start = time.perf_counter()
        plain(Path(words[1]), train_test_split)
        print(time.perf_counter() - start)
    else:
        given = dict(zip(("photos", "classes"), map(int, words), strict=False))
        print(common.table("tables", run(**given)))


if __name__ == "__main__":
    main(sys.argv[1:])
