"""A process that is killed while it computes features: nothing is lost but a batch, nothing is wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROGRAM = '''
import sys, time
from pathlib import Path
import numpy as np
from fieldmark.utils import io
from fieldmark.data.photos import PhotoFile
from fieldmark.features.extraction import Extraction, Job, extract
from fieldmark.features.cache import FeatureStore
from fieldmark.data.transforms import Preprocess

photos_folder, store, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])


class Engine:
    """Slow enough to be killed; writes down how many crops it was given."""

    name = "slow"

    def __call__(self, crops):
        with open(log, "a") as out:
            print(len(crops), file=out, flush=True)
        time.sleep(pause)
        flat = crops.reshape(len(crops), -1).astype(np.float32)
        return np.stack([flat[:, start::7].mean(1) for start in range(7)], axis=1)


crop = Preprocess(size=16, fit="squash")
photos = [
    PhotoFile(io.sha256(path.read_bytes()), path) for path in sorted(photos_folder.rglob("*.jpg"))
]
jobs = [
    Job(name, FeatureStore(store).cache(name, crop.key(), 7, "float32"), cost, Engine)
    for name, cost in (("a", 1.0), ("b", 2.0))
]
extract(photos, jobs, crop, Extraction(), on_complete=lambda name, _: print(name, flush=True))
keys = sorted({photo.sha256 for photo in photos})
for job in jobs:
    rows = job.cache.rows(keys)
    there = [key for key, row in zip(keys, rows) if row >= 0]
    np.save(str(store) + "-" + job.name, job.cache.get(there)[:])
'''


def start(insects: Path, store: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(insects), str(store), str(log), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(insects: Path, store: Path, log: Path) -> tuple[dict[str, np.ndarray], int]:
    """Run to the end; gives the vectors by network and how many crops an engine was given."""
    before = len(log.read_text().split()) if log.exists() else 0
    process = start(insects, store, log, 0)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.split() == ["a", "b"]
    computed = sum(int(count) for count in log.read_text().split()[before:])
    return {name: np.load(f"{store}-{name}.npy") for name in ("a", "b")}, computed


@pytest.fixture(scope="module")
def whole(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What comes out when nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    vectors, computed = finish(insects, folder / "store", folder / "log")
    assert computed == 2 * 64
    return vectors


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_killed_in_the_middle_and_run_again(
    insects: Path, whole: dict[str, np.ndarray], tmp_path: Path, calls: int, wait: float
) -> None:
    """Killed in its n-th batch, or a moment later: the next run computes only what was not kept."""
    store, log = tmp_path / "store", tmp_path / "log"
    process = start(insects, store, log, 0.1)
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().split()) < calls:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    begun = sum(int(count) for count in log.read_text().split())
    vectors, computed = finish(insects, store, log)
    for name in ("a", "b"):
        np.testing.assert_array_equal(vectors[name], whole[name])
    # Two batches of 32 a network; at most one batch is computed twice.
    assert 2 * 64 - begun <= computed <= 2 * 64 - begun + 32


def test_two_at_a_time_do_not_mix(insects: Path, tmp_path: Path) -> None:
    """The second one is told that the store is in use, and leaves it as it was."""
    store, log = tmp_path / "store", tmp_path / "log"
    first = start(insects, store, log, 60.0)
    while not log.exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = start(insects, store, tmp_path / "log2", 0)
    _, errors = second.communicate(timeout=60)
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert second.returncode != 0
    assert "in use by another fieldmark" in errors
