"""The languages: whole catalogues, numbers, the choice by the browser, what the application passes on."""

from __future__ import annotations

import re
import string
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fieldmark.app import checking, jobs, learning, queues, wording
from fieldmark.app.store import Project
from fieldmark.data import readers
from fieldmark.data.vernacular import common_names
from fieldmark.utils import languages
from fieldmark.utils.errors import RejectReason

ROOT = Path(__file__).parents[1]
OTHERS = [each for each in languages.LANGUAGES if each != "en"]


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import messages

    return messages


@pytest.fixture(autouse=True)
def _english() -> Any:
    yield
    languages.speak("en")


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", OTHERS)
def test_catalogues_are_whole_and_of_the_messages_of_now(messages: ModuleType, language: str) -> None:
    path = languages.LOCALE / language / "LC_MESSAGES" / f"{languages.DOMAIN}.po"
    found = messages.read(path)
    assert list(found) == messages.messages(languages.LOCALE.parent), "run scripts/messages.py"
    for (one, many), said in found.items():
        assert all(said), one
        assert len(said) == (2 if many else 1), one
        for text, original in zip(said, (one, many), strict=False):
            assert placeholders(text) == placeholders(original), original
    assert path.with_suffix(".mo").read_bytes() == messages.compiled(found, language)


def test_no_text_of_the_pages_is_left_out() -> None:
    """A text that is given to an element, or to a message, is said."""
    elements = "label|button|link|notify|notification|input|select|number|switch|expansion|tooltip|InputError"
    literal = re.compile(rf'\b(?:{elements})\(\s*f?"([^"]*)"')
    for path in (ROOT / "src" / "fieldmark" / "app" / "pages").glob("*.py"):
        texts = [re.sub(r"{[^}]*}", "", each) for each in literal.findall(path.read_text(encoding="utf-8"))]
        assert {each for each in texts if re.search("[a-z]{3}", each)} <= {"fieldmark"}, path.name


def test_reasons_and_stages_are_known() -> None:
    assert set(RejectReason) <= wording.REASONS.keys()
    said = set()
    for package in ("training/strategies", "features", "curation"):
        for path in (ROOT / "src" / "fieldmark" / package).rglob("*.py"):
            said |= set(re.findall(r'(?<!overall_)progress_bar\("([^"]+)"', path.read_text(encoding="utf-8")))
    assert said
    assert said <= wording.STAGES.keys()


def test_words_numbers_and_forms_are_those_of_the_language() -> None:
    assert (wording.photos(1), wording.photos(12_345)) == ("1 photo", "12,345 photos")
    assert languages.percent(0.0312, 1, "+") == "+3.1\u00a0%"
    languages.speak("de")
    assert (wording.photos(1), wording.photos(12_345)) == ("1 Foto", "12.345 Fotos")
    assert languages.percent(0.0312, 1, "+") == "+3,1\u00a0%"
    assert wording.action("renamed Lynx lynx to Felis") == "Lynx lynx in Felis umbenannt"
    assert wording.stage("features of tf_efficientnet_lite0") == "Merkmale von tf_efficientnet_lite0"
    assert (wording.species("empty"), wording.species("Lynx lynx")) == ("leer", "Lynx lynx")
    languages.speak("fr")
    assert wording.photos(0) == "0 photo"  # French: none is singular
    languages.speak("tlh")
    assert languages.spoken() == "en"


def test_common_names_are_those_of_the_readers_language(tmp_path: Path, draw: Any) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(draw(0, number))
    (tmp_path / "a.csv").write_text(
        "file_name,label,common_name,common_name_de\n0.jpg,Lynx lynx,lynx,Luchs\n1.jpg,Felis silvestris,,\n"
    )
    project = Project(tmp_path / "project")
    project.add_labelled(readers.read(tmp_path / "a.csv"), tmp_path / "a.csv")
    assert queues.common_names(project) == {"Lynx lynx": "lynx"}
    languages.speak("de")
    assert queues.common_names(project) == {"Lynx lynx": "Luchs"}
    groups = queues.wall(project, queues.Query("labelled", which="all")).groups
    assert [each.name for each in groups] == ["Felis silvestris", "Lynx lynx (Luchs)"]
    (tmp_path / "datapackage.json").write_text(
        '{"taxonomic": [{"scientificName": "Lynx lynx", "vernacularNames": {"fra": "lynx boréal"}}, 3]}'
    )
    assert common_names(tmp_path) == {"Lynx lynx": {"fr": "lynx boréal"}}
    assert common_names(tmp_path / "0.jpg") == {}


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("zh,pt-BR;q=0.4,es;q=0.3", "pt"),
        ("en;q=0.1, fr ; q=0.5", "fr"),
        ("it,nl", "en"),
        ("de;q=x,es;q=0", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_prefers(header: str, language: str) -> None:
    assert languages.preferred(header) == language


def test_jobs_write_their_reports_in_the_language_of_who_starts_them(
    tmp_path: Path, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in range(2):
        (tmp_path / "photos" / f"species {label}").mkdir(parents=True)
        (tmp_path / "photos" / f"species {label}" / "a.jpg").write_bytes(draw(label, 0))
    project = Project(tmp_path / "project")
    project.add_labelled(readers.read(tmp_path / "photos"), tmp_path / "photos")
    monkeypatch.setattr(jobs.Job, "start", lambda _: None)
    monkeypatch.setattr(jobs, "running", lambda _: None)
    assert "--language" not in learning.train(project).about["words"]
    languages.speak("de")
    for job in (learning.train(project, more="--language fr"), checking.check(project)):
        at = job.about["words"].index("--language")
        assert job.about["words"][at + 1] == "de"
    assert learning.train(project, more="--language fr").about["words"][-2:] == ["--language", "fr"]
