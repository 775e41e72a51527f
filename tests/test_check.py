"""`fieldmark check` as a whole: planted copies are found, photos are removed only on request."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fieldmark.curation import CheckConfig, check
from fieldmark.curation.orientation import rotation_log_odds
from fieldmark.data import readers
from fieldmark.data.photos import PhotoFile, PhotoTable
from fieldmark.data.split import Split
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import Features
from fieldmark.models import runtime
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

NETWORK = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "engine": "torch"}


def test_a_planted_copy_is_found_grouped_and_dropped_only_when_asked(insects: Path, tmp_path: Path) -> None:
    shutil.copytree(insects, tmp_path / "photos")
    copy = tmp_path / "photos" / "Danaus plexippus" / "copy.jpg"
    shutil.copy(insects / "Apis mellifera" / "03.jpg", copy)
    done = check(tmp_path / "photos", tmp_path / "out", CheckConfig(**NETWORK))
    rows = done.findings.filter(pl.col("same_bytes").is_not_null())
    assert set(rows["id"]) == {"Apis mellifera/03.jpg", "Danaus plexippus/copy.jpg"}
    assert rows["labels_differ"].all()
    assert done.summary.drops["duplicates"] == 1
    assert done.table.kept.height == done.findings.height == 65
    table = PhotoTable.read(tmp_path / "out" / "checked.parquet")
    groups = table.frame.filter(pl.col("id").is_in(rows["id"].to_list()))["group"]
    assert groups.n_unique() == 1
    assert groups.null_count() == 0
    assert "labels differ" in (tmp_path / "out" / "report.html").read_text()
    again = check(tmp_path / "photos", tmp_path / "out", CheckConfig(drop=("duplicates",), **NETWORK))
    assert again.table.reasons()["duplicate"] == 1
    assert again.table.kept.height == 64


def test_so_many_labels_are_dropped_that_most_of_them_are_wrong(insects: Path, tmp_path: Path) -> None:
    """The others that are worth a review stay, on the page too."""
    table = readers.read(insects)
    taxa = table.labelled["taxon_id"].unique().sort().to_list()
    ids = table.labelled["id"].sort().to_list()[3::9]
    other = pl.col("taxon_id").replace(dict(zip(taxa, [*taxa[1:], taxa[0]], strict=True)))
    noisy = table.with_frame(
        table.frame.with_columns(taxon_id=pl.when(pl.col("id").is_in(ids)).then(other).otherwise("taxon_id"))
    )
    noisy.write(tmp_path / "noisy.parquet")
    found = {}
    for precision in (0.0, 0.5, 1.0):
        config = CheckConfig(drop=("labels",), label_precision=precision, **NETWORK)
        done = check(tmp_path / "noisy.parquet", tmp_path / "out", config)
        told = io.read_json(tmp_path / "out" / "findings.json")
        suspect = done.findings.drop_nulls("suspect").sort("suspect")
        assert told["labels"] == len(suspect) == done.table.reasons().get("suspect-label", 0)
        assert told["to_review"] == done.findings["review"].count() > 0
        assert suspect["suspect"].to_list() == suspect["review"].to_list() == [*range(1, len(suspect) + 1)]
        assert done.findings["label_wrong"].null_count() == done.findings["likelier"].null_count() == 0
        if len(suspect):
            assert precision <= told["label_precision"] < suspect["label_wrong"].mean()
        else:
            assert told["label_precision"] is None
        found[precision] = set(suspect["id"])
    assert found[1.0] == set()
    assert found[0.5] <= found[0.0]
    assert len(found[0.5] & set(ids)) >= 0.5 * len(found[0.5]) > 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Marked as suspect: 0" in page
    assert "review: " in page


@pytest.mark.parametrize("precision", [-0.1, 1.5])
def test_a_label_precision_that_is_no_share_is_refused(
    precision: float, insects: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--label-precision"):
        check(insects, tmp_path / "out", CheckConfig(label_precision=precision, **NETWORK))


def test_unknown_drop_is_refused_before_any_work(insects: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose from duplicates"):
        check(insects, tmp_path / "out", CheckConfig(drop=("ugly",)))
    assert not (tmp_path / "out").exists()


def test_photos_missing_since_the_index_are_rejected(insects: Path, tmp_path: Path) -> None:
    shutil.copytree(insects, tmp_path / "photos")
    readers.read(tmp_path / "photos").write(tmp_path / "table.parquet")
    gone = ["Apis mellifera/03.jpg", "Apis mellifera/05.jpg", "Danaus plexippus/15.jpg"]
    for photo_id in gone:
        (tmp_path / "photos" / photo_id).unlink()
    done = check(tmp_path / "table.parquet", tmp_path / "out", CheckConfig(**NETWORK))
    rejected = done.table.frame.filter(pl.col("reason") == "missing")
    assert sorted(rejected["id"]) == gone


def changed(photo: Path, target: Path, how: str) -> None:
    image = Image.open(photo).convert("RGB")
    wide, high = image.size
    if how == "halved":
        image = image.resize((wide // 2, high // 2))
    elif how == "cropped":
        image = image.crop((wide // 60, high // 60, wide - wide // 60, high - high // 60))
    image.save(target, quality=60 if how == "recompressed" else 88)


@pytest.fixture(scope="module")
def planted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos of four species, and nine changed copies of them in other folders."""
    kinds = sorted((shared / "data/wild74/train_val2019/Mammals").iterdir())[:4]
    root = tmp_path_factory.mktemp("planted")
    for number, kind in enumerate(kinds):
        (root / f"kind {number}").mkdir()
        for at, photo in enumerate(sorted(kind.glob("*.jpg"))[:12]):
            shutil.copy(photo, root / f"kind {number}" / f"{at:02}.jpg")
    for at, how in enumerate(("recompressed", "halved", "cropped") * 3):
        photo = root / f"kind {at % 4}" / f"{at:02}.jpg"
        changed(photo, root / f"kind {(at + 1) % 4}" / f"copy of {at % 4}-{at:02}.jpg", how)
    return root


REAL = {"backbone": "tf_efficientnet_lite0", "engine": "torch"}


def test_changed_copies_are_found_across_folders_and_parts(planted: Path, tmp_path: Path) -> None:
    table = readers.read(planted)
    copies = table.frame.filter(pl.col("id").str.contains("copy of"))["id"]
    parts = table.frame.select("id", part=pl.lit("train")).with_columns(
        part=pl.when(pl.col("id").is_in(copies.implode())).then(pl.lit("test")).otherwise("part")
    )
    Split(parts.sort("id"), 0, "random").write(tmp_path / "split.parquet")
    config = CheckConfig(split=tmp_path / "split.parquet", drop=("leaks",), **REAL)
    done = check(planted, tmp_path / "out", config)
    rows = {row["id"]: row for row in done.findings.iter_rows(named=True)}
    found = 0
    for copy in copies:
        kind, number = re.search(r"copy of (\d)-(\d\d)", copy).groups()  # type: ignore[union-attr]
        original = rows[f"kind {kind}/{number}.jpg"]
        found += rows[copy]["twins"] is not None and rows[copy]["twins"] == original["twins"]
    assert found == 9
    # Training photos are dropped, test photos stay.
    assert not set(copies) & set(done.table.frame.filter(pl.col("reason") == "leak")["id"])
    assert done.summary.drops["leaks"] >= 9
    assert done.table.reasons()["leak"] == done.summary.drops["leaks"]
    assert "copy of" in (tmp_path / "out" / "report.html").read_text()

    # Without parts the larger of near copies stays.
    done = check(planted, tmp_path / "out", CheckConfig(drop=("near-duplicates",), **REAL))
    gone = set(done.table.frame.filter(pl.col("reason") == "near-duplicate")["id"])
    halved = [at for at in range(9) if at % 3 == 1]
    assert {f"kind {(at + 1) % 4}/copy of {at % 4}-{at:02}.jpg" for at in halved} <= gone
    clusters = done.findings["twins"].drop_nulls()
    assert len(gone) == len(clusters) - clusters.n_unique()


def test_real_near_duplicates_are_found(shared: Path, tmp_path: Path) -> None:
    """Near-duplicates among photos of monkeys, verified by eye."""
    folder = shared / "data/wild74/train_val2019/Mammals/16"
    done = check(folder, tmp_path / "out", CheckConfig(**REAL))
    together = done.findings.drop_nulls("twins").sort("id").group_by("twins").agg("id")["id"]
    assert {" ".join(each[:4] for each in ids) for ids in together} == {
        *("25ce 564e", "3107 6538", "5af5 7c78 9b58", "823e d011", "8651 9d25"),
        *("985f e611", "9915 f6d5", "9a35 ef13", "cdec f32d"),
    }


class Thumbs:
    """A network whose features are 4 x 4 grey levels."""

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        side = crops.shape[1] // 4
        grey = crops.mean(3).reshape(len(crops), 4, side, 4, side).mean((2, 4))
        return grey.reshape(len(crops), 16).astype(np.float32)


def test_rotated_photos_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sky above, ground below; every tenth photo is rotated, training photos of the head included."""
    rng = np.random.default_rng(0)
    photos, crops, turned = [], [], []
    for number in range(160):
        shade = np.linspace(220, 60, 64)[:, None, None] + rng.normal(0, 40, (64, 64, 3))
        turned.append(number % 10 == 0)
        pixels = np.rot90(shade, rng.choice([1, 3])) if turned[-1] else shade
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        photos.append(PhotoFile(io.sha256(path.read_bytes()), path))
        crops.append(np.asarray(Image.open(path)))
    view = Preprocess(size=64, resize=64, fit="squash")
    extractor = SimpleNamespace(crop_for=lambda _: view, engine="torch")
    monkeypatch.setattr(runtime, "engine", lambda *_, **__: Thumbs())
    features = Features.of(Thumbs()(np.stack(crops)))
    found = rotation_log_odds(extractor, None, photos, features, 0)  # type: ignore[arg-type]
    flagged = found >= CheckConfig().rotated
    assert flagged[turned].mean() > 0.9
    assert flagged[~np.array(turned)].mean() < 0.02
    few = rotation_log_odds(extractor, None, photos[:50], features.take(np.arange(50)), 0)  # type: ignore[arg-type]
    assert not few.any()
