"""Measure the wall of the page Review: its first screen, and its frames while it is scrolled.

A project of 50,000 answers is drawn, the application runs in a process of its own, and headless Chromium
shows it without a GPU. Frames are times between two calls of `requestAnimationFrame`; the peer is an empty
page of the same height, scrolled in the same way. Each round scrolls through a part of the wall whose
thumbnails do not exist yet, so that the server draws them meanwhile.

    python -m benchmarks wall
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from benchmarks.common import Row, Unavailable, alternate, compare, jpeg, rounds
from fieldmark.app import answers
from fieldmark.app.store import Project
from fieldmark.inference.inputs import InputPhoto
from fieldmark.inference.record import Record

PHOTOS, FEW, SECONDS, SPECIES = 50_000, 100, 5, 60
_SIDE = (768, 1024)  # of a photo
_DISTINCT = 100  # files; the others are links to them
_DEFER = 1.0  # milliseconds that a frame of 60 Hz may be late before it counts
_EMPTY = """<!DOCTYPE html><title>empty</title><div class="fm-wall" style="height: 500px; overflow-y: auto">
<div style="height: 2000000px"></div></div>"""
_SHOWN = """() => {
    const box = document.querySelector(".fm-wall")?.getBoundingClientRect();
    const seen = [...document.querySelectorAll(".fm-tile")].filter(
        (tile) => tile.getBoundingClientRect().top < box.bottom);
    const ready = seen.length && seen.every((tile) => tile.querySelector("img")?.complete);
    return ready ? performance.now() : 0;
}"""
_SCROLL = """([from, seconds]) => new Promise((done) => {
    const box = document.querySelector(".fm-wall"), times = [], began = performance.now();
    box.scrollTop = from;
    const step = (now) => {
        times.push(now);
        box.scrollTop = from + 1.2 * (now - began);
        if (now - began < 1000 * seconds) requestAnimationFrame(step);
        else done(times.slice(1).map((each, at) => each - times[at]));
    };
    requestAnimationFrame(step);
})"""

Frames = dict[str, list[float]]


def run(quick: bool = False) -> list[Row]:
    """Return the rows: the first screen, and the frames."""
    many, seconds = (500, 1) if quick else (PHOTOS, SECONDS)
    with tempfile.TemporaryDirectory() as folder, _chromium() as browser:
        homes = Path(folder) / "many", Path(folder) / "few"
        for home, count in zip(homes, (many, FEW), strict=True):
            _draw(home, Path(folder) / f"photos-{home.name}", count)
        with _application(homes[0]) as ours, _application(homes[1]) as few:
            first = alternate(
                {
                    f"{many:,} answers": lambda: _first(browser, ours),
                    f"{FEW} answers": lambda: _first(browser, few),
                },
                rounds(quick),
                warm_up=True,
            )
            frames: dict[str, Frames] = {"wall": defaultdict(list), "an empty page": defaultdict(list)}
            with _page(browser, ours) as wall, _page(browser, "") as empty:
                pages = {"wall": wall, "an empty page": empty}
                alternate(
                    {name: partial(_scroll, pages[name], frames[name], seconds) for name in pages},
                    rounds(quick),
                    warm_up=True,
                )
    what = f"first screen of the wall, {many:,} answers"
    limits = f"median; at most 1 s is the aim; {os.getloadavg()[0]:.1f} processes wait for the processor"
    return [
        compare(what, first, f"{many:,} answers", f"{FEW} answers", note=limits),
        *(
            compare(
                what, {name: found[key] for name, found in frames.items()}, "wall", "an empty page", unit=unit
            )
            for key, what, unit in (
                ("middle", "frame while scrolling, median", "ms"),
                ("busy", "script, styles and layout of a frame", "ms"),
                ("late", "frames later than 60 a second", "%"),
                ("skipped", "frames of more than 33 ms", "%"),
            )
        ),
    ]


def _draw(home: Path, photos: Path, count: int) -> None:
    """Make a project of photos with answers; most files are links to a few."""
    photos.mkdir()
    for number in range(min(_DISTINCT, count)):
        (photos / f"{number:05}.jpg").write_bytes(jpeg(number, _SIDE))
    for number in range(_DISTINCT, count):
        os.link(photos / f"{number % _DISTINCT:05}.jpg", photos / f"{number:05}.jpg")
    project = Project(home)
    paths = [photos / f"{number:05}.jpg" for number in range(count)]
    project.add_new((InputPhoto(str(path), path, location=path.stem[-1]) for path in paths), photos)
    answers.keep(project, (_answer(path, number) for number, path in enumerate(paths)), "01")
    project.close()


def _answer(path: Path, number: int) -> Record:
    shares = (0.3 + 0.69 * (number % 997) / 997, 0.01)
    names = [f"Species {(number + at) % SPECIES:02}" for at in range(5)]
    labels = [
        {"taxon_id": name, "name": name, "common_name": "", "rank": "species", "score": shares[at > 0]}
        for at, name in enumerate(names)
    ]
    about = {"file_name": str(path), "source": "species", "rank": "species", "name": names[0]}
    return cast("Record", about | {"score": shares[0], "sure": True, "labels": labels})


@contextmanager
def _chromium() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise Unavailable("playwright is not installed") from error
    if chromium is None:
        raise Unavailable("no Chromium is installed here")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def _application(home: Path) -> Iterator[str]:
    """Run the application; gives its address with the key."""
    command = [sys.executable, "-m", "fieldmark", "app", str(home), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
        finally:
            process.terminate()


@contextmanager
def _page(browser: Any, address: str) -> Iterator[Any]:
    """Open the page Review of an application, or the empty page."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(120_000)
    if address:
        page.goto(address)
        page.goto(f"{address.partition('/?')[0]}/review")
        page.wait_for_function(_SHOWN)
    else:
        page.set_content(_EMPTY)
    yield page
    page.close()


def _first(browser: Any, address: str) -> float:
    """Return the seconds from the request of the page Review to all pictures of the first screen."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(120_000)
    page.goto(address)
    page.goto(f"{address.partition('/?')[0]}/review", wait_until="commit")
    shown = page.wait_for_function(_SHOWN, polling="raf").json_value()
    page.close()
    return float(shown) / 1000


def _busy(session: Any) -> float:
    """Return the seconds that the page has spent on scripts, styles and layout; painting is not in it."""
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return sum(found[name] for name in ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration"))


def _scroll(page: Any, frames: Frames, seconds: int) -> float:
    """Scroll on where the last round ended, and keep what its frames were."""
    start = 1200 * seconds * len(frames["middle"])
    page.bring_to_front()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    before = _busy(session)
    found = page.evaluate(_SCROLL, [start, seconds])
    frames["busy"].append(1000 * (_busy(session) - before) / len(found))
    session.detach()
    frames["middle"].append(statistics.median(found))
    for key, limit in (("late", 1000 / 60 + _DEFER), ("skipped", 100 / 3)):
        # A share of zero has no ratio: one frame more than there were counts on both sides.
        frames[key].append(100 * (sum(each > limit for each in found) + 1) / (len(found) + 1))
    return frames["middle"][-1]
