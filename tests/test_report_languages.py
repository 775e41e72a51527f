"""Reports in other languages: nothing is left in English, numbers, records that stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from tests.test_report import ABOUT, EVALUATIONS, STUDY, TAXONOMY, found_by_check, make_study

from fieldmark.curation import CheckConfig
from fieldmark.experiments import StudyConfig
from fieldmark.reports import classifier_page, page
from fieldmark.training import ExtendConfig, TrainConfig, train
from fieldmark.training.in_words import in_words
from fieldmark.utils import io, languages, wording
from fieldmark.utils.choices import Language
from fieldmark.utils.errors import InputError

NETWORK: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "engine": "torch"}
OTHERS = [each for each in languages.LANGUAGES if each != "en"]

ERRORS = {"photos": 40, "known": 0.1, "new": 0.2, "new_interval": [0.15, 0.25]}
PAIRED = {"value": -0.02, "interval": [-0.05, 0.01]}
MEASURED = {
    "measurement": {
        **{"way": "folds", "folds": 5, "photos": 240, "groups": 200, "learned": 240, "share_learned": 0.78},
        **{"unmeasured": ["7"], "few_groups": ["1"], "hard": 3, "error_without_hard": 0.1},
        **{"error_without_hard_interval": [0.08, 0.13], "said": ""},
    },
    "taxonomic": {
        **{"ranks": [{"rank": "genus", "photos": 200, "error": 0.1}], "height": 0.4},
        **{"height_of_mistakes": 1.2, "least_height": 0.39, "least_height_error": 0.2},
    },
    "unknown": {
        **{"score": "class means", "classes_left_out": 5, "known": 100, "unknown": 90, "far": 20, "said": ""},
        "kinds": {
            name: {"auroc": 0.8, "flagged": 0.1, "far_auroc": 0.99, "far_flagged": 1.0}
            for name in ("class means", "nearest photos")
        },
    },
    "answered": {
        name: {"photos": 200, "coverage": share, "precision": 0.95}
        for name, share in (("all", 0.8), ("species", 0.6), ("genus", 0.2))
    },
    "coverage_curve": [{"score": 0.5, "coverage": 0.9, "precision": 0.9}],
}
WHOLE: dict[str, Any] = ABOUT | {
    "measured": MEASURED,
    "places": {
        **{"all": {"name": "all", **ERRORS}, "difference": PAIRED, "light": [{"name": "night", **ERRORS}]},
        "places": [{"name": f"S{number}", **ERRORS} for number in range(3)],
    },
    "prior": {
        **{"source": "own", "strength": 0.5},
        "measured": {
            "new places": {
                **{"photos": 200, "places": 5, "without": 0.2, "error": 0.18, "paired": PAIRED},
                **{"log_loss_without": 0.7, "log_loss": 0.65},
            }
        },
    },
    "events": {
        **{"events": 50, "several": 30, "rule": {"way": "mean", "temperature": 1.1}, "error": 0.1},
        **{"interval": [0.05, 0.15], "photo_error": 0.14, "paired": PAIRED, "losses": {"mean": 0.5}},
    },
    "ensemble": {
        "members": [
            {"name": "A", "weight": 0.5, "giga_macs": 0.4, "worth": 0.01, "worth_interval": [0.005, 0.015]},
            {"name": "B", "weight": 0.5, "giga_macs": 0.9},
        ],
        "cost": {"giga_macs": 1.3, "times_default": 3.2, "milliseconds": 40.0},
    },
    "grown": {
        **{"from": {"name": "OLD"}, "with": {"name": "NEW"}, "new_classes": ["1"], "new_photos": None},
        "old_photos": {
            **{"photos": 100, "error_before": 0.1, "error": 0.12, "difference": 0.02},
            **{"interval": [-0.01, 0.05], "tie": True},
        },
        **{"new_classes_photos": None, "corrected": [{"id": "A", "before": "1", "now": "2"}]},
    },
    "rare": {"strength": 0.5, "photos": 240, "rare": [0.5, 0.4], "every": [0.1, 0.11]},
    "split": {"way": "folds", "seed": 0, "digest": "D"},
    "data_digest": "D",
    "licence": "L",
    "chosen": {"learning_rate": 0.01, "weight_decay": 0.001},
}


def whole_classifier(photo: Path) -> str:
    """The page of a classifier with every section."""
    return classifier_page(
        in_words(WHOLE),
        EVALUATIONS["pruned"],
        taxonomy=TAXONOMY,
        photos=lambda _: photo,
        train_counts={str(at): 50 for at in range(5)},
        coordinates={f"S{number}": (47.0 + number, 8.0) for number in range(3)},
        rejected={"truncated": ["A.JPG"]},
    )


class Texts(HTMLParser):
    """All that a reader reads or hears of a page, but for commands and names in `code`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("aria-label", "title")]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "code"} & set(self.open):
            self.found.append(data)


class Marked:
    """A catalogue of a language in which each message is the English one between brackets."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, one: str, many: str, count: int) -> str:
        return f"⟦{one if count == 1 else many}⟧"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a.jpg"
    Image.new("RGB", (80, 60), "green").save(path)
    return path


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """German is for a while the language of `Marked`."""
    monkeypatch.setattr(languages, "_catalogue", lambda _: Marked())
    with languages.speaking("de"):
        yield


def not_said(text: str) -> set[str]:
    """The words of a page that are in no message."""
    said = "\0".join(Texts(text).found)
    before = ""
    while said != before:  # messages with messages in them
        before, said = said, re.sub(r"⟦[^⟦⟧]*⟧", "", said)
    return set(re.findall(r"[a-z]{3,}", said))


def test_nothing_of_a_report_is_left_in_english(marked: None, photo: Path) -> None:
    names = (
        "kind anessa atalanta cardui olumba livia oenas almo trutta nsects irds photo classifier five kinds"
    )
    data = {*names.split(), "efficientnet", "lite", "torch", "min"}
    assert not_said(whole_classifier(photo)) <= data
    assert not_said(found_by_check(photo)) <= data | {"folder", "jpg"}
    # What stays in English: the title of the recipe, its labels, and what is not a word.
    rows = [each | ({"label": "ALL"} if each["id"] == "ensemble" else {}) for each in STUDY["rows"]]
    study = STUDY | {
        "title": "",
        "machine": {},
        "data": STUDY["data"] | {"digest": "", "source": ""},
        "rows": rows,
    }
    networks = {"alexnet", "lex", "fficient", "ite", "queeze", "squeezenet", "resnext", "ensemble", "timm"}
    assert not_said(make_study(lambda _: photo, study)) <= data | networks | {64 * "e"}


@pytest.mark.parametrize("language", OTHERS)
def test_a_report_is_in_its_language(language: str, photo: Path) -> None:
    english = whole_classifier(photo)
    with languages.speaking(language):
        text = whole_classifier(photo)
        assert languages.say("Confusion matrix") != "Confusion matrix"
        assert f"<h2>{languages.say('Confusion matrix')}</h2>" in text
        assert page.photos(4087) in text
    assert f'<html lang="{language}">' in text
    assert "16,2 %" in text
    assert "16.2 %" not in Texts(text).found
    # What programs read keeps its points: widths and the values that tables are sorted by.
    for machine in (r"flex-grow: ([^\"]+)", r'data-value="([^"]+)"'):
        assert re.findall(machine, text) == re.findall(machine, english)
    assert whole_classifier(photo) == english


def test_axes_are_in_the_language_and_a_long_legend_has_two_lines(photo: Path) -> None:
    with languages.speaking("de"):
        text = make_study(lambda _: photo)
    assert '<td class="n paper">0,69</td>' in text
    assert '<td class="n paper">0.69</td>' in make_study(lambda _: photo)
    ticks = re.findall(r">([\d.,]+)</text>", text)
    assert "0,2" in ticks
    assert not [each for each in ticks if "." in each]
    plot = text[text.index('id="table3-title"') :]
    heights = re.findall(r'y="([\d.]+)"[^>]*>(?:hier|Veröffentlichung)', plot)
    assert (len(heights), len(set(heights))) == (3, 2)


def test_sentences_of_a_record_are_said_from_its_numbers(model: Path) -> None:
    made = json.loads((model / "classifier.json").read_text())["provenance"]
    assert made["measured"]["measurement"]["said"].startswith("Each of 64 photos was measured")
    assert in_words(made) == made
    with languages.speaking("de"):
        german = in_words(made)
        assert german["measured"]["measurement"]["said"].startswith("Jedes von 64 Fotos")
        assert german["measured"]["unknown"]["said"] != made["measured"]["unknown"]["said"]
        sure = in_words(WHOLE)
    assert "um 0,010, 0,005 bis 0,015" in sure["ensemble"]["members"][0]["verdict"]
    assert sure["ensemble"]["members"][1]["verdict"] == "nicht gemessen"
    assert sure["ensemble"]["cost"]["said"].startswith("1,30 Giga-MACs je Foto, das 3,2-Fache")
    assert "angepasst um 0,5" in sure["rare"]["said"]


def test_a_training_writes_its_report_in_the_language_and_records_in_english(
    photos: Path, tmp_path: Path, cache: Path
) -> None:
    trained = train(photos, TrainConfig(**NETWORK, language="fr"))
    trained.save(tmp_path / "model")
    report = (tmp_path / "model" / "report.html").read_text()
    assert '<html lang="fr">' in report
    assert "Chacune des 16 photos a été mesurée" in report
    about = json.loads((tmp_path / "model" / "classifier.json").read_text())
    assert about["provenance"]["measured"]["measurement"]["said"].startswith("Each of 16 photos")
    assert "language" not in json.dumps(about)
    assert languages.spoken() == "en"


def test_a_check_differs_in_its_report_alone(
    run: Callable[..., Any], photos: Path, tmp_path: Path, cache: Path
) -> None:
    network = [word for name, value in NETWORK.items() for word in (f"--{name}", value)]
    for language in ("en", "pt"):
        done = run("check", photos, "--out", tmp_path / language, "--language", language, *network)
        assert done.code == 0, done.err
    for name in ("findings.json", "findings.parquet", "checked.parquet"):
        assert io.file_digest(tmp_path / "en" / name) == io.file_digest(tmp_path / "pt" / name)
    assert "16 photos checked" in (tmp_path / "en" / "report.html").read_text()
    assert "16 fotos verificadas" in (tmp_path / "pt" / "report.html").read_text()


def test_a_language_that_there_is_not_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    assert get_args(Language) == tuple(languages.LANGUAGES)
    for config in (TrainConfig, ExtendConfig, CheckConfig, StudyConfig):
        with pytest.raises(InputError, match="language is 'it': choose en, de, es, fr or pt"):
            config(language="it")  # type: ignore[arg-type]  # as a Python user may
    done = run("check", tmp_path, "--out", tmp_path / "out", "--language", "it")
    assert done.code == 2
    assert "de" in done.err


def test_words_of_records_are_themselves_in_english() -> None:
    assert wording.word("not-an-image") == "not-an-image"  # the reason as it stands in the table
    with languages.speaking("de"):
        assert wording.word("not-an-image") == "kein Bild"
        assert wording.word("a new word") == "a new word"
    for each in wording._WORDS:
        assert wording.word(each) == each
