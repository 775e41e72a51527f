"""Take pictures of the pages of the application on drawn photos, and the film strip of docs/app.md.

    python scripts/app_pictures.py FOLDER [--strip docs/images/app.webp]

FOLDER gets a picture of each page on a desktop and a phone, light and dark. It needs Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from fieldmark.app import checking, decisions, jobs, learning, outcomes, queues
from fieldmark.app.store import EMPTY, Project
from fieldmark.data import readers, synthetic
from fieldmark.inference.inputs import InputPhoto

PAGES = {
    "/": "photos",
    "/train": "train",
    "/name": "name",
    "/review": "review",
    "/next": "next",
    "/learn": "learn",
    "/results": "results",
}
SIZES = {"desktop": (1280, 800), "phone": (390, 800)}
STRIP = ("photos", "train", "name", "review", "learn", "results")
_NEW = 60  # photos that are named


def main() -> None:
    """Take the pictures."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--strip", type=Path)
    given = asked.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    project = given.folder / "my project"
    if not project.exists():
        _make(given.folder, project)
    command = [sys.executable, "-m", "fieldmark", "app", str(project), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
            _visit(address, given.folder)
        finally:
            process.terminate()
    if given.strip:
        _film(given.folder, given.strip)


def _make(folder: Path, place: Path) -> None:
    """Make a project as it is after some days of work."""
    guide = folder / "guide"
    if not guide.exists():
        synthetic.draw(guide, species=8, photos=240)
    table = readers.read(guide)
    names = {taxon.id: taxon.name for taxon in table.taxonomy}
    labelled = table.kept.drop_nulls("taxon_id").sort("id").select("path", "taxon_id").iter_rows()
    rows = [(table.file_of(path), names[label]) for path, label in labelled]
    lines = ["file_name,label,taken,latitude,longitude"]
    lines += [
        f'"{file}",{label},2024-{4 + n % 5:02}-{1 + n * 7 % 28:02}T{n * 5 % 24:02}:00:00Z,'
        f"{47 + n % 6 / 40:.4f},{8 + n % 9 / 40:.4f}"
        for n, (file, label) in enumerate(rows[_NEW:])
    ]
    (folder / "labelled.csv").write_text("\n".join(lines), encoding="utf-8")
    project = Project(place)
    project.add_labelled(readers.read(folder / "labelled.csv"), folder / "labelled.csv")
    _done(project, checking.check(project))
    _done(project, learning.train(project))
    new = [
        InputPhoto(
            str(file),
            Path(str(file)),
            taken=f"2024-06-{1 + n % 20:02}T{(5 + n % 5, 19 + n % 4)[n % 3 == 0]:02}:{n * 11 % 60:02}:00Z",
            location=("brook", "meadow", "old oak")[n % 3],
            latitude=47.01 + n % 3 / 100,
            longitude=8.02 + n % 3 / 70,
        )
        for n, (file, _) in enumerate(rows[:_NEW])
    ]
    project.add_new(new, guide)
    _done(project, learning.name(project))
    ids = queues.wall(project, queues.Query()).ids
    decisions.accept(project, ids[:12], reviewer="Ada")
    decisions.decide(project, ids[12:14], EMPTY, reviewer="Ada")
    _done(project, learning.learn_again(project))
    project.close()


def _done(project: Project, job: jobs.Job) -> None:
    while job.state == "running":
        time.sleep(0.5)
    outcomes.take_over(project)
    if job.state not in ("done", "failed"):
        sys.exit(job.text())


def _visit(address: str, folder: Path) -> None:
    home = address.partition("/?")[0]
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for device, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(120_000)
            page.goto(address)
            for look in ("light", "dark"):
                for path, name in PAGES.items():
                    page.goto(home + path)
                    page.get_by_role("heading", level=1).wait_for()
                    _settle(page)
                    page.screenshot(path=folder / f"{name}-{device}-{look}.png", full_page=device == "phone")
                page.get_by_role("button", name="Light or dark").click()
                page.wait_for_timeout(500)
        browser.close()


def _settle(page: Page) -> None:
    """Wait until the pictures of a page are there."""
    page.wait_for_function("[...document.images].every(each => each.complete)", timeout=120_000)
    page.wait_for_timeout(1500)


def _film(folder: Path, out: Path) -> None:
    """Put the pages side by side, smaller, in two rows."""
    shots = [Image.open(folder / f"{name}-desktop-light.png").convert("RGB") for name in STRIP]
    width, height, gap = 620, 388, 12
    across = len(shots) // 2
    size = (across * (width + gap) + gap, 2 * (height + gap) + gap)
    strip = Image.new("RGB", size, (230, 236, 232))
    for at, shot in enumerate(shots):
        small = shot.resize((width, height), Image.Resampling.LANCZOS)
        strip.paste(small, (gap + at % across * (width + gap), gap + at // across * (height + gap)))
    strip.save(out, quality=80, method=6)


if __name__ == "__main__":
    main()
