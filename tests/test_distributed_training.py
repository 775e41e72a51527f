"""Several processes train one network: the same curve as one, and what happens when one is killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fieldmark import models
from fieldmark.data import loader
from fieldmark.data.dataset import load_dataset
from fieldmark.data.loader import LabelledCrops, StreamedCrops
from fieldmark.data.photos import PhotoFile
from fieldmark.data.transforms import Preprocess
from fieldmark.training import TrainConfig
from fieldmark.training.finetune import distributed, good
from fieldmark.training.finetune.data import batches
from fieldmark.training.finetune.device import join_processes
from fieldmark.training.strategies import SingleStrategy
from fieldmark.utils import random
from fieldmark.utils.errors import InputError

ONE = """
import json, os, sys
from pathlib import Path
import numpy as np, torch
from dataclasses import asdict, replace
from fieldmark.models import load
from fieldmark.utils.errors import InputError
from fieldmark.training.finetune import finetune, good, join_processes, loop
from fieldmark.data.loader import LabelledCrops

out, dies = Path(sys.argv[1]), sys.argv[2] == "dies"
torch.set_num_threads(1)
rng = np.random.default_rng(0)
pixels = rng.integers(0, 255, (37, 40, 40, 3), np.uint8)
crops = LabelledCrops(pixels, np.arange(37), np.arange(37) % 3, tuple(map(str, range(37))))
val = replace(crops, pixels=np.ascontiguousarray(pixels[:, :32, :32]))
network = load("shufflenet_v2_x0_5", weights="random").trainable(3, 0)
join_processes("all")
if dies and os.environ["RANK"] == "1":
    keep = loop.TrainingState.after_epoch
    def after_epoch(self, entry):
        keep(self, entry)
        os._exit(9)
    loop.TrainingState.after_epoch = after_epoch
how = replace(good("all", epochs=2), batch_size=12, learning_rate=1e-3)
try:
    curve, _ = finetune(network, crops, val, how, checkpoint=out / "state")
except InputError as error:
    sys.exit(str(error))
total = float(sum(p.detach().double().abs().sum() for p in network.parameters()))
name = f"rank{os.environ.get('RANK', 'alone')}.json"
(out / name).write_text(json.dumps({"curve": [asdict(e) for e in curve], "weights": total}))
"""


def together(folder: Path, what: str) -> list[subprocess.CompletedProcess[str]]:
    """Two processes as `torchrun` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ONE, str(folder), what],
            env={**os.environ, **world, "MASTER_PORT": port, "RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    done = [each.communicate(timeout=240)[1] for each in started]
    return [
        subprocess.CompletedProcess([], each.returncode, stderr=text)
        for each, text in zip(started, done, strict=True)
    ]


def test_a_killed_process_is_said_and_the_rest_is_as_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = together(tmp_path, "dies")
    assert (first.returncode, second.returncode) == (1, 9)
    assert "Another process of this training has ended: run the same command again" in first.stderr
    assert "Traceback" not in first.stderr
    kept = (tmp_path / "state").stat().st_size
    assert kept
    assert [each.returncode for each in together(tmp_path, "lives")] == [0, 0]
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr(sys, "argv", ["", str(own), "lives"])
    exec(ONE, {})
    alone = json.loads((own / "rankalone.json").read_text())
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["weights"] == pytest.approx(alone["weights"], rel=1e-6)
        for ours, theirs in zip(found["curve"], alone["curve"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_parts_are_the_batch_once_whoever_computes_them(photos: int, accumulate: int, processes: int) -> None:
    found, counts = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(processes))
        for rank in range(processes):
            patch.setenv("RANK", str(rank))
            mine = distributed.parts(photos, accumulate)
            counts.append(len(mine))
            found += mine
    assert len(set(counts)) == 1  # else one would wait for ever
    numbers = sorted((number, index.tolist()) for number, index, share in found if share)
    assert [photo for _, index in numbers for photo in index] == list(range(photos))
    assert sum(share for *_, share in found) == pytest.approx(1)


def test_a_last_layer_is_no_work_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        join_processes("last")


class TestStream:
    @pytest.fixture
    def photos(self, insects: Path) -> list[PhotoFile]:
        from fieldmark.data import readers

        table = readers.read(insects)
        columns = table.kept.select("sha256", "path").iter_rows()
        return [PhotoFile(digest, table.file_of(path)) for digest, path in columns]

    def test_a_stream_gives_the_crops_of_a_spool_and_reads_a_byte_once_an_epoch(
        self, photos: list[PhotoFile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crop = Preprocess(size=40, resize=40, fit="squash")
        crop_cache = loader.CropCache.empty(len(photos), 40)
        assert len(list(crop_cache.fill(photos, crop))) == 64
        streamed = StreamedCrops(photos, crop)
        assert streamed.shape == crop_cache.crops.shape
        labels, ids = np.zeros(64, np.int64), tuple(map(str, range(64)))
        how = good("all", epochs=1)
        monkeypatch.setattr("fieldmark.training.finetune.data.BLOCK_PHOTOS", 4)
        monkeypatch.setattr("fieldmark.training.finetune.data.SHUFFLED_BLOCKS", 2)
        monkeypatch.setattr(loader, "BLOCK_PHOTOS", 4)
        read: list[Path] = []
        was = loader.images.read_bytes
        monkeypatch.setattr(loader.images, "read_bytes", lambda place: [read.append(place), was(place)][1])
        from_stream = list(batches(LabelledCrops(streamed, np.arange(64), labels, ids), how, 0, 32))
        # Each photo becomes the same, whatever the order: its augmentation hangs on its id alone.
        from_spool = list(batches(LabelledCrops(crop_cache.crops, np.arange(64), labels, ids), how, 0, 32))

        def rows(found: Any) -> list[bytes]:
            return sorted(row.numpy().tobytes() for pixels, _ in found for row in pixels)

        assert rows(from_stream) == rows(from_spool)
        assert len([each for each in read if not isinstance(each, loader.InMemoryImage)]) == 64

    def test_train_takes_the_same_photos_from_a_stream(self, insects: Path) -> None:
        config = TrainConfig(backbone="shufflenet_v2_x0_5", transfer="scratch")
        network = models.load("shufflenet_v2_x0_5", weights="random")
        data = SingleStrategy.of(config, lambda: load_dataset(insects)).prepare()
        parts, extractor = data.splits, data.extractor
        about = network, parts.train, parts.val, parts.classes
        for ours, theirs in zip(
            extractor.finetuning_crops(*about, stream=True), extractor.finetuning_crops(*about), strict=True
        ):
            assert (ours.ids, ours.labels.tolist()) == (theirs.ids, theirs.labels.tolist())
            index = np.arange(len(ours))
            assert torch.equal(ours.batch(index)[0], theirs.batch(index)[0])

    def test_a_photo_that_is_gone_is_said(self, photos: list[PhotoFile], tmp_path: Path) -> None:
        gone = PhotoFile(photos[0].sha256, tmp_path / "gone.jpg")
        with pytest.raises(InputError, match=r"gone\.jpg could not be read"):
            StreamedCrops([gone], Preprocess(size=8, resize=8, fit="squash"))[np.int64(0)]

    @given(st.integers(0, 300), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
    def test_an_order_in_stretches_is_each_photo_once_and_few_stretches_at_a_time(
        self, photos: int, stretch: int, at_once: int, epoch: int
    ) -> None:
        base = random.hashes([str(number) for number in range(photos)], "order", 0)
        order = random.block_order(base, epoch, stretch, at_once)
        assert sorted(order) == list(range(photos))
        seen = list(dict.fromkeys((order // stretch).tolist()))
        last = {each: at for at, each in enumerate((order // stretch).tolist())}
        first = {each: (order // stretch).tolist().index(each) for each in seen}
        for at in range(photos):
            assert sum(first[each] <= at <= last[each] for each in seen) <= at_once
