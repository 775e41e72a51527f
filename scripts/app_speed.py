"""Measure the wall of the application on many photos, beside one of 200: first screen, frames of scrolling.

    python scripts/app_speed.py [--photos 50000]

The first screen ends when its pictures are there, none of them from the cache of small pictures. Frames are
the intervals of requestAnimationFrame in five seconds of scrolling by the wheel. It needs Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from fieldmark.app.store import Project
from fieldmark.data import synthetic
from fieldmark.inference.inputs import InputPhoto

_FEW = 200
_SECONDS = 5
_FRAMES = """seconds => new Promise(done => {
  const found = []; let last = performance.now(); const end = last + 1000 * seconds;
  const step = now => { found.push(now - last); last = now;
    now < end ? requestAnimationFrame(step) : done(found); };
  requestAnimationFrame(step);
})"""
_SEEN = """() => { const box = document.querySelector('.fm-wall')?.getBoundingClientRect();
  const all = [...document.querySelectorAll('.fm-tile img')].filter(each => {
    const at = each.getBoundingClientRect(); return at.top < box.bottom && at.bottom > box.top; });
  return all.length > 0 && all.every(each => each.complete && each.naturalWidth > 0); }"""


def main() -> None:
    """Measure both walls, and print their figures and ratios."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--photos", type=int, default=50_000)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        synthetic.draw(folder / "guide", species=8, photos=80)
        few = _measured(folder, _FEW)
        many = _measured(folder, given.photos)
    ratios = {name: round(many[name] / few[name], 2) for name in few}
    print(json.dumps({f"{_FEW}": few, f"{given.photos}": many, "ratio": ratios}, indent=1))  # noqa: T201


def _measured(folder: Path, count: int) -> dict[str, float]:
    drawn = sorted((folder / "guide").rglob("*.jpg"))
    photos = folder / f"photos {count}"
    photos.mkdir()
    rows = []
    for number in range(count):
        path = photos / f"{number:06}.jpg"
        os.link(drawn[number % len(drawn)], path)
        rows.append(InputPhoto(str(path), path, location=f"site {number % 40}"))
    place = folder / f"project {count}"
    project = Project(place)
    project.add_new(rows, photos)
    project.close()
    command = [sys.executable, "-m", "fieldmark", "app", str(place), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, sync_playwright() as driver:
        try:
            assert process.stderr is not None
            address = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            found = _on(browser.new_page(viewport={"width": 1280, "height": 800}), address)
            browser.close()
        finally:
            process.terminate()
    return found


def _on(page: Page, address: str) -> dict[str, float]:
    page.goto(address)
    page.get_by_role("heading", level=1).wait_for()
    began = time.perf_counter()
    page.goto(f"{address.partition('/?')[0]}/review")
    page.wait_for_function(_SEEN, timeout=120_000)
    first = time.perf_counter() - began
    page.locator(".fm-wall").hover()
    page.evaluate(f"seconds => {{ window.measured = ({_FRAMES})(seconds); }}", _SECONDS)
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(50)
    frames: Any = np.array(page.evaluate("window.measured"))[1:]
    return {
        "first_screen_s": round(first, 2),
        "frame_median_ms": round(float(np.median(frames)), 1),
        "frame_p95_ms": round(float(np.percentile(frames, 95)), 1),
    }


if __name__ == "__main__":
    main()
