"""Shards: WebDataset and Parquet are read where they lie, and many processes share an extraction."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fieldmark.cli import app
from fieldmark.data import readers
from fieldmark.data.photos import PhotoFile
from fieldmark.data.storage import places
from fieldmark.features import cache as features
from fieldmark.features import sharded
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.features.sharded import Shard, extract_shard
from fieldmark.models import Backbone, load
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, RejectReason, StoreError

NETWORK = "shufflenet_v2_x0_5"


@pytest.fixture
def tars(insects: Path, tmp_path: Path, write_tar: Any) -> Path:
    """The insects in three tars, eight photos a class; one of them is broken."""
    folder = tmp_path / "tars"
    folder.mkdir()
    photos = [path for path in sorted(insects.rglob("*.jpg")) if path.stem < "08"]
    photos.append(insects / "Apis mellifera" / "broken.jpg")
    for number in range(3):
        members = {}
        for at, path in enumerate(photos[number::3]):
            members[f"{at:03}.jpg"] = path.read_bytes()
            members[f"{at:03}.cls"] = path.parent.name.encode()
            members[f"{at:03}.json"] = json.dumps({"observation_id": at // 2}).encode()
        write_tar(folder / f"train-{number}.tar", members)
    return folder


@pytest.fixture(scope="module")
def network() -> Backbone:
    return load(NETWORK, weights="random")


def extractor(folder: Path) -> FeatureExtractor:
    return FeatureExtractor(store=FeatureStore(folder), engine="torch")


def vectors(at: FeatureExtractor, network: Backbone, digests: list[str]) -> np.ndarray[Any, Any]:
    return at.cache(network).get(digests)[slice(None)]


class TestWebDataset:
    def test_photos_labels_and_groups(self, tars: Path, insects: Path) -> None:
        table = readers.read(tars)
        assert (len(table), table.kept.height) == (33, 32)
        assert table.reasons() == {RejectReason.TRUNCATED: 1}
        assert set(table.frame["split"]) == {"train"}
        assert table.frame["group"].null_count() == 0
        assert {taxon.rank for taxon in table.taxonomy} == {"species"}
        one = table.kept.row(0, named=True)
        data = places.read(table.file_of(one["path"]))
        assert io.sha256(data) == one["sha256"]
        assert data in {p.read_bytes() for p in (insects / one["taxon_id"]).iterdir()}

    def test_numbers_are_named_by_classnames(self, tmp_path: Path, write_tar: Any) -> None:
        write_tar(tmp_path / "s.tar", {"a.jpg": b"x", "a.cls": b"1"})
        (tmp_path / "classnames.txt").write_text("Parus major\nPica pica\n")
        assert readers.read(tmp_path / "s.tar", verify=False).frame["taxon_id"][0] == "Pica pica"

    def test_json_says_rights_and_ranks(self, tmp_path: Path, write_tar: Any) -> None:
        about = {"species": "Pica pica", "license": "CC-BY", "attribution": "(c) A", "family": "Corvidae"}
        write_tar(tmp_path / "s.tar", {"d/a.b.jpg": b"x", "d/a.json": json.dumps(about).encode()})
        table = readers.read(tmp_path / "s.tar", verify=False)
        row = table.frame.row(0, named=True)
        assert (row["id"], row["licence"], row["rights_holder"]) == ("s.tar/d/a.b.jpg", "CC-BY", "(c) A")
        assert table.taxonomy["Pica pica"].ranks["family"] == "Corvidae"

    def test_links_and_names_that_lead_out(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "s.tar", "w") as archive:
            link = tarfile.TarInfo("a.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
            up = tarfile.TarInfo("../../b.jpg")
            up.size = 3
            archive.addfile(up, BytesIO(b"xyz"))
        table = readers.read(tmp_path / "s.tar")
        reasons = dict(table.frame.select("id", "reason").iter_rows())
        assert reasons["s.tar/a.jpg"] == RejectReason.OUTSIDE
        assert reasons["s.tar/../../b.jpg"] == RejectReason.NOT_AN_IMAGE  # read in the tar, not there
        assert [path.name for path in tmp_path.iterdir()] == ["s.tar"]

    @pytest.mark.parametrize("keep", [700, 1600, 2048, 10_240])
    def test_half_a_tar_is_one_sentence(self, tmp_path: Path, keep: int, write_tar: Any) -> None:
        whole = write_tar(tmp_path / "s.tar", {f"{n}.jpg": b"x" * 900 for n in range(20)})
        whole.write_bytes(whole.read_bytes()[:keep])
        with pytest.raises(InputError, match=r"s\.tar is not a complete tar"):
            readers.read(whole)

    def test_a_label_too_large_and_a_compressed_tar(self, tmp_path: Path, write_tar: Any) -> None:
        write_tar(tmp_path / "s.tar", {"a.jpg": b"x", "a.cls": b"y" * 2**21})
        with pytest.raises(InputError, match="too many for a label"):
            readers.read(tmp_path / "s.tar")
        (tmp_path / "s.tar").write_bytes(b"\x1f\x8b" + b"z" * 5000)
        with pytest.raises(InputError, match="decompress a compressed one"):
            readers.read(tmp_path / "s.tar")


class TestParquet:
    def test_numbers_get_the_names_in_the_metadata(self, insects: Path, tmp_path: Path) -> None:
        photo = (insects / "Apis mellifera" / "00.jpg").read_bytes()
        frame = pl.DataFrame({"jpg": [photo, photo + b" "], "label": [1, -1], "license": ["CC0", None]})
        about = {"info": {"features": {"label": {"names": ["Pica pica", "Parus major"]}}}}
        path = tmp_path / "validation-00000-of-00001.parquet"
        frame.write_parquet(path, metadata={"huggingface": json.dumps(about)})
        table = readers.read(path)
        assert table.frame["taxon_id"].to_list() == ["Parus major", None]
        assert table.frame["split"].to_list() == ["val", "val"]
        assert table.frame["licence"].to_list() == ["CC0", None]
        assert table.kept.height == 2

    def test_half_a_file_is_one_sentence(self, tmp_path: Path) -> None:
        pl.DataFrame({"image": [b"x" * 5000] * 9}).write_parquet(tmp_path / "a.parquet")
        (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-200])
        with pytest.raises(InputError, match=r"a\.parquet could not be read .*must end with"):
            readers.read(tmp_path / "a.parquet")


class TestShard:
    @pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/2/3", ""])
    def test_no_shard_is_one_sentence(self, text: str) -> None:
        with pytest.raises(InputError, match="is not a shard"):
            Shard.parse(text)

    @pytest.mark.parametrize("of", [1, 2, 7, 100])
    def test_shards_are_all_photos_once(self, tars: Path, of: int) -> None:
        table = readers.read(tars, verify=False)
        parts = [Shard(number + 1, of).share(table).frame for number in range(of)]
        assert pl.concat(parts).equals(table.frame)

    def test_shards_give_what_one_process_gives(self, tars: Path, network: Backbone, tmp_path: Path) -> None:
        table = readers.read(tars)
        digests = table.kept["sha256"].to_list()
        photos = [
            PhotoFile(digest, table.file_of(path))
            for path, digest in table.kept.select("path", "sha256").iter_rows()
        ]
        alone = extractor(tmp_path / "alone")
        assert alone.compute(photos, {NETWORK: network}).computed == {NETWORK: 32}
        shared = extractor(tmp_path / "shared")
        listed = readers.read(tars, verify=False)
        reports = [
            extract_shard(each.share(listed), {NETWORK: network}, extractor(tmp_path / "shared"), each)
            for each in (Shard(1, 3), Shard(2, 3), Shard(3, 3))
        ]
        assert sum(report.photos for report in reports) == 32
        assert [e.reason for r in reports for e in r.rejected.values()] == [RejectReason.TRUNCATED]
        np.testing.assert_array_equal(vectors(alone, network, digests), vectors(shared, network, digests))
        again = extract_shard(table, {NETWORK: network}, shared, Shard(1, 1))
        assert (again.photos, again.computed) == (32, 0)

    def test_every_byte_is_read_once_and_few_are_held(
        self, tars: Path, network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, asked, held = places.read, Counter[str](), [0, 0]

        def counting(place: places.Place, limit: int = places.MAX_BYTES) -> bytes:
            if not isinstance(place, places.InMemoryImage):
                asked[str(place)] += 1
                held[0] += 1
                held[1] = max(held)
            return whole(place, limit)

        monkeypatch.setattr(places, "read", counting)
        monkeypatch.setattr(sharded, "CHUNK", 4)
        computed = sharded._compute

        def counted(chunk: Any, *rest: Any) -> None:
            computed(chunk, *rest)
            held[0] -= len(chunk)

        monkeypatch.setattr(sharded, "_compute", counted)
        extract_shard(readers.read(tars, verify=False), {NETWORK: network}, extractor(tmp_path / "a"))
        assert len(asked) == 33
        assert set(asked.values()) == {1}
        assert held[1] <= 2 * 4

    def test_a_shard_that_was_killed_goes_on(
        self, tars: Path, network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharded, "CHUNK", 8)
        computed, left = sharded._compute, [2]

        def dying(*everything: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            computed(*everything)

        monkeypatch.setattr(sharded, "_compute", dying)
        table = readers.read(tars, verify=False)
        with pytest.raises(KeyboardInterrupt):
            extract_shard(table, {NETWORK: network}, extractor(tmp_path / "a"), Shard(1, 1))
        left[0] = 100
        report = extract_shard(table, {NETWORK: network}, extractor(tmp_path / "a"), Shard(1, 1))
        assert report.photos == 32
        assert 0 < report.computed <= 32 - 14

    def test_the_same_shard_twice_at_a_time_is_refused(
        self, tars: Path, network: Backbone, tmp_path: Path
    ) -> None:
        at = extractor(tmp_path / "a")
        segment = at.cache(network).segment(Shard(1, 2).name)
        with segment.writing(), pytest.raises(StoreError, match="in use"):
            extract_shard(readers.read(tars, verify=False), {NETWORK: network}, at, Shard(1, 2))


class TestSegments:
    def cache(self, folder: Path) -> features.FeatureCache:
        return FeatureStore(folder).cache("network", "crop", 3)

    def put(self, feature_cache: features.FeatureCache, numbers: range) -> None:
        with feature_cache.writing() as writer:
            rows = np.array([[n, n, n] for n in numbers], np.float32)
            writer.append([f"{n:064x}" for n in numbers], rows)

    def test_rows_are_taken_once_and_segments_emptied(self, tmp_path: Path) -> None:
        feature_cache = self.cache(tmp_path)
        self.put(feature_cache, range(5))
        self.put(feature_cache.segment("a"), range(3, 9))
        self.put(feature_cache.segment("b"), range(8, 12))
        again = self.cache(tmp_path)  # whoever opens the shelf takes what is done
        assert len(again) == 12
        found = again.get([f"{n:064x}" for n in range(12)])[slice(None)]
        np.testing.assert_array_equal(found[:, 0], np.arange(12))
        assert not len(feature_cache.segment("a"))

    def test_a_segment_that_is_written_to_stays(self, tmp_path: Path) -> None:
        feature_cache = self.cache(tmp_path)
        segment = feature_cache.segment("a")
        self.put(segment, range(3))
        with segment.writing():
            assert len(self.cache(tmp_path)) == 0
        assert len(self.cache(tmp_path)) == 3

    def test_a_shelf_that_is_written_to_leaves_segments_for_later(self, tmp_path: Path) -> None:
        feature_cache = self.cache(tmp_path)
        self.put(feature_cache.segment("a"), range(3))
        with feature_cache.writing():
            assert len(self.cache(tmp_path)) == 0
        assert len(self.cache(tmp_path)) == 3


def test_the_verb(tars: Path, cache: Path) -> None:
    from click.testing import CliRunner

    run = CliRunner().invoke(
        app,
        [
            *("extract", str(tars), "--backbone", NETWORK, "--weights", "random"),
            *("--engine", "torch", "--shard", "2/3"),
        ],
    )
    assert run.exit_code == 0, run.output
    assert "Shard 2/3: 11 photos with cached features (11 computed now)" in run.output
    assert (cache / "features").is_dir()


def test_a_shard_without_a_photo_that_can_be_used_is_no_success(tmp_path: Path) -> None:
    from click.testing import CliRunner

    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "a.jpg").write_bytes(b"no picture")
    run = CliRunner().invoke(
        app,
        [*("extract", str(tmp_path), "--backbone", NETWORK, "--weights", "random"), *("--engine", "torch")],
    )
    assert isinstance(run.exception, InputError)
    assert "none of 1 photos can be used" in str(run.exception)
