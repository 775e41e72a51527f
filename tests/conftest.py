"""What all tests share: the real photos beside the checkout, and a cache of their own."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from fieldmark.data.synthetic import probe
from fieldmark.utils.logging import configure_command_line

# No test is timed: machines are busy. The same examples on every run, so that a failure is not chance.
settings.register_profile("fieldmark", deadline=None, derandomize=True)
settings.load_profile("fieldmark")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos, annotations, weights and broken files beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real photos are not beside this checkout (../shared)")
    return SHARED


# What the library logs is shown on standard error, as on the command line.
configure_command_line()


ALL_PROBES, PROBES = probe.COUNT, 16
"""The pictures on which a training tries its flag, and how many of them tests draw."""


@pytest.fixture(scope="session", autouse=True)
def probe_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pictures on which every training tries its flag, drawn once for all tests of a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "COUNT", PROBES)
        with pytest.MonkeyPatch.context() as other:
            other.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("drawn")))
            folder = probe.pictures()[0].parent
        yield folder


@pytest.fixture
def all_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the pictures, for tests of the flag itself."""
    monkeypatch.setattr(probe, "COUNT", ALL_PROBES)


@pytest.fixture(scope="session")
def shared_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted networks of all tests of a process, by their weights: each is converted once."""
    folder = tmp_path_factory.mktemp("shared") / "graphs"
    folder.mkdir()
    return folder


def link(shared: Path, cache: Path) -> None:
    """Put what tests share into a cache of their own."""
    cache.mkdir(exist_ok=True)
    (cache / shared.name).symlink_to(shared)


@pytest.fixture(autouse=True)
def cache(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    probe_pictures: Path,
    shared_graphs: Path,
) -> Path:
    """A cache of the test's own: no test sees what another one kept, but for drawn pictures and graphs."""
    folder = tmp_path_factory.mktemp("cache")
    for shared in (probe_pictures, shared_graphs):
        link(shared, folder)
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder))
    return folder


@pytest.fixture
def own_graphs(cache: Path, shared_graphs: Path) -> None:
    """No converted networks of other tests, for tests of the conversion and of what is kept of it."""
    (cache / shared_graphs.name).unlink()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, shared_graphs: Path) -> Path:
    """The folder of a cache for all tests of a file."""
    folder = tmp_path_factory.mktemp("kept")
    link(shared_graphs, folder)
    return folder


@pytest.fixture
def one_cache(cache: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for a file that uses this: a network is converted, and photos go through it, once."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(kept))


def draw_photo(label: int, number: int, side: int = 64) -> bytes:
    """A small JPEG: stripes whose hue and direction tell the class, and noise that tells the photo."""
    rng = np.random.default_rng([label, number])
    rows, columns = np.mgrid[0:side, 0:side] / side
    wave = np.sin(2 * np.pi * (2 + label) * (rows if label % 2 else columns) + rng.uniform(0, 6))
    colour = np.array([60 + 45 * label, 200 - 40 * label, 40 + 50 * (label % 3)])
    pixels = colour + 50 * wave[..., None] + rng.normal(0, 12, (side, side, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="session")
def draw() -> Any:
    """`draw(label, number)`: the bytes of a photo of a class, as in `insects`."""
    return draw_photo


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write other values into `classifier.json` than were published, without the digest that tells on them;
    Python's JSON also writes NaN and infinity."""
    text = json.dumps({name: value for name, value in about.items() if name != "digest"})
    (folder / "classifier.json").write_text(text)


@pytest.fixture(scope="session")
def write_tar() -> Callable[[Path, dict[str, bytes]], Path]:
    """`write_tar(path, members)`: a tar with these members in their order; gives its path."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, "w") as archive:
            for name, data in members.items():
                about = tarfile.TarInfo(name)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
        return path

    return write


CLASSES = ("Apis mellifera", "Bombus terrestris", "Cicindela campestris", "Danaus plexippus")


@pytest.fixture(scope="session")
def insects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class: four classes of 16 photos, beside them a broken file. Not to be changed."""
    folder = tmp_path_factory.mktemp("insects") / "insects"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(16):
            (folder / name / f"{number:02}.jpg").write_bytes(draw_photo(label, number))
    (folder / CLASSES[0] / "broken.jpg").write_bytes(draw_photo(0, 99)[:600])
    return folder


@pytest.fixture(scope="session")
def photos(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight photos. Not to be changed."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    for name in ("Apis mellifera", "Danaus plexippus"):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            shutil.copy(insects / name / f"{number:02}.jpg", folder / name)
    return folder


@pytest.fixture(scope="session")
def model(insects: Path, tmp_path_factory: pytest.TempPathFactory, shared_graphs: Path) -> Path:
    """A classifier of the four insects, with a cache beside it. Not to be changed."""
    from fieldmark.training import TrainConfig, train

    folder = tmp_path_factory.mktemp("model")
    link(shared_graphs, folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
        network = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch")
        train(insects, out=folder / "model", config=network)
    return folder / "model"


@pytest.fixture
def finished() -> Callable[[Any], None]:
    """Wait until the job of a project of the application has ended, and take its result over."""
    from fieldmark.app import jobs, outcomes

    def wait(project: Any) -> None:
        while jobs.running(project.folder):
            time.sleep(0.2)
        job = jobs.every(project.folder)[-1]
        assert outcomes.take_over(project) == [job], job.text()
        while jobs._started:  # its process writes how it ended, and then ends
            time.sleep(0.05)
            jobs.every(project.folder)

    return wait


@dataclass
class Done:
    """What came of a command: its exit code and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `fieldmark ...` in this process."""

    from fieldmark import cli

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["fieldmark", *(str(each) for each in arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(bool(leave.code))
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


@contextmanager
def _running(classifier: Any, config: Any) -> Iterator[Any]:
    import uvicorn

    from fieldmark.serving.app import create_app
    from fieldmark.serving.connection import limited

    app: Any = create_app(classifier, config)
    settings = uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="none", http=limited(config))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            assert server.started
            port = listener.getsockname()[1]
            yield SimpleNamespace(port=port, url=f"http://127.0.0.1:{port}", app=app.app)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def running() -> Any:
    """A way to serve a classifier: `with running(classifier, config) as server`, which has `port`,
    `url` and `app`."""
    pytest.importorskip("fastapi", reason="fieldmark[serve] is not installed")
    return _running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window, for one file of tests: its event loop must not be there in others."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed here")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", *quiet]
    with driver.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=chromium, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def check_accessibility() -> Callable[..., None]:
    """`check_accessibility(page)`: axe-core finds nothing serious (WCAG 2.2 AA) in a page as it is now.

    With `exclude` it leaves out parts by their CSS selectors.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

    def check(page: Any, exclude: Sequence[str] = ()) -> None:
        # The bar of a page that loads something has no name, and goes away.
        context = {"exclude": [[each] for each in (*exclude, ".q-loading-bar")]}
        found = axe.Axe().run(page, context=context).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [
            (e["id"], [(node["html"][:200], node["failureSummary"]) for node in e["nodes"][:3]])
            for e in serious
        ]

    return check


@pytest.fixture(scope="session")
def classifier(model: Path) -> Any:
    """The classifier of the four insects, its network loaded."""
    from fieldmark.inference.classifier import Classifier

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
        loaded = Classifier.load(model)
        loaded.predict([draw_photo(0, 0)])
    return loaded
