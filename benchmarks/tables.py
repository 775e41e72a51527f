"""Tables at scale: index (annotations only), stats, split, prune of 1,000,000 photos in 10,000 classes.

    python benchmarks/tables.py [PHOTOS CLASSES]

The annotations are drawn in iNaturalist layout with every field of the official files (long-tailed
classes, one group in five of one to four photos named) and written to a temporary folder first. The
work then runs in a process of its own, so that the memory that is reported is its own. The aim for
the million is 20 s and 2 GiB.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PHOTOS = 1_000_000
CLASSES = 10_000


def annotations(photos: int, classes: int) -> dict[str, Any]:
    """A document in the layout of the iNaturalist 2019 challenge."""
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
            {"image_id": number, "category_id": label, "id": number}
            for number, label in enumerate(labels)
        ],
        "categories": [
            {"id": n, "name": f"SPECIES{n}", "genus": f"GENUS{n // 4}"} for n in range(classes)
        ],
    }


def work(path: Path) -> list[dict[str, Any]]:
    """Time each step on one annotation file, and say how much memory the process needed."""
    from fieldmark.sources import read
    from fieldmark.split import prune, split_photos
    from fieldmark.stats import stats

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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    total = round(time.perf_counter() - begin, 3)
    what = {"photos": len(table), "classes": len(table.taxonomy), "classes_kept": len(kept)}
    rows.append({"step": "all", "seconds": total, "peak_gib": round(peak, 2), **what})
    return rows


def run(photos: int = PHOTOS, classes: int = CLASSES) -> list[dict[str, Any]]:
    """Rows with `step` and `seconds`; the last, `all`, has `peak_gib` and the counts too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train2019.json"
        path.write_text(json.dumps(annotations(photos, classes)))
        done = subprocess.run(
            [sys.executable, __file__, "--work", str(path)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def main(words: list[str]) -> None:
    if words[:1] == ["--work"]:
        print(json.dumps(work(Path(words[1]))))
        return
    for row in run(*map(int, words)):
        step, seconds, *more = row.values()
        extra = "  ".join(f"{key} {row[key]:,}" for key in list(row)[2:]) if more else ""
        print(f"{step:<20}{seconds:>8.2f} s  {extra}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
