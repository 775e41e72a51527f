"""What `predict --out` writes in the forms of Camtrap DP, Darwin Core and SpeciesNet."""

from __future__ import annotations

import csv
import json
import re
import shutil
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fieldmark.data import readers
from fieldmark.data.locations import with_exif
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.inference.checkpoint import to_file
from fieldmark.inference.formats import WRITERS, FormatOptions, camtrap, darwin_core, speciesnet, writer_of
from fieldmark.inference.inputs import InputPhoto, find_photos
from fieldmark.inference.predictor import PhotoResult
from fieldmark.inference.record import to_record
from fieldmark.utils.errors import ImageRejected, RejectReason

STANDARDS = Path(__file__).parent / "standards"
RANKS = {
    **{"kingdom": "Animalia", "class": "Aves", "order": "Passeriformes", "family": "Corvidae"},
    **{"genus": "Pica", "species": "Pica pica"},
}
TAXA = Taxonomy([Taxon("1", "Pica pica", "Magpie", "Birds", RANKS), Taxon("2", "empty")])
FORM = FormatOptions(TAXA, by="fieldmark 1 abc", when="2024-05-01T10:00:00Z")


def entry(file: str, **more: Any) -> dict[str, Any]:
    labels = [
        {"taxon_id": "1", "name": "Pica pica", "common_name": "Magpie", "rank": "species", "score": 0.9},
        {"taxon_id": "2", "name": "empty", "common_name": "", "rank": "species", "score": 0.1},
    ]
    value = {"file_name": file, "source": "species", "rank": "species", "name": "Pica pica"}
    value |= {"score": 0.9, "sure": True, "unknown": False, "ranks": RANKS, "labels": labels}
    return value | more


@pytest.fixture
def entries(tmp_path: Path) -> list[dict[str, Any]]:
    blank = entry(f"{tmp_path}/cam1/b.jpg")
    blank["labels"] = [dict(blank["labels"][1], score=0.8), dict(blank["labels"][0], score=0.2)]
    blank |= {"name": "empty", "score": 0.8, "ranks": {"species": "empty"}}
    family = {k: RANKS[k] for k in ("kingdom", "class", "order", "family")}
    rolled = {"source": "rolled up", "rank": "family", "name": "Corvidae", "score": 0.97}
    unsure = {"source": "not sure", "rank": "", "name": "", "score": 0.3, "sure": False, "ranks": {}}
    return [
        entry(f"{tmp_path}/cam1/a.jpg", taken="2020-03-01T22:00:00Z"),
        blank,
        entry("c.jpg", **rolled, sure=False, ranks=family),
        entry("d.jpg", **unsure),
        {"file_name": "e.jpg", "rejected": "truncated"},
    ]


def written(path: Path, entries: list[dict[str, Any]]) -> str:
    writer_of(path, wide=False).write(path, entries, FORM)
    return path.read_text()


def test_the_longest_suffix_names_the_form() -> None:
    assert writer_of(Path("a.csv"), wide=False) is WRITERS["csv"]
    assert writer_of(Path("a.dwc.csv"), wide=False) is WRITERS["darwin-core"]
    assert writer_of(Path("a.camtrap.csv"), wide=False) is WRITERS["camtrap-dp"]


def test_camtrap_dp(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    text = written(tmp_path / "o.camtrap.csv", entries)
    rows = list(csv.DictReader(text.splitlines()))
    kinds = [row["observationType"] for row in rows]
    assert kinds == ["animal", "blank", "animal", "unknown", "unclassified"]
    assert [row["scientificName"] for row in rows] == ["Pica pica", "", "Corvidae", "", ""]
    assert rows[0]["eventStart"] == rows[0]["eventEnd"] == "2020-03-01T22:00:00Z"
    assert rows[0]["deploymentID"] == "cam1"
    for row in rows:  # what the table's schema requires, and its closed sets
        assert row["observationID"]
        assert row["deploymentID"]
        assert row["observationLevel"] == "media"
        assert row["classificationMethod"] in ("machine", "")
        assert 0 <= float(row["classificationProbability"] or 0) <= 1
    assert len({row["observationID"] for row in rows}) == 5
    assert rows[0]["classifiedBy"] == FORM.by
    assert rows[0]["classificationTimestamp"] == FORM.when
    assert not rows[4]["classificationMethod"]  # nothing was classified


def test_what_a_camera_writes_into_a_photo_is_in_the_index_and_in_every_format_that_has_a_field(
    classifier: Any, insects: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2020:03:01 22:00:00"
    exif[0x010F], exif[0x0110] = "RECONYX", "UltraFire | XR6"
    note = b"RECONYXUF\0".ljust(0x44, b"\1") + struct.pack("<2h", 23, -5) + b"\0\0\0H500 12".ljust(99, b"\0")
    exif.get_ifd(0x8769)[0x927C] = note
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, insect in enumerate(sorted(insects.rglob("0?.jpg"))[:2]):
        Image.open(insect).save(photos / f"{number}.jpg", **({"exif": exif} if number else {}))
    table = with_exif(readers.read(photos, source="folder", verify=False))
    table.write(tmp_path / "photos.parquet")
    assert table.frame["temperature"].to_list() == [None, -5.0]
    assert table.frame["camera_model"].to_list() == [None, "RECONYX UltraFire | XR6"]
    assert table.frame["camera_serial"].to_list() == [None, "H500 12"]

    def written_for(given: Path, name: str) -> str:
        to_file(tmp_path / name, classifier, find_photos([given]), overwrite=True)
        return (tmp_path / name).read_text("utf-8-sig")

    rows = {
        name: list(csv.DictReader(written_for(photos, name).splitlines()))
        for name in ("o.csv", "o.dwc.csv", "o.camtrap.csv")
    }
    assert [row["temperature"] for row in rows["o.csv"]] == ["", "-5"]
    assert [row["camera_serial"] for row in rows["o.csv"]] == ["", "H500 12"]
    assert [row["camera_model"] for row in rows["o.csv"]] == ["", "RECONYX UltraFire | XR6"]
    assert not rows["o.dwc.csv"][0]["dynamicProperties"]
    assert json.loads(rows["o.dwc.csv"][1]["dynamicProperties"]) == {
        **{"temperatureInCelsius": -5, "cameraModel": "RECONYX UltraFire | XR6", "cameraSerial": "H500 12"}
    }
    assert rows["o.dwc.csv"][1]["eventDate"] == "2020-03-01T22:00:00Z"
    tags = "temperature:-5 | camera:RECONYX UltraFire / XR6 | serial:H500 12"
    assert [row["observationTags"] for row in rows["o.camtrap.csv"]] == ["", tags]
    for given in (photos, tmp_path / "photos.parquet"):
        lines = written_for(given, "o.jsonl").splitlines()
        assert [json.loads(line).get("temperature") for line in lines] == [None, -5]
        assert [json.loads(line).get("camera_serial") for line in lines] == [None, "H500 12"]
    written_for(photos, "photos/datapackage.json")
    assert '""AmbientTemperature"": -5' in (photos / "media.csv").read_text()
    back = readers.read(photos / "datapackage.json").frame
    assert back["temperature"].to_list() == [None, -5.0]
    assert back["camera_model"].to_list() == [None, "RECONYX UltraFire | XR6"]
    assert back["camera_serial"].to_list() == [None, "H500 12"]


def test_a_photo_s_time_is_that_of_its_list_or_of_its_exif_data(tmp_path: Path) -> None:
    """Wherever it lies, also within a tar; a list's word comes first, if it says more than a day."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2020:03:01 22:00:00"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tmp_path / "a.jpg", "a.jpg")
    (inside,) = find_photos([tmp_path / "t.tar"])
    rejected = ImageRejected(RejectReason.TRUNCATED, "half")

    def told(item: InputPhoto, *, timed: bool = True) -> Any:
        return to_record(PhotoResult(item, None, rejected), 2, timed=timed).get("taken")

    plain = InputPhoto("a.jpg", tmp_path / "a.jpg")
    assert told(plain) == told(inside) == "2020-03-01T22:00:00Z"
    assert told(plain, timed=False) is None
    assert told(replace(plain, taken="2021-01-01T00:00:00Z")) == "2021-01-01T00:00:00Z"
    assert told(replace(plain, taken="2021-01-01")) == "2020-03-01T22:00:00Z"
    assert told(InputPhoto("gone.jpg", tmp_path / "gone.jpg", taken="2021-01-01")) == "2021-01-01"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("2020-03-01 22:00:00", "2020-03-01T22:00:00Z"),
        ("2020-03-01T22:00:00.123+0200", "2020-03-01T22:00:00+0200"),
        ("2020-03-01", ""),
    ],
)
def test_times_are_written_with_their_zone(said: str, written: str) -> None:
    assert camtrap.timestamp(said) == written


def test_camtrap_dp_comes_back_with_its_own_media_and_deployments(
    classifier: Any, insects: Path, tmp_path: Path
) -> None:
    """What is named of a package can be joined to its tables."""
    root, names = tmp_path / "package", sorted(insects.rglob("0?.jpg"))[:3]
    root.mkdir()
    tables = ("deployments", "media", "observations")
    resources = [{"name": name, "path": f"{name}.csv"} for name in tables]
    (root / "datapackage.json").write_text(json.dumps({"resources": resources}))
    media = "mediaID,deploymentID,timestamp,filePath\n"
    for number, name in enumerate(names):
        shutil.copy(name, root / f"{number}.jpg")
        media += f"m{number},d{number},2024-05-0{number + 1}T10:00:00+02:00,{number}.jpg\n"
    (root / "media.csv").write_text(media)
    (root / "deployments.csv").write_text("deploymentID,locationID\nd0,p\nd1,p\nd2,q\n")
    (root / "observations.csv").write_text("observationID,deploymentID,observationType\n")
    for given in (root, root / "datapackage.json"):
        out = tmp_path / f"{given.name}.camtrap.csv"
        to_file(out, classifier, find_photos([given]))
        rows = list(csv.DictReader(out.read_text().splitlines()))
        assert [row["mediaID"] for row in rows] == ["m0", "m1", "m2"]
        assert [row["deploymentID"] for row in rows] == ["d0", "d1", "d2"]
        assert rows[1]["eventStart"] == rows[1]["eventEnd"] == "2024-05-02T10:00:00+02:00"
        assert all(row["classificationMethod"] == "machine" for row in rows)


def test_camtrap_dp_is_valid_by_the_published_schema(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    frictionless = pytest.importorskip("frictionless")
    published = json.loads((STANDARDS / "camtrap-dp-1.0.2-observations.json").read_text())
    text = written(tmp_path / "o.camtrap.csv", entries[:1])

    def errors(text: str) -> list[str]:
        (tmp_path / "table.csv").write_text(text, newline="")
        schema = frictionless.Schema.from_descriptor({"fields": published["fields"]})
        resource = frictionless.Resource(
            path="table.csv", basepath=str(tmp_path), schema=schema, encoding="utf-8"
        )
        return [error.type for task in resource.validate().tasks for error in task.errors]

    assert text.splitlines()[0].split(",") == [each["name"] for each in published["fields"]]
    assert errors(text) == []
    # The check can fail: without a photo's time, which the standard requires; with a stray value.
    assert errors(text.replace("2020-03-01T22:00:00Z", "")) == ["constraint-error"] * 2
    assert errors(text.replace(",animal,", ",beast,")) == ["constraint-error"]
    assert errors(text.replace("22:00:00Z", "22:00")) == ["type-error"] * 2


def test_the_terms_are_those_of_the_standards() -> None:
    """SpeciesNet's labels are as of its version 4.0.1 (google/cameratrapai, constants.py)."""
    terms = (STANDARDS / "darwin-core-terms.txt").read_text().splitlines()[1:]
    assert set(darwin_core.TERMS) <= set(terms)
    assert {name: label.partition(";")[0] for name, label in speciesnet._FIXED.items()} == {
        "blank": "f1856211-cfb7-4a5b-9158-c0f72fd09ee6",
        "vehicle": "e2895ed5-780b-48f6-8a11-9e27cb594511",
        "human": "990ae9dd-7a59-4344-afcb-1b7b21368000",
        "unknown": "f2efdae9-efb8-48fb-8a91-eccf79ab4ffb",
    }


def test_darwin_core(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    rows = list(csv.DictReader(written(tmp_path / "o.dwc.csv", entries).splitlines()))
    first, _, family, unsure, broken = rows
    assert (first["scientificName"], first["taxonRank"]) == ("Pica pica", "species")
    assert (first["genus"], first["specificEpithet"]) == ("Pica", "pica")
    assert first["vernacularName"] == "Magpie"
    assert first["identificationVerificationStatus"] == "unverified"
    assert first["basisOfRecord"] == "MachineObservation"
    assert (family["scientificName"], family["taxonRank"], family["genus"]) == (*("Corvidae", "family"), "")
    assert unsure["scientificName"] == ""
    assert "not sure" in unsure["identificationRemarks"]
    assert "truncated" in broken["identificationRemarks"]
    assert broken["identifiedBy"] == ""


def test_speciesnet(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    found = json.loads(written(tmp_path / "o.speciesnet.json", entries))["predictions"]
    assert [Path(one["filepath"]).name for one in found] == [f"{c}.jpg" for c in "abcde"]
    seven = re.compile(r"[0-9a-f-]{36}(;[^;]*){6}")
    for one in found[:4]:
        assert seven.fullmatch(one["prediction"])
        assert all(seven.fullmatch(each) for each in one["classifications"]["classes"])
        assert 0 <= one["prediction_score"] <= 1
    assert found[0]["prediction"].split(";")[1:] == [
        *("aves", "passeriformes", "corvidae", "pica", "pica", "magpie")
    ]
    assert found[0]["prediction"] == found[0]["classifications"]["classes"][0]
    assert found[1]["prediction"].endswith(";;;;;;blank")
    assert found[2]["prediction"].split(";")[1:] == [
        *("aves", "passeriformes", "corvidae", "", "", "corvidae")
    ]
    assert found[2]["prediction_source"] == "classifier+rollup_to_family"
    assert found[3]["prediction_source"] == "classifier"
    assert found[4]["failures"] == ["CLASSIFIER"]


@pytest.mark.parametrize("suffix", ["camtrap.csv", "dwc.csv", "speciesnet.json"])
def test_nothing_is_a_table_of_nothing(tmp_path: Path, suffix: str) -> None:
    text = written(tmp_path / f"o.{suffix}", [])
    if suffix.endswith("json"):
        assert json.loads(text) == {"predictions": []}
    else:
        assert list(csv.DictReader(text.splitlines())) == []
