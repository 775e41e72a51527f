"""The application in a real Chromium: from folders to results, 50,000 photos, accessibility, access."""

from __future__ import annotations

import csv
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fieldmark.app import decisions, jobs
from fieldmark.app.store import Project
from fieldmark.data import readers
from fieldmark.inference.inputs import InputPhoto
from fieldmark.utils import io

pytest.importorskip("nicegui", reason="the application's packages are not installed")

TRAINING = "--backbone shufflenet_v2_x0_5 --weights random --engine torch"
SLOW = 200_000  # milliseconds that a job may take on a busy machine
PAGES = ("/", "/train", "/name", "/review", "/next", "/learn", "/results")


@contextmanager
def opened(folder: Path, cache: Path, *, killed: bool = False) -> Iterator[str]:
    """Run the application on a project; gives the address with its key. It is stopped, or killed."""
    command = [sys.executable, "-m", "fieldmark", "app", str(folder), "--port", "0", "--no-browser"]
    environment = os.environ | {"FIELDMARK_CACHE": str(cache)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            said = ""
            while not (found := re.search(r"http://\S+", said)):
                line = process.stderr.readline()
                assert line, said
                said += line
            yield found[0]
        finally:
            process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(20) == (-signal.SIGKILL if killed else 0), rest
            assert "Traceback" not in rest, rest


@contextmanager
def visited(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open a page, and fail where it had an error of its own."""
    context = browser.new_context(**options)
    context.set_default_timeout(SLOW)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert not errors


def choose(page: Any, button: str, folder: Path) -> None:
    """Name a folder in the dialog that a button opens."""
    page.get_by_role("button", name=button).click()
    page.get_by_label("Folder or list").fill(str(folder))
    page.get_by_role("button", name="Use this").click()


def _in_german(page: Any) -> None:
    page.get_by_role("heading", name="Fotos", level=1).wait_for()
    assert page.evaluate("document.documentElement.lang") == "de"
    page.get_by_text("16 Fotos von 2 Arten").wait_for()
    page.get_by_role("button", name="Weglassen").click()  # what an event says is in the page's language
    page.get_by_text("Kein Foto ist ausgewählt").wait_for()
    page.locator("#fm-tile-0").click()
    page.get_by_role("button", name="Weglassen").click()
    page.get_by_text("1 Foto ist weggelassen").wait_for()
    page.get_by_text("15 Fotos von 2 Arten").wait_for()
    page.get_by_role("button", name="Rückgängig").click()
    page.get_by_text("Rückgängig: weggelassen (1 Foto").wait_for()
    page.get_by_role("link", name="Durchsehen").click()
    page.get_by_text("Hier ist nichts mehr.").wait_for()
    page.get_by_role("button", name="Sprache").click()
    page.get_by_text("Português", exact=True).click()
    page.get_by_role("heading", name="Revisar", level=1).wait_for()  # a choice counts before the browser


@pytest.fixture
def check(check_accessibility: Callable[..., None]) -> Callable[[Any], None]:
    """Check a page as it is, and on a phone in the dark."""

    def both(page: Any) -> None:
        # The report in the frame is a page of its own, with tests of its own; messages fade in and out.
        leave_out = ("iframe", ".q-notifications")
        check_accessibility(page, leave_out)
        wide = page.viewport_size
        page.set_viewport_size({"width": 390, "height": 800})
        page.evaluate("Quasar.Dark.set(true)")
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        check_accessibility(page, leave_out)
        page.evaluate("Quasar.Dark.set(false)")
        page.set_viewport_size(wide)
        page.wait_for_timeout(200)

    return both


def test_the_whole_loop(
    browser: Any,
    insects: Path,
    tmp_path: Path,
    cache: Path,
    draw: Callable[[int, int], bytes],
    check: Callable[[Any], None],
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for number in range(8):
        (new / f"{number}.jpg").write_bytes(draw(number % 4, 100 + number))
    project = tmp_path / "project"
    with opened(project, cache) as address, visited(browser, address) as page:
        home = address.partition("/?")[0]
        page.set_default_timeout(SLOW)
        choose(page, "Add photos", insects)
        page.get_by_text("64 photos of 4 species; 1 refused (1 truncated)").wait_for()
        check(page)
        _train(page, home, check)
        _name(page, home, new, check)
        _review(page, home, project, check)
        _learn(page, home, check)
        page.goto(f"{home}/next")
        page.get_by_text("Show", exact=True).wait_for()
        check(page)
        page.goto(f"{home}/results")
        with page.expect_download() as download:
            page.get_by_text("CSV table, one row a photo").click()
        rows = list(csv.DictReader(Path(download.value.path()).read_text("utf-8-sig").splitlines()))
        assert len(rows) == 8
        assert {"Ursus maritimus", "empty"} <= {row["species"] for row in rows if row["by"] == "person"}
        assert {row["box_width"] for row in rows} == {"0.8"}
        check(page)


def _train(page: Any, home: str, check: Callable[[Any], None]) -> None:
    page.goto(f"{home}/train")
    page.get_by_text("For experts").click()
    page.get_by_label("Further options of fieldmark train").fill(TRAINING)
    check(page)
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_text("Report of classifier 01").wait_for()
    report = page.frame_locator("iframe")
    report.get_by_text(re.compile("the first answer of this classifier is right")).first.wait_for()
    page.get_by_text("Training is done").wait_for()


def _name(page: Any, home: str, new: Path, check: Callable[[Any], None]) -> None:
    page.goto(f"{home}/name")
    choose(page, "Add new photos", new)
    page.get_by_text("8 new photos; 0 named").wait_for()
    seen = [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.8, 0.8]}]
    images = [{"file": path.name, "detections": seen} for path in new.iterdir()]
    boxes = {"images": images, "detection_categories": {"1": "animal"}}
    io.write_json(new.parent / "boxes.json", boxes)
    choose(page, "Choose boxes", new.parent / "boxes.json")
    page.get_by_text("It lists 8 of 8 photos").wait_for()
    page.get_by_role("button", name="Name them").click()
    page.get_by_text("8 new photos; 8 named").wait_for()
    check(page)


def _review(page: Any, home: str, project: Path, check: Callable[[Any], None]) -> None:
    def labels() -> list[str]:
        with sqlite3.connect(project / "project.sqlite") as db:
            rows = db.execute(
                "SELECT coalesce(label, state) FROM photos WHERE role = 'new' AND state != 'none'"
            )
            return sorted(row[0] for row in rows)

    page.goto(f"{home}/review")
    page.locator(".fm-tile img").nth(7).wait_for()
    page.get_by_text("0 of 8 reviewed").wait_for()
    wall = page.locator(".fm-wall")
    wall.focus()
    # No wait between the keys: what a key does may not depend on an answer of the server.
    page.keyboard.type("b/Ursus maritimus\nbu")
    page.get_by_text("4 of 8 reviewed").wait_for()
    assert labels() == ["Ursus maritimus", "empty", "empty", "unknown"]
    wall.press("1")
    page.get_by_text("5 of 8 reviewed").wait_for()
    before = labels()
    wall.press("b")
    page.get_by_text("6 of 8 reviewed").wait_for()
    wall.press("Control+z")
    page.get_by_text("5 of 8 reviewed").wait_for()
    assert labels() == before
    check(page)


def _learn(page: Any, home: str, check: Callable[[Any], None]) -> None:
    page.goto(f"{home}/learn")
    page.get_by_text("4 labels of photos that it has not learned from").wait_for()
    page.get_by_role("button", name="Learn again", exact=True).click()
    page.get_by_text("Report of classifier 02").wait_for()
    page.get_by_text("Photos that it knew").wait_for()
    page.get_by_text("0 labels of photos that it has not learned from").wait_for()
    check(page)


def test_training_is_cancelled_and_both_training_and_naming_go_on_after_a_kill(
    browser: Any, photos: Path, tmp_path: Path, cache: Path, draw: Callable[[int, int], bytes]
) -> None:
    folder, new = tmp_path / "project", tmp_path / "new"
    store = Project(folder)
    store.add_labelled(readers.read(photos), photos)
    store.close()
    with opened(folder, cache, killed=True) as address, visited(browser, address) as page:
        page.set_default_timeout(SLOW)
        page.goto(f"{address.partition('/?')[0]}/train")
        page.get_by_text("For experts").click()
        page.get_by_label("Further options of fieldmark train").fill(TRAINING)
        page.get_by_role("button", name="Train", exact=True).click()
        _wait_until_locked(folder)
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("Training was cancelled").wait_for()
        page.get_by_role("button", name="Go on").click()
        _wait_until_locked(folder)
        os.kill(int(io.read_json(jobs.every(folder)[-1].folder / "pid.json")), signal.SIGKILL)
    with opened(folder, cache, killed=True) as address, visited(browser, address) as page:
        page.set_default_timeout(SLOW)
        page.goto(f"{address.partition('/?')[0]}/train")
        page.get_by_text("Training was interrupted").wait_for()
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("Report of classifier 01").wait_for()
        page.get_by_text("Training is done").wait_for()
        assert len(jobs.every(folder)) == 1
        _many(new, draw)
        page.goto(f"{address.partition('/?')[0]}/name")
        choose(page, "Add new photos", new)
        page.get_by_text("1,500 new photos; 0 named").wait_for()
        store = Project(folder)
        decisions.decide(store, [20, 21], "Apis mellifera", reviewer="Ada")
        store.close()
        page.get_by_role("button", name="Name them").click()
        journal = folder / "jobs" / "0002-predict" / "answers.jsonl.journal"
        begun = _kill_when_begun(folder, journal)
    with opened(folder, cache) as address, visited(browser, address) as page:
        page.set_default_timeout(SLOW)
        page.goto(f"{address.partition('/?')[0]}/name")
        page.get_by_text("Naming photos was interrupted").wait_for()
        page.get_by_text("0 named by the classifier, 2 decided by a person").wait_for()
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("1,500 named by the classifier, 2 decided by a person").wait_for()
    assert journal.read_bytes().startswith(begun)  # nothing was named twice
    assert len(jobs.every(folder)) == 2


def _many(folder: Path, draw: Callable[[int, int], bytes]) -> None:
    """Make 1,500 photos of four pictures, so that naming them takes a while and drawing them does not."""
    folder.mkdir()
    for number in range(1500):
        path = folder / f"{number:04}.jpg"
        path.write_bytes(draw(number, 500)) if number < 4 else os.link(folder / f"{number % 4:04}.jpg", path)


def _kill_when_begun(folder: Path, journal: Path) -> bytes:
    """Kill the naming when some answers are in its journal, and not all; return the whole lines of it."""
    end = time.monotonic() + SLOW / 1000
    while not journal.exists() or journal.read_bytes().count(b"\n") < 100:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(int(io.read_json(jobs.every(folder)[-1].folder / "pid.json")), signal.SIGKILL)
    while jobs.every(folder)[-1].locked:
        time.sleep(0.01)
    kept = journal.read_bytes()
    assert 100 <= kept.count(b"\n") < 1500
    return kept[: kept.rindex(b"\n") + 1]


def _wait_until_locked(folder: Path) -> None:
    """Wait until the job has begun: before that its process only imports."""
    end = time.monotonic() + SLOW / 1000
    while not any(job.locked for job in jobs.every(folder)[-1:]):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_photos_are_dragged_to_another_species_and_left_out_in_english_and_german(
    browser: Any, photos: Path, tmp_path: Path, cache: Path
) -> None:
    store = Project(tmp_path / "project")
    store.add_labelled(readers.read(photos), photos)
    with opened(tmp_path / "project", cache) as address, visited(browser, address) as page:
        page.goto(address)
        page.locator(".fm-tile[data-id]").nth(1).wait_for()
        species = page.locator(".fm-drop").filter(has_text="Danaus plexippus")
        page.locator("#fm-tile-0").click()
        page.locator("#fm-tile-1").click(modifiers=["Control"])
        page.get_by_text("2 chosen").wait_for()
        page.locator("#fm-tile-0 img").drag_to(species)
        species.get_by_text("10").wait_for()
        page.locator("#fm-tile-0").click()
        page.get_by_role("button", name="Leave out").click()
        page.get_by_text("15 photos of 2 species").wait_for()
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("16 photos of 2 species").wait_for()
        page.get_by_label("Rename or merge Apis mellifera").click()
        page.get_by_label("Species name", exact=True).fill("Danaus plexippus")
        page.get_by_role("button", name="Rename", exact=True).click()
        page.get_by_text("16 photos of 1 species").wait_for()
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("16 photos of 2 species").wait_for()
        with visited(browser, address, locale="de-AT") as german:
            _in_german(german)
    assert dict(store.rows("SELECT label, count(*) FROM photos GROUP BY 1")) == {
        "Apis mellifera": 6,
        "Danaus plexippus": 10,
    }
    store.close()


def test_fifty_thousand_photos_scroll_in_a_window_and_are_reviewed_by_event(
    browser: Any, tmp_path: Path, cache: Path
) -> None:
    store = Project(tmp_path / "project")
    store.add_new(
        (
            InputPhoto(
                f"/c/{n:05}.jpg",
                Path(f"/c/{n:05}.jpg"),
                location=f"site {n // 3 % 40}",
                taken=f"2024-05-{1 + n // 3 // 40 % 28:02}T{n // 3 // 1120:02}:00:{n % 3:02}Z",
            )
            for n in range(50_000)
        ),
        Path("/c"),
    )
    store.close()
    with opened(tmp_path / "project", cache) as address, visited(browser, address) as page:
        page.goto(f"{address.partition('/?')[0]}/review")
        wall = page.locator(".fm-wall")
        page.get_by_text("0 of 50,000 reviewed").wait_for()
        page.locator(".fm-tile[data-id]").first.wait_for()
        assert page.locator(".fm-tile").count() < 200
        height = wall.evaluate("each => each.scrollHeight")
        assert height > 1_000_000
        for share in (0.25, 0.5, 0.999):
            wall.evaluate("(each, to) => { each.scrollTop = to; }", height * share)
            first = "each => Math.min(...[...document.querySelectorAll('.fm-tile')].map(t => +t.id.slice(8)))"
            page.wait_for_function(
                "share => [...document.querySelectorAll('.fm-tile[data-id]')]"
                ".some(each => +each.id.slice(8) > 50000 * share * 0.95)",
                arg=share,
            )
            assert wall.evaluate(first) > 50_000 * share * 0.9
            assert page.locator(".fm-tile").count() < 200
        wall.press("End")
        page.locator("#fm-tile-49999").wait_for()
        wall.press("Home")
        page.locator("#fm-tile-0").wait_for()
        wall.press("e")  # one group, of all: forgotten as soon as other groups are shown
        _group_by(page, "Event")
        page.locator(".fm-head").get_by_text("site 0 · 2024-05-01 00:00").wait_for()
        page.keyboard.press("e")  # an event at a time
        page.get_by_text(re.compile("^3 photos are chosen")).wait_for()
        page.keyboard.press("b")
        page.get_by_text("3 of 50,000 reviewed").wait_for()
        page.locator("#fm-tile-3.focus").wait_for()
        page.keyboard.press("Control+a")
        page.get_by_text("50,000 photos are chosen").wait_for()


def _group_by(page: Any, word: str) -> None:
    page.get_by_label("Grouped by").click()
    page.get_by_role("option", name=word).click()


def test_keys_are_for_the_wall_after_a_menu_and_for_a_field_while_one_types(
    browser: Any, tmp_path: Path, cache: Path
) -> None:
    store = Project(tmp_path / "project")
    paths = [tmp_path / f"{n}.jpg" for n in range(6)]
    store.add_new((InputPhoto(str(path), path, location=f"site {path.stem}") for path in paths), tmp_path)
    with opened(tmp_path / "project", cache) as address, visited(browser, address) as page:
        page.goto(f"{address.partition('/?')[0]}/review")
        page.get_by_text("0 of 6 reviewed").wait_for()
        for field in ("Other name", "Accept all from"):
            page.get_by_label(field).click()
            page.keyboard.type("ub1ea")
        page.locator(".fm-tile[data-id]").first.wait_for()
        page.get_by_label("Grouped by").click()  # a menu that is left as it was
        page.keyboard.press("Escape")
        page.locator(".fm-wall:focus").wait_for()
        page.keyboard.press("b")
        page.get_by_text("1 of 6 reviewed").wait_for()
        _group_by(page, "Place")
        page.locator(".fm-head").get_by_text("site 1").wait_for()
        page.wait_for_timeout(600)  # the menu fades out, and its button would take the focus
        page.keyboard.press("b")
        page.get_by_text("2 of 6 reviewed").wait_for()
        page.get_by_role("button", name="Reviewed").click()
        page.locator(".fm-head").get_by_text("site 0").wait_for()
        page.keyboard.press("u")
        page.get_by_role("button", name="Language").click()
        page.get_by_text("Português", exact=True).wait_for()
        page.keyboard.press("Escape")
        page.locator(".fm-wall:focus").wait_for()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("u")
        page.get_by_role("button", name="To review").click()
        page.locator(".fm-head").get_by_text("site 2").wait_for()
    labels = store.rows("SELECT coalesce(label, state) FROM photos WHERE state != 'none'")
    assert labels == [("unknown",), ("unknown",)]
    store.close()


def test_empty_pages_are_readable_on_a_phone_in_the_dark(
    browser: Any, tmp_path: Path, cache: Path, check_accessibility: Callable[..., None]
) -> None:
    store = Project(tmp_path / "project")
    store.set("look", "dark")
    store.close()
    with (
        opened(tmp_path / "project", cache) as address,
        visited(browser, address, viewport={"width": 390, "height": 800}) as page,
    ):
        for path in PAGES:
            page.goto(address.partition("/?")[0] + path)
            page.get_by_role("heading", level=1).wait_for()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            check_accessibility(page)


def _status(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_only_the_key_opens_it_and_one_application_a_project(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "project"
    with opened(folder, cache) as address:
        home = address.partition("/?")[0]
        assert _status(address) == 403  # the redirect without its cookie
        assert _status(home) == _status(f"{home}/?key=wrong") == _status(f"{home}/thumb/1.jpg") == 403
        assert _status(address, Host="evil.example") == 421
        assert _status(address, Origin="https://evil.example") == 403
        command = [sys.executable, "-m", "fieldmark", "app", str(folder), "--port", "0", "--no-browser"]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "in use by another fieldmark" in second.stderr.splitlines()[-1]
