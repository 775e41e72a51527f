"""The web page in a real Chromium: every way to add photos, all kinds of answers, accessibility."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.locations import Locations
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy
from fieldmark.evaluation.location_prior import KernelPrior, LocationRule
from fieldmark.inference.classifier import Answer, Classifier, HigherTaxon, Prediction
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.serving import web_page
from fieldmark.serving.config import ServeConfig
from fieldmark.utils import languages
from fieldmark.utils.typing import ByteArray, FloatArray

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

KEY = "a-key-for-the-page"
BEES = [
    Taxon(
        str(number),
        name,
        common,
        "Insects",
        dict(zip(RANKS, ("Animalia", "Arthropoda", "Insecta", "Hymenoptera", "Apidae", *rest), strict=True)),
    )
    for number, (name, common, *rest) in enumerate(
        [
            ("Apis mellifera", "honey bee", "Apis", "Apis mellifera"),
            ("Bombus terrestris", "buff-tailed bumblebee", "Bombus", "Bombus terrestris"),
            ("Bombus lapidarius", "<b>red</b>-tailed bumblebee", "Bombus", "Bombus lapidarius"),
            ("Xylocopa violacea", "", "Xylocopa", "Xylocopa violacea"),
        ]
    )
]


class ColourClassifier(Classifier):
    """A classifier by the colour of a photo: red gets a species, green a genus, blue "not sure", and
    black is unlike all that it knows."""

    def outputs(self, crops: list[ByteArray]) -> tuple[FloatArray, FloatArray]:
        [crops_NSS3] = crops  # one member, one view
        colours = crops_NSS3.mean(axis=(1, 2)).argmax(axis=1)
        kinds = [[0.9995, 0.0002, 0.0002, 0.0001], [0.02, 0.5, 0.46, 0.02], [0.4, 0.2, 0.2, 0.2]]
        scores_NC = np.array([kinds[colour] for colour in colours], np.float32)
        return scores_NC, np.where(crops_NSS3.mean(axis=(1, 2, 3)) < 20, 0, scores_NC.max(axis=1))

    def rank(self, p_C: FloatArray, top: int = 5, ood_score: float | None = None) -> Prediction:
        order = np.argsort(-p_C)[:top]
        answers = tuple(Answer(self.taxa[n], float(p_C[n])) for n in order)
        genus = HigherTaxon("genus", {rank: BEES[1].ranks[rank] for rank in RANKS[:-1]}, 0.96)
        rolled = genus if 0.45 < p_C.max() < 0.9 else None
        unknown = ood_score is not None and ood_score < 0.35
        sure = bool(p_C.max() > 0.9) and not unknown
        return Prediction(
            answers, sure, None if unknown else rolled, (genus,), "as the test sets it", unknown
        )


@pytest.fixture(scope="module")
def by_colour(classifier: Classifier) -> Classifier:
    values = {f.name: getattr(classifier, f.name) for f in fields(Classifier)}
    return ColourClassifier(**(values | {"taxonomy": Taxonomy(BEES)}))


@pytest.fixture(scope="module")
def server(running: Any, by_colour: Classifier) -> Iterator[Any]:
    with running(by_colour, ServeConfig(decoders=1, max_bytes=2_000_000)) as server:
        yield server


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Any]:
    yield from opened(browser, server)


def opened(browser: Any, server: Any, **options: Any) -> Iterator[Any]:
    """Open the page; at the end, no other host was contacted and no script has failed."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    asked: list[str] = []
    failures: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda line: failures.append(line.text) if "Policy" in line.text else None)
    page.on("filechooser", lambda _: None)  # from now on no chooser opens a window
    page.goto(server.url)
    yield page
    context.close()
    assert failures == []
    outside = [url for url in asked if not url.startswith((server.url, "blob:", "data:"))]
    assert outside == []


def picture(colour: str, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (90, 60), colour).save(file, kind)
    return file.getvalue()


def upload(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


RED, GREEN, BLUE, BLACK = (upload(f"{c}.jpg", picture(c)) for c in ("red", "green", "blue", "black"))


def add(page: Any, *photos: dict[str, Any]) -> Any:
    """Choose photos and wait for their cards."""
    before = page.locator(".card").count()
    page.set_input_files("#files", list(photos))
    playwright.expect(page.locator(".card")).to_have_count(before + len(photos))
    playwright.expect(page.locator(".busy")).to_have_count(0, timeout=60_000)
    return page.locator(".card")


def test_card_shows_names_bars_and_taxonomy(page: Any) -> None:
    card = add(page, RED).first
    assert card.locator("h2").inner_text() == "Honey bee"
    assert card.locator(".verdict > .latin").inner_text() == "Apis mellifera"
    path = card.locator(".path span").all_inner_texts()
    assert path == ["Animalia", "Arthropoda", "Insecta", "Hymenoptera", "Apidae", "Apis"]
    rows = card.locator(".labels li")
    assert rows.count() == 4
    assert "Honey bee" in rows.first.inner_text()
    assert "> 99.9 %" in rows.first.inner_text()
    playwright.expect(rows.first.locator(".bar")).to_have_attribute("style", "width: 99.95%;")
    assert page.locator("#status").inner_text() == "Honey bee, > 99.9 %."
    assert card.locator("img.photo").get_attribute("alt") == "Your photo red.jpg"


def test_uncertain_answers(page: Any) -> None:
    blue, green = (add(page, photo).first.locator(".verdict").inner_text() for photo in (BLUE, GREEN))
    assert blue.startswith("Not sure")
    assert "The most likely is Honey bee Apis mellifera (40.0 %), but its confidence is too low" in blue
    assert green.startswith("Genus: Bombus")
    black = add(page, BLACK)
    assert black.first.locator("h2").inner_text() == "Unknown"
    assert "This photo is unlike those that the classifier learned from" in black.first.inner_text()
    assert page.locator("#status").inner_text().startswith("Unknown: unlike the photos")


def test_each_photo_has_a_card_in_order(page: Any) -> None:
    bad = upload("<img src=x onerror=alert(1)>.jpg", b"this is no photo")
    cards = add(page, RED, bad, BLUE)
    assert cards.locator("h2").all_inner_texts() == ["Honey bee", "No answer", "Not sure"]
    assert "This file is not a photo." in cards.nth(1).inner_text()
    assert cards.nth(1).locator("img[src=x]").count() == 0
    assert page.locator("#status").inner_text().startswith("3 of 3 photos.")
    assert add(page, GREEN).count() == 4


def test_names_from_the_classifier_are_text_not_markup(page: Any) -> None:
    card = add(page, GREEN).first
    assert "<b>red</b>-tailed bumblebee" in card.inner_text()
    assert card.locator("b").count() == 0


def test_photos_can_be_dropped(page: Any) -> None:
    drop = """(bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"}));
        for (const kind of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(
                new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, list(RED["buffer"]))
    playwright.expect(page.locator(".card h2")).to_have_text("Honey bee")
    assert "over" not in (page.locator("#drop").get_attribute("class") or "")


def test_a_phone_can_take_a_photo(browser: Any, server: Any) -> None:
    phone = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
    for page in opened(browser, server, **phone):
        assert page.get_by_role("button", name="Take a photo").is_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Take a photo").tap()
        chooser.value.set_files(RED)
        playwright.expect(page.locator(".card h2")).to_have_text("Honey bee")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360  # nothing sticks out to the side
        for button in page.locator("button:visible").all():
            assert button.bounding_box()["height"] >= 40


def test_page_works_by_keyboard(page: Any) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the results"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert focused(page) == "Choose photos"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(RED)
    playwright.expect(page.locator(".card h2")).to_have_text("Honey bee")
    page.keyboard.press("Tab")
    assert focused(page) == "Where it looked"
    page.keyboard.press("Space")
    heat = page.locator(".heat")
    playwright.expect(heat).to_be_visible(timeout=60_000)
    assert page.locator(".show-heat").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Space")
    playwright.expect(heat).to_be_hidden()
    page.keyboard.press("Tab")
    assert focused(page) == "Similar photos"
    page.keyboard.press("Tab")
    assert focused(page) == "Remove"
    page.keyboard.press("Enter")
    assert page.locator(".card").count() == 0
    assert focused(page) == "Choose photos"


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.innerText"))


def test_the_heat_map_lies_on_the_photo(page: Any) -> None:
    card = add(page, RED).first
    card.get_by_role("button", name="Where it looked").click()
    playwright.expect(card.locator(".heat")).to_be_visible()
    assert card.locator(".heat").get_attribute("alt")
    photo, heat = (card.locator(name).bounding_box() for name in (".photo", ".heat"))
    assert heat["x"] >= photo["x"] - 1
    assert heat["x"] + heat["width"] <= photo["x"] + photo["width"] + 1
    assert heat["height"] == pytest.approx(photo["height"], abs=1)


def test_unsupported_routes_have_no_button(page: Any, server: Any) -> None:
    about = page.request.get(f"{server.url}/v1/model").json()
    assert about["offers"]["similar"] is True
    about["offers"]["similar"] = False
    page.route("**/v1/model", lambda route: route.fulfill(json=about))
    page.reload()
    assert not add(page, RED).first.locator(".show-similar").is_visible()


def test_similar_photos(page: Any, server: Any) -> None:
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
    near = {"taxon_id": "0", "name": "Apis mellifera", "common_name": "honey bee"}
    more = {"similarity": 0.87, "thumbnail": pixel}
    page.route(
        "**/v1/similar?*",
        lambda route: route.fulfill(json={"photos": [{"name": "", "similar": [near | more] * 2}]}),
    )
    about = page.request.get(f"{server.url}/v1/model").json()
    about["offers"]["similar"] = True
    page.route("**/v1/model", lambda route: route.fulfill(json=about))
    page.reload()
    card = add(page, RED).first
    card.get_by_role("button", name="Similar photos").click()
    shown = card.locator(".similar li")
    playwright.expect(shown).to_have_count(2)
    assert shown.first.inner_text().split("\n") == ["Honey bee", "87 % similar"]
    assert shown.first.locator("img").get_attribute("alt") == "Training photo: honey bee"


def test_too_large_file_is_not_sent(page: Any) -> None:
    playwright.expect(page.locator("#about")).to_contain_text("4 classes")
    card = add(page, upload("large.jpg", b"x" * 2_000_001)).first
    assert "The file is too large: the limit is 1.91 MiB" in card.inner_text()


def test_busy_server_is_retried(page: Any) -> None:
    times: list[int] = []

    def busy(route: Any) -> None:
        times.append(1)
        if len(times) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": {"message": "x"}})
        else:
            route.continue_()

    page.route("**/v1/predict*", busy)
    assert add(page, RED).first.locator("h2").inner_text() == "Honey bee"
    assert len(times) == 2


def test_unreachable_server_is_reported_and_can_be_retried(page: Any) -> None:
    page.route("**/v1/predict*", lambda route: route.abort())
    card = add(page, RED).first
    assert "The server cannot be reached" in card.inner_text()
    page.unroute("**/v1/predict*")
    card.get_by_role("button", name="Try again").click()
    playwright.expect(card.locator("h2")).to_have_text("Honey bee")


def test_api_key_form(running: Any, by_colour: Classifier, browser: Any) -> None:
    with running(by_colour, replace(ServeConfig(decoders=1), keys=(KEY,))) as server:
        for page in opened(browser, server):
            field = page.get_by_label("This server requires an API key")
            playwright.expect(field).to_be_focused()
            field.fill("not-the-key")
            page.keyboard.press("Enter")
            playwright.expect(page.locator("#status")).to_contain_text("does not accept this key")
            field.fill(KEY)
            page.keyboard.press("Enter")
            playwright.expect(field).to_be_hidden()
            assert add(page, RED).first.locator("h2").inner_text() == "Honey bee"


def test_a_place_and_date(running: Any, by_colour: Classifier, browser: Any) -> None:
    rows = np.array([[47.0, 8.0, 100]] * 9)
    kernel = KernelPrior(Locations.of(rows), np.zeros(9, np.int64), 4)
    placed = replace(by_colour, prior=LocationPrior(kernel, LocationRule(1.0)))
    with running(placed, ServeConfig(decoders=1)) as server:
        for page in opened(browser, server):
            card = add(page, BLUE).first
            assert "By the photo alone: the photo has no place." in card.inner_text()
            with page.expect_request("**/v1/predict*") as sent:
                page.get_by_label("Latitude").fill("47.1")
                page.get_by_role("button", name="Use for all photos").click()
                assert page.evaluate("document.querySelector('#lon').validity.customError")
                page.get_by_label("Longitude").fill("8.2")
                page.get_by_label("Date").fill("2024-06-30")
                page.get_by_role("button", name="Use for all photos").click()
            assert sent.value.url.endswith("?top=5&lat=47.1&lon=8.2&date=2024-06-30")
            playwright.expect(card).to_contain_text("counts: the place is that of the request")
            assert page.evaluate(NAMES) == []


# Accessibility


NAMES = """() => [...document.querySelectorAll("button, a, input, img, [role], section, article")]
    .filter((e) => e.checkVisibility())
    .filter((e) => !(e.tagName === "IMG" ? e.hasAttribute("alt")
        : (e.getAttribute("aria-label") || e.innerText || e.labels?.length
           || e.getAttribute("role") === "status")))
    .map((e) => e.outerHTML)"""

COLOURS = """() => {
    const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (colour) => {
        pixel.clearRect(0, 0, 1, 1);
        pixel.fillStyle = colour;
        pixel.fillRect(0, 0, 1, 1);
        return [...pixel.getImageData(0, 0, 1, 1).data];
    };
    const behind = (e) => {
        const layers = [];
        for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
        return layers;
    };
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || !e.checkVisibility()) continue;
        if (e.classList.contains("skip") || e.tagName === "SCRIPT") continue;
        found.push([walk.currentNode.data.trim(), rgba(getComputedStyle(e).color), behind(e)]);
    }
    return found;
}"""


def over(front: Any, back: Any) -> Any:
    share = front[3] / 255
    return share * np.array(front[:3]) + (1 - share) * np.array(back)


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of WCAG 2.2, section 1.4.3."""

    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour / 255]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_names_and_contrast(browser: Any, server: Any, scheme: str) -> None:
    pages: dict[str, float] = {}
    for page in opened(browser, server, color_scheme=scheme, reduced_motion="reduce"):
        add(page, RED, GREEN, BLUE, upload("bad.jpg", b"no photo"))
        assert page.evaluate(NAMES) == []
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("h1").count() == 1
        assert page.locator("#status").get_attribute("aria-live") == "polite"
        for text, colour, layers in page.evaluate(COLOURS):
            back = np.array([255, 255, 255])
            for layer in reversed(layers):
                back = over(layer, back)
            pages[text] = contrast(over(colour, back), back)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = np.mean([int(n) for n in re.findall(r"\d+", background)[:3]])
        assert (brightness < 60) == (scheme == "dark")
    assert len(pages) > 20
    assert {text: ratio for text, ratio in pages.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(browser: Any, server: Any, check_accessibility: Any, scheme: str) -> None:
    """Without photos and with every answer, with all that can be opened; and the page about the API."""
    options = {"color_scheme": scheme, "reduced_motion": "reduce"}
    if scheme == "dark":
        options["viewport"] = {"width": 390, "height": 800}
    for page in opened(browser, server, **options):
        check_accessibility(page)
        card = add(page, RED, GREEN, BLUE, BLACK, upload("bad.jpg", b"no photo")).first
        card.get_by_role("button", name="Where it looked").click()
        playwright.expect(card.locator(".heat")).to_be_visible(timeout=60_000)
        page.evaluate("document.querySelectorAll('#where, #key-form').forEach((e) => { e.hidden = false; })")
        check_accessibility(page)
        page.goto(f"{server.url}/docs")
        assert "POST /v1/predict" in page.locator("main").inner_text()
        check_accessibility(page)


def test_the_page_leads_to_the_documentation_of_the_api(page: Any) -> None:
    page.get_by_role("link", name="API").click()
    page.wait_for_url("**/docs")


class Marked:
    """A catalogue in which each message is the English one between brackets."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"


def test_nothing_of_the_page_is_left_in_english(
    browser: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(languages, "_catalogue", lambda language: Marked())
    web_page._page.cache_clear()
    for page in opened(browser, server, locale="de-DE"):
        page.route("**/v1/predict*", lambda route: route.abort(), times=1)
        add(page, RED)
        add(page, RED, GREEN, BLUE, BLACK, upload("bad.jpg", b"no photo"))
        page.locator(".show-heat").nth(1).click()
        playwright.expect(page.locator(".heat").nth(1)).to_be_visible(timeout=60_000)
        page.evaluate("document.querySelectorAll('#where, #key-form').forEach((e) => { e.hidden = false; })")
        found = page.evaluate(READ)
        page.locator(".remove").first.click()
        found.append(page.locator("#status").inner_text())
    web_page._page.cache_clear()
    text, before = "\n".join(found), ""
    assert text.count("⟦") > 50
    while text != before:  # messages with messages in them
        before, text = text, re.sub(r"⟦[^⟦⟧]*⟧", "", text)
    names = {word for bee in BEES for name in (bee.common_name, *bee.ranks.values()) for word in words(name)}
    assert words(text) <= names | {"fieldmark", "api", "jpg", "bad", "red", "green", "blue", "black"}


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]{3,}", text.lower()))


READ = """() => [...document.querySelectorAll("[lang=en], .path")].map((e) => e.remove()) &&
    [document.body.innerText, ...[...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility())
    .flatMap((e) => [e.getAttribute("aria-label"), e.getAttribute("alt"), e.title])
    .filter((text) => text)]"""


def test_the_page_speaks_the_language_of_the_browser(browser: Any, server: Any) -> None:
    for page in opened(browser, server, locale="de-AT"):
        assert page.evaluate("document.documentElement.lang") == "de"
        card = add(page, BLUE).first
        assert "Am wahrscheinlichsten ist Honey bee Apis mellifera (40,0 %), aber die" in card.inner_text()
        assert page.locator("#status").inner_text() == "Nicht sicher."
        bad = add(page, upload("bad.jpg", b"no photo")).first
        assert "Diese Datei ist kein Foto. Senden Sie JPEG" in bad.inner_text()
        assert add(page, GREEN).first.locator("h2").inner_text() == "Gattung: Bombus"
        playwright.expect(page.locator("#about")).to_contain_text("4 Klassen")
        assert page.locator("#about [lang=en]").inner_text().startswith("Top-1 error")


def test_the_page_is_part_of_the_package() -> None:
    import fieldmark.serving

    folder = Path(fieldmark.serving.__file__).parent
    files = {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    assert {f"static/{name}" for name in ("app.js", "style.css", "icon.svg")} <= files
    assert {"templates/index.html", "templates/docs.html"} <= files
