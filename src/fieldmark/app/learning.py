"""Training, naming and learning again: the command that is run, and its table."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fieldmark.app import jobs
from fieldmark.app.jobs import Job
from fieldmark.app.store import Project
from fieldmark.data.taxonomy import RANKS
from fieldmark.inference.formats.base import csv_line
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import say, spoken, to_say

TIMES = {
    "quick": (to_say("As short as possible"), ("--quality", "fast")),
    "good": (to_say("A little longer, with somewhat fewer wrong names"), ("--quality", "good")),
    "hour": (to_say("One hour"), ("--quality", "best", "--budget", "1h")),
    "night": (to_say("A night"), ("--quality", "best", "--budget", "8h")),
}
"""How long training may take: in words, and as options of `fieldmark train`."""
WORSE = {
    "wrong": (to_say("A wrong name: rather leave more photos without a name"), "0.98"),
    "both": (to_say("Both are equally bad"), "0.95"),
    "none": (to_say("No name: rather accept some wrong names"), "0.85"),
}
"""What is worse, in words, with the precision that it asks for."""
_COLUMNS = (
    *("file_name", "label", "split", "group", "location", "deployment", "taken", "sequence"),
    *("latitude", "longitude"),
    *("name", "common_name", "supercategory", *RANKS),
)
_LEARNABLE = (
    "label IS NOT NULL AND reason IS NULL AND id NOT IN (SELECT photo FROM answers WHERE kind IS NOT NULL)"
)
"""Which photos can be learned from: not those whose boxes show no animal, since only crops are named then."""
BOXES = "boxes"
"""The setting with the file of boxes that photos are cut to before they are named; "": none."""


@dataclass(frozen=True)
class Labels:
    """How many labels there are that the classifier did not learn yet.

    Attributes:
        new: of photos that it has not seen.
        corrected: of photos that it learned under another name.
        withdrawn: that it learned, and that no longer hold; only training anew forgets them.
    """

    new: int
    corrected: int
    withdrawn: int


def classifier_of(project: Project) -> Path | None:
    """Return the folder of the newest classifier; None before the first training."""
    name = project.setting("classifier")
    found = project.folder / "classifiers" / name
    return found if name and found.is_dir() else None


def write_labels(project: Project, path: Path, *, only_new: bool = False) -> int:
    """Write the labelled photos as a table that `train` and `grow` take; return how many.

    With `only_new` those whose label the classifier did not learn yet. The boxes of a photo are one group.
    """
    which = _LEARNABLE + (" AND label IS NOT learned" if only_new else "")
    rows = project.rows(
        "SELECT path, label, part, (SELECT path FROM photos w WHERE w.id = p.whole), "
        "location, deployment, taken, sequence, latitude, longitude "
        f"FROM photos p WHERE {which} ORDER BY path"
    )
    facts = project.facts()

    def lines() -> Iterator[str]:
        yield csv_line(_COLUMNS)
        for row in rows:
            about = facts.get(row[1], {}) | {"name": row[1]}
            values = ["" if each is None else each for each in row]
            yield csv_line([*values, *(about.get(each, "") for each in _COLUMNS[len(row) :])])

    io.write_text(path, "\r\n".join(lines()) + "\r\n")
    return len(rows)


def labels(project: Project) -> Labels:
    """Count the labels that the classifier did not learn yet."""
    [row] = project.rows(
        f"SELECT sum({_LEARNABLE} AND learned IS NULL), "
        f"sum({_LEARNABLE} AND learned IS NOT NULL AND label != learned), "
        "sum(label IS NULL AND learned IS NOT NULL) FROM photos"
    )
    return Labels(*(each or 0 for each in row))


def train(project: Project, time: str = "quick", worse: str = "both", more: str = "") -> Job:
    """Start `fieldmark train` on all labelled photos.

    Args:
        project: at least two species, each with a photo.
        time: a key of `TIMES`.
        worse: a key of `WORSE`.
        more: further options of `fieldmark train`, as one would type them.

    Raises:
        InputError: there are too few labels, or another job is running.
    """
    species = project.value(f"SELECT count(DISTINCT label) FROM photos WHERE {_LEARNABLE}")
    if species < 2:
        raise InputError(
            say("Training needs photos of at least two species: add folders on the page Photos first.")
        )
    words = [*TIMES[time][1], "--precision", WORSE[worse][1], *split_options(more)]
    chosen = {"time": time, "worse": worse, "more": more}
    table = f"{project.folder.name}.csv"  # a classifier is called after it
    made = start(project, "train", ["train", f"{{job}}/{table}"], words, write_labels, file=table, **chosen)
    project.set("training", json.dumps(chosen))
    return made


def learn_again(project: Project) -> Job:
    """Start `fieldmark grow` with the labels that are new or corrected.

    A classifier of `--quality best` may be an ensemble with weights, which cannot be extended: it is trained
    anew, on all labels.

    Raises:
        InputError: there is no classifier, no new label, or another job is running.
    """
    classifier, found = classifier_of(project), labels(project)
    chosen = json.loads(project.setting("training", "{}"))
    if classifier is None:
        raise InputError(say("There is no classifier yet: train one on the page Train first."))
    if not found.new + found.corrected:
        raise InputError(
            say("No label is new or corrected since the last training: review some photos first.")
        )
    if chosen.get("time") in ("hour", "night"):
        return train(project, **chosen)
    boxes = project.setting(BOXES)
    learned_boxes = bool(_made_with(project).get("boxes"))
    if learned_boxes and not boxes:
        raise InputError(
            say("This classifier learned from boxes alone: choose their file on the page Name first.")
        )
    words = ["grow", str(classifier), "{job}/new labels.csv", *(["--boxes", boxes] if learned_boxes else [])]
    write = partial(write_labels, only_new=True)
    return start(project, "grow", words, [], write, file="new labels.csv")


def name(project: Project, *, again: bool = False, boxes: Path | None = None) -> Job:
    """Start `fieldmark predict` on new photos without an answer; `again`: on all that no person named.

    With a file of `boxes` each box of an animal is named apart.

    Raises:
        InputError: there is no classifier or no such photo, the file of boxes is not there, or another job is
            running.
    """
    classifier = classifier_of(project)
    if classifier is None:
        raise InputError(say("There is no classifier yet: train one on the page Train first."))
    if boxes and not boxes.exists():
        raise InputError(say("The boxes {path} are not there: choose them again, or none.", path=boxes))
    which = "p.role = 'new' AND NOT EXISTS (SELECT 1 FROM answers WHERE photo = p.id)"
    if again:  # also photos in whose place boxes stand; without boxes, those of which no box is decided
        box = "EXISTS (SELECT 1 FROM photos b WHERE b.whole = p.id AND b.role = 'new' AND b.state "
        waits = f"{box} = 'none')" if boxes else f"NOT {box} != 'none')"
        which = f"(p.role = 'new' AND p.state IN ('none', 'given') OR p.role = 'aside' AND {waits})"
    found = project.rows(f"SELECT path FROM photos p WHERE p.whole IS NULL AND {which} ORDER BY p.path")
    if not found:
        raise InputError(say("No photo waits for a name: add a folder of new photos first."))

    def write(_project: Project, path: Path) -> int:
        io.write_bytes(path, b"\0".join(os.fsencode(row[0]) for row in found) + b"\0")
        return len(found)

    words = ["predict", str(classifier), "--list", "{job}/photos.txt", "--out", "{job}/answers.jsonl"]
    more = ["--boxes", str(boxes)] if boxes else []
    return start(project, "predict", words, more, write, file="photos.txt")


def use_boxes(project: Project, path: Path) -> tuple[int, int, float]:
    """Cut photos to the boxes of a file from now on, before they are named.

    Returns:
        How many of the new photos it lists, of how many, and the confidence from which on a box counts.

    Raises:
        InputError: it is no file of boxes.
    """
    from fieldmark.inference.inputs import Boxes

    found = Boxes.read(path, None, _made_with(project).get("boxes", {}).get("threshold"))
    paths = [
        row[0] for row in project.rows("SELECT path FROM photos WHERE role != 'labelled' AND whole IS NULL")
    ]
    project.set(BOXES, str(path))
    return len(found.detections.matched(paths)), len(paths), found.threshold


def start(
    project: Project,
    kind: str,
    words: list[str],
    options: list[str],
    write: Callable[[Project, Path], int],
    *,
    file: str,
    **more: Any,
) -> Job:
    """Start a command with a table that `write` writes into its job's folder.

    Raises:
        InputError: another job is running.
    """
    if jobs.running(project.folder):
        raise InputError(say("Another job is running: wait until it has ended, or cancel it."))
    out: dict[str, Any] = {"table": file}
    if kind in ("train", "grow"):
        folder = project.folder / "classifiers"
        folder.mkdir(exist_ok=True)
        numbers = [int(each.name) for each in folder.iterdir() if each.name.isdecimal()]
        out["out"] = f"{max(numbers, default=0) + 1:02}"
        words = [*words, "--out", str(folder / out["out"])]
    if kind != "predict" and spoken() != "en":
        words = [*words, "--language", spoken()]  # of the report; a further option comes later, and wins
    job = jobs.create(project.folder, kind, [*words, *options], **out, **more)
    write(project, job.folder / file)
    job.start()
    return job


def split_options(more: str) -> list[str]:
    """Return the words of further options; raises InputError for a quotation mark without its end."""
    try:
        return shlex.split(more)
    except ValueError as error:
        raise InputError(
            say("The further options cannot be read ({error}): check the quotation marks.", error=error)
        ) from error


def grown(project: Project) -> dict[str, Any]:
    """Return what the last extension changed: `provenance.grown` of the classifier; {} without one."""
    return dict(_made_with(project).get("grown", {}))


def _made_with(project: Project) -> dict[str, Any]:
    """Return what the classifier was made from: its provenance; {} without one."""
    classifier = classifier_of(project)
    return dict(io.read_json(classifier / "classifier.json").get("provenance", {})) if classifier else {}


def agreement(project: Project) -> tuple[int, int]:
    """Count the new photos with an answer and a person's label, and those where both are the same."""
    [row] = project.rows(
        "SELECT count(*), sum(a.name = p.label) FROM photos p JOIN answers a ON a.photo = p.id "
        "WHERE p.role = 'new' AND p.state = 'person' AND a.kind IS NULL"
    )
    return row[0], row[1] or 0
