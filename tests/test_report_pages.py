"""Report pages in a real Chromium: on a phone, in the dark, printed, with few and with many classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.test_report import found_by_check, make_study
from tests.test_report_languages import whole_classifier

from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.evaluation.results import Evaluation
from fieldmark.reports import classifier_page
from fieldmark.reports.confusion_matrix import matrix
from fieldmark.reports.thumbnails import MOST_SPECIES, examples
from fieldmark.utils.languages import speaking

LONG = ("de", "de-study", "fr", "fr-study")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def scored(classes: int, photos: int) -> tuple[Evaluation, Taxonomy]:
    """Photos of classes of which the first and the last, and so on inwards, are taken for each other."""
    rng = np.random.default_rng(0)
    labels = np.arange(photos) % classes
    scores = rng.normal(size=(photos, classes)).astype(np.float32)
    scores[np.arange(photos), labels] += 8
    scores[np.arange(photos), classes - 1 - labels] += rng.choice([0, 12], photos, p=[0.6, 0.4])
    taxa = (
        Taxon(str(at), f"Genus{at} speciosissima", "a rather long name" * (at % 2)) for at in range(classes)
    )
    ids, alone = tuple(f"folder/photo {at}.jpg" for at in range(photos)), (None,) * photos
    names = tuple(map(str, range(classes)))
    return Evaluation(scores, labels, ids, names, alone, ("",) * photos), Taxonomy(taxa)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a.jpg"
    Image.new("RGB", (80, 60), "green").save(path)
    return path


def classifier_text(classes: int, photos: int, photo: Path) -> str:
    found, taxonomy = scored(classes, photos)
    about: dict[str, Any] = {
        "name": "A classifier",
        "command": "fieldmark train photos/with/a/very/long/path/without/any/space/in/it --out model",
        "backbone": "tf_efficientnet_lite0",
        "weights": "w.pth sha256:" + "0123456789abcdef" * 4,
        "photos": {"train": 9, "rejected": {"truncated": 30}},
        "threshold": {"precision": 0.95, "score": 0.9, "coverage": 0.5},
        "temperature": 1.0,
    }
    rejected = {"truncated": [f"some/long/folder/IMG_{at:08}.JPG" for at in range(20)]}
    return classifier_page(
        about, found, taxonomy=taxonomy, photos=lambda _: photo, train_counts={}, rejected=rejected
    )


@pytest.fixture(scope="module")
def check_text(photo: Path) -> str:
    return found_by_check(photo, scored(2, 4)[1])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, photo: Path, check_text: str) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {"2": classifier_text(2, 30, photo), "10": classifier_text(10, 100, photo)}
    texts |= {
        "525": classifier_text(525, 1600, photo),
        "check": check_text,
        "study": make_study(lambda _: photo),
    }
    for language in ("de", "fr"):  # with long words
        with speaking(language):
            texts |= {language: whole_classifier(photo), f"{language}-study": make_study(lambda _: photo)}
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


def opened(browser: Any, address: str, width: int = 1280, scheme: str = "light") -> Any:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    assert problems == []
    return page


@pytest.mark.parametrize("name", ["2", "10", "525", "check", "study", *LONG])
def test_nothing_is_wider_than_a_phone(browser: Any, pages: dict[str, str], name: str) -> None:
    page = opened(browser, pages[name], 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    narrow = page.evaluate(
        """[...document.querySelectorAll("dd, figcaption, td.files, p")]
        .filter((each) => each.innerText.length > 20 && each.clientWidth && each.clientWidth < 80).length"""
    )
    assert narrow == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["10", "check", "study", "de"])
def test_everybody_can_read_it(
    browser: Any, pages: dict[str, str], check_accessibility: Any, name: str, scheme: str
) -> None:
    page = opened(browser, pages[name], width=1280 if scheme == "light" else 390, scheme=scheme)
    check_accessibility(page)
    page.close()


def test_a_cell_of_the_matrix_is_read_by_pointer_and_keys(browser: Any, pages: dict[str, str]) -> None:
    page = opened(browser, pages["10"])
    said, canvas = page.locator("#matrix-said"), page.locator("#matrix-canvas")
    canvas.focus()
    page.keyboard.press("ArrowDown")
    playwright.expect(said).to_contain_text("of 10 photos")
    before = said.inner_text()
    page.keyboard.press("ArrowRight")
    assert said.inner_text() != before
    for name in ("Larger", "Smaller", "Whole"):
        page.get_by_role("button", name=name).click()
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 3, "y": box["height"] - 3})
    playwright.expect(said).to_contain_text("photos right")
    page.close()


def test_a_matrix_of_many_classes_is_drawn(browser: Any, pages: dict[str, str]) -> None:
    page = opened(browser, pages["525"], 390)
    drawn = """(() => { const c = document.getElementById("matrix-canvas");
        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        let red = 0; for (let i = 0; i < d.length; i += 4) red += d[i] > d[i + 1] + 60; return red; })()"""
    assert page.evaluate(drawn) > 100  # confusions can be seen
    page.close()


def test_it_can_be_printed(browser: Any, pages: dict[str, str], tmp_path: Path) -> None:
    page = opened(browser, pages["10"], scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not page.locator("nav").is_visible()
    page.pdf(path=tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size > 20_000
    page.close()


def test_classes_that_are_confused_stand_side_by_side() -> None:
    import json

    found, taxonomy = scored(10, 400)
    made = matrix(found, taxonomy)
    assert made is not None
    data = json.loads(made["data"])
    assert sum(photos for *_, photos in data["cells"]) == 400
    at = [int(name.split("Genus")[1].split(" ")[0]) for name in data["names"]]
    for row, column, photos in data["cells"]:
        if row != column and photos > 5:
            assert at[row] + at[column] == 9
            assert abs(row - column) == 1
    assert matrix(found.where(np.zeros(400, np.bool_)), taxonomy) is None


def test_names_in_the_matrix_do_not_end_its_script(photo: Path) -> None:
    found, _ = scored(2, 10)
    made = matrix(found, Taxonomy([Taxon("0", "</script><b>"), Taxon("1", "&")]))
    assert made is not None
    assert not {"<", "&", ">"} & set(made["data"])


def test_each_class_has_a_photo_of_each_kind(photo: Path) -> None:
    found, taxonomy = scored(30, 900)
    shown = examples(found, lambda _: photo, taxonomy, (1.0, 0.9))
    assert len(shown) == MOST_SPECIES
    assert {kind for one in shown for kind, _ in one.shown} == {"right", "wrong", "not sure"}
    assert all(one.right <= one.photos == 30 for one in shown)
    wrong = [one.photos - one.right for one in shown]
    assert wrong == sorted(wrong, reverse=True)


def test_files_that_were_not_used_are_named(photo: Path, check_text: str) -> None:
    text = classifier_text(2, 30, photo)
    assert "IMG_00000019.JPG" in text
    assert "and 10 more" in text
    assert "folder/bad.jpg" in check_text
    assert check_text.count("folder/a.jpg</small>") >= 3  # readable without a pointer
