"""What holds for every source in `READERS`: a new one has to have a sample here, and to pass."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image

from fieldmark.cli import app
from fieldmark.data.photos import SCHEMA, PhotoTable, by_location
from fieldmark.data.readers import READERS, read, without_empty
from fieldmark.data.storage.places import file_of, is_local
from fieldmark.inference.inputs import find_photos
from fieldmark.utils.errors import InputError


def photo(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (grey, 200, 90)).save(path)


def inat_sample(root: Path) -> Path:
    """Three photos of two taxa; the second file is broken, the fourth missing."""
    images = [
        {"id": number, "file_name": f"train_val2019/Birds/{number % 2}/{number}.jpg"} for number in range(4)
    ]
    for image in images[:3]:
        photo(root / image["file_name"], image["id"])
    (root / images[1]["file_name"]).write_bytes(b"no picture")
    document = {
        "images": images,
        "annotations": [{"id": n, "image_id": n, "category_id": n % 2} for n in range(len(images))],
        "categories": [{"id": n, "name": f"NAME{n}"} for n in range(2)],
    }
    (root / "train2019.json").write_text(json.dumps(document))
    return root


def folder_sample(root: Path) -> Path:
    photo(root / "Parus major" / "1.JPG", 1)
    photo(root / "Pica_pica" / "nested" / "2.jpg", 2)
    (root / "Pica_pica" / "3.jpg").write_bytes(b"no picture")
    (root / "Pica_pica" / "notes.txt").write_text("seen at dawn")
    return root


def table_sample(root: Path) -> Path:
    photo(root / "a b.jpg", 1)
    photo(root / "ü.jpg", 2)
    (root / "c.jpg").write_bytes(b"no picture")
    path = root / "labels.csv"
    path.write_text("file_name,label,split,group\na b.jpg,x,train,1\nü.jpg,y,val,\nc.jpg,x,,\nd.jpg,x,,\n")
    return path


def webdataset_sample(root: Path) -> Path:
    folder = root / "shards"
    folder.mkdir()
    photo(root / "1.jpg", 1)
    for number, names in enumerate((("a", "b"), ("c", "d"))):
        with tarfile.open(folder / f"train-{number}.tar", "w") as archive:
            for name in names:
                data = (root / "1.jpg").read_bytes() if name in "ad" else b"no picture"
                for suffix, content in (("jpg", data), ("cls", b"Parus major")):
                    about = tarfile.TarInfo(f"{name}.{suffix}")
                    about.size = len(content)
                    archive.addfile(about, io.BytesIO(content))
    return folder


def parquet_sample(root: Path) -> Path:
    folder = root / "set" / "data"
    folder.mkdir(parents=True)
    photo(root / "1.jpg", 1)
    cells = [(root / "1.jpg").read_bytes(), b"no picture"]
    for part in ("train", "test"):
        frame = {"image": [{"bytes": each, "path": None} for each in cells], "label": ["x", "y"]}
        pl.DataFrame(frame).write_parquet(folder / f"{part}-00000-of-00001.parquet")
    return folder.parent


def camtrap_sample(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    photo(root / "media" / "a.jpg", 1)
    photo(root / "media" / "b.jpg", 2)
    (root / "media" / "c.jpg").write_bytes(b"no picture")
    tables = ("deployments", "media", "observations")
    resources = [{"name": name, "path": f"{name}.csv"} for name in tables]
    taxa = [{"scientificName": "Vulpes vulpes", "family": "Canidae"}]
    licences = [{"name": "CC-BY-4.0", "scope": "media"}]
    about = {"resources": resources, "taxonomic": taxa, "licenses": licences}
    (root / "datapackage.json").write_text(json.dumps(about))
    (root / "deployments.csv").write_text("deploymentID,locationID\nd1,place\nd2,place\n")
    (root / "media.csv").write_text(
        "mediaID,deploymentID,filePath,eventID\n"
        "a,d1,media/a.jpg,\nb,d2,https://example.org/x/media/b.jpg,e\n"
        "c,d1,media/c.jpg,\nd,d1,../../secret.jpg,\n"
    )
    (root / "observations.csv").write_text(
        "observationID,deploymentID,mediaID,eventID,observationType,scientificName,classificationMethod\n"
        "1,d1,a,,animal,Vulpes vulpes,human\n2,d1,a,,animal,Canis lupus,machine\n"
        "3,d2,NA,e,blank,NA,human\n"
    )
    return root


def imagefolder_sample(root: Path) -> Path:
    for part, name in (("train", "1.jpg"), ("validation", "2.jpg")):
        photo(root / part / name, 1)
    (root / "train" / "metadata.jsonl").write_text(
        '{"file_name": "1.jpg", "label": "x", "license": "CC0"}\n'
        '{"file_name": "../../out.jpg", "label": "x"}\n'
    )
    (root / "validation" / "metadata.csv").write_text("file_name,label\n2.jpg,y\ngone.jpg,y\n")
    return root


META = """<archive xmlns="http://rs.tdwg.org/dwc/text/" metadata="metadata.xml">
  <core encoding="utf-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy=""
        ignoreHeaderLines="1" rowType="http://rs.tdwg.org/dwc/terms/Occurrence">
    <files><location>occurrence.txt</location></files>
    <id index="0"/>
    <field index="0" term="http://rs.gbif.org/terms/1.0/gbifID"/>
    <field index="1" term="http://rs.tdwg.org/dwc/terms/scientificName"/>
    <field index="2" term="http://rs.tdwg.org/dwc/terms/taxonRank"/>
    <field index="3" term="http://rs.tdwg.org/dwc/terms/family"/>
    <field index="4" term="http://rs.tdwg.org/dwc/terms/genus"/>
    <field index="5" term="http://rs.gbif.org/terms/1.0/species"/>
    <field index="6" term="http://rs.tdwg.org/dwc/terms/identificationQualifier"/>
    <field index="7" term="http://rs.tdwg.org/dwc/terms/recordedBy"/>
    <field default="Animalia" term="http://rs.tdwg.org/dwc/terms/kingdom"/>
  </core>
  <extension encoding="utf-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy=""
             ignoreHeaderLines="1" rowType="http://rs.gbif.org/terms/1.0/Multimedia">
    <files><location>multimedia.txt</location></files>
    <coreid index="0"/>
    <field index="1" term="http://purl.org/dc/terms/type"/>
    <field index="2" term="http://purl.org/dc/terms/identifier"/>
    <field index="3" term="http://purl.org/dc/terms/license"/>
    <field index="4" term="http://purl.org/dc/terms/rightsHolder"/>
  </extension>
</archive>
"""


def darwin_core_sample(root: Path) -> Path:
    """A GBIF download, unpacked: two pictures of one bird, one of a doubtful frog, one not here."""
    photo(root / "photos" / "17" / "original.jpg", 1)
    photo(root / "photos" / "18" / "original.jpg", 2)
    photo(root / "photos" / "19" / "original.jpg", 3)
    (root / "meta.xml").write_text(META)
    (root / "occurrence.txt").write_text(
        "gbifID\tscientificName\ttaxonRank\tfamily\tgenus\tspecies\tidentificationQualifier\trecordedBy\n"
        '1\tParus major subsp. "minor" L.\tSUBSPECIES\tParidae\tParus\tParus major\t\tAnn\n'
        "2\tRana L.\tGENUS\tRanidae\tRana\t\tcf.\tBo\n"
        "3\tPica pica (Linnaeus, 1758)\tSPECIES\tCorvidae\tPica\t\t\t\n"
        "9\tno picture\t\t\t\t\t\t\n"
    )
    there = "https://example.org/photos"
    (root / "multimedia.txt").write_text(
        "gbifID\ttype\tidentifier\tlicense\trightsHolder\n"
        f"1\tStillImage\t{there}/17/original.jpg\tCC0\tEve\n"
        f"1\tStillImage\t{there}/18/original.jpg\tCC0\t\n"
        f"1\tSound\t{there}/17/song.mp3\tCC0\t\n"
        f"2\tStillImage\t{there}/19/original.jpg\t\t\n"
        f"3\tStillImage\t{there}/20/original.jpg\t\t\n"
    )
    return root


def inat_export_sample(root: Path) -> Path:
    """An export whose pictures lie beside it; the last two were not fetched, and one has none."""
    photo(root / "pictures" / "11.jpg", 1)
    photo(root / "pictures" / "12.jpg", 2)
    (root / "pictures" / "13.jpg").write_bytes(b"no picture")
    rows = [
        (11, "casual", "CC0", "Parus major minor", "Asian tit", "Aves", "Parus", "Parus major"),
        (12, "research", "CC-BY", "Parus", "Tits", "Aves", "Parus", ""),
        (13, "research", "", "Pica pica", "Magpie", "Aves", "Pica", "Pica pica"),
        (14, "research", "", "Pica pica", "Magpie", "Aves", "Pica", "Pica pica"),
    ]
    lines = [
        f"{i},{grade},{licence},https://example.org/photos/{i}00/medium.jpg,ann,Ann,{name},"
        f"{common},{iconic},{genus},{species}"
        for i, grade, licence, name, common, iconic, genus, species in rows
    ]
    header = (
        "id,quality_grade,license,image_url,user_login,user_name,scientific_name,common_name,"
        "iconic_taxon_name,taxon_genus_name,taxon_species_name"
    )
    path = root / "observations-1.csv"
    path.write_text("\n".join([header, *lines, "15,casual,,,bo,,Pica pica,,Aves,Pica,", ""]))
    return path


def open_data_sample(root: Path) -> Path:
    """A mirror with a part of the pictures: three of four, of which one is broken."""
    tables = {
        "photos": [
            *(["photo_id", "observation_uuid", "observer_id", "extension", "license", "position"],),
            *(["1", "o1", "7", "jpg", "CC0", "0"], ["2", "o1", "7", "jpg", "CC0", "1"]),
            *(["3", "o2", "8", "jpeg", "CC-BY", "0"], ["4", "o2", "8", "jpg", "CC-BY", "0"]),
        ],
        "observations": [
            ["observation_uuid", "taxon_id", "quality_grade"],
            *(["o1", "5", "research"], ["o2", "3", "needs_id"]),
        ],
        "taxa": [
            ["taxon_id", "ancestry", "rank", "name", "active"],
            *(["1", "", "kingdom", "Animalia", "true"], ["3", "1", "genus", "Parus", "true"]),
            *(["4", "1/3", "species", "Parus major", "true"],),
            *(["5", "1/3/4", "subspecies", "Parus major minor", "true"],),
        ],
        "observers": [["observer_id", "login", "name"], ["7", "ann", "Ann A."], ["8", "bo", ""]],
    }
    for name, rows in tables.items():
        text = "".join("\t".join(row) + "\n" for row in rows)
        (root / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    for number, grey in (("1", 1), ("2", 2)):
        photo(root / "photos" / number / "medium.jpg", grey)
    (root / "photos" / "3").mkdir()
    (root / "photos" / "3" / "large.jpeg").write_bytes(b"no picture")
    return root


def cct_sample(root: Path) -> Path:
    """Two bursts at one place, of which one is empty; the list calls the third photo corrupt."""
    images = [
        {"id": f"i{n}", "file_name": f"images/{n}.jpg", "seq_id": f"s{n // 2}", "location": "26"}
        for n in range(4)
    ]
    images[2]["corrupt"] = True
    images[3]["location"] = ""
    labels = [
        {"id": f"a{n}", "image_id": f"i{n}", "category_id": n // 2, "bbox": [1, 2, 3, 4]} for n in range(4)
    ]
    categories = [{"id": 0, "name": "empty"}, {"id": 1, "name": "gray_wolf"}]
    photo(root / "images" / "0.jpg", 1)
    photo(root / "images" / "1.jpg", 2)
    (root / "images" / "3.jpg").write_bytes(b"no picture")
    path = root / "caltech.json"
    document = {"images": images, "annotations": labels, "categories": categories}
    path.write_text(json.dumps(document))
    return path


SAMPLES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "inat": (inat_sample, 4),
    "folder": (folder_sample, 4),
    "table": (table_sample, 4),
    "webdataset": (webdataset_sample, 4),
    "parquet": (parquet_sample, 4),
    "camtrap-dp": (camtrap_sample, 4),
    "imagefolder": (imagefolder_sample, 4),
    "darwin-core": (darwin_core_sample, 4),
    "inat-export": (inat_export_sample, 4),
    "inat-open-data": (open_data_sample, 3),
    "coco-camera-traps": (cct_sample, 4),
}
"""For each source a sample of two good photos, and how many rows are found in it."""


def test_every_source_has_a_sample() -> None:
    assert SAMPLES.keys() == READERS.keys()
    assert all(name == source.name for name, source in READERS.items())


@pytest.fixture(params=sorted(READERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sample(name: str, tmp_path: Path) -> Path:
    return SAMPLES[name][0](tmp_path)


def test_exactly_its_own_source_matches_a_layout(name: str, sample: Path) -> None:
    assert [key for key, source in READERS.items() if source.matches(sample)] == [name]


def test_no_source_matches_a_lone_photo(name: str, tmp_path: Path) -> None:
    photo(tmp_path / "lone.jpg")
    assert not READERS[name].matches(tmp_path / "lone.jpg")


def test_kept_and_rejected_are_what_was_found(name: str, sample: Path) -> None:
    table = read(sample)
    assert table.source == name
    assert len(table) == SAMPLES[name][1]
    assert table.kept.height + sum(table.reasons().values()) == len(table)
    assert table.kept.height == 2


def test_rows_are_sound(name: str, sample: Path) -> None:
    table = read(sample)
    frame = table.frame
    assert frame.schema == pl.Schema(SCHEMA)
    assert frame["id"].is_unique().all()
    assert frame["id"].null_count() == frame["path"].null_count() == 0
    kept = table.kept
    assert kept["reason"].null_count() == kept.height
    assert kept.select("width", "height").unique().rows() == [(12, 8)]
    assert (kept["sha256"].str.len_chars() == 64).all()
    assert set(kept["taxon_id"]) <= {taxon.id for taxon in table.taxonomy}
    assert frame.filter(pl.col("status") == "rejected")["reason"].null_count() == 0
    assert all(is_local(table.file_of(path)) for path in kept["path"])


def test_without_verifying_no_photo_is_opened(name: str, sample: Path) -> None:
    table = read(sample, verify=False)
    assert table.frame["sha256"].null_count() == len(table)


def test_a_table_comes_back_from_disk_as_it_was(name: str, sample: Path, tmp_path: Path) -> None:
    table = read(sample)
    table.write(tmp_path / "index.parquet")
    again = read(tmp_path / "index.parquet")
    assert isinstance(again, PhotoTable)
    assert again.frame.equals(table.frame)
    assert again.taxonomy == table.taxonomy
    assert again.source == name


def test_two_readings_are_the_same_whatever_the_number_of_workers(name: str, sample: Path) -> None:
    assert read(sample, workers=1).frame.equals(read(sample, workers=4).frame)


def test_predict_is_given_the_photos_that_index_finds(name: str, sample: Path) -> None:
    """What can be learned from can be named, however it is called."""
    table, items = read(sample), find_photos([sample])
    found = {file_of(item.path) or item.path: item for item in items}
    for path in table.kept["path"]:
        place = table.file_of(path)
        assert (file_of(place) or place) in found
    if sample.is_file():
        loud = sample.with_name(sample.name.upper())
        sample.rename(loud)
        assert [item.path.name for item in find_photos([loud])] == [item.path.name for item in items]


def test_a_camtrap_dp_says_labels_places_and_rights(tmp_path: Path) -> None:
    table = read(camtrap_sample(tmp_path))
    rows = {row["id"]: row for row in table.frame.iter_rows(named=True)}
    assert rows["a"]["taxon_id"] == "Vulpes vulpes"  # a person's word outweighs a machine's
    assert (rows["b"]["taxon_id"], rows["b"]["path"]) == ("blank", "media/b.jpg")
    assert rows["a"]["group"] == rows["b"]["group"] == "place"
    assert rows["a"]["licence"] == "CC-BY-4.0"
    assert table.taxonomy["Vulpes vulpes"].ranks["family"] == "Canidae"
    assert rows["d"]["reason"] == "missing"  # named by where a copy of it would lie


def test_what_only_a_machine_has_named_is_no_truth(tmp_path: Path) -> None:
    root = camtrap_sample(tmp_path)
    with (root / "media.csv").open("a") as media:
        media.write("e,d1,,\n")  # and one row names no file
    with (root / "observations.csv").open("a") as observations:
        observations.write("4,d1,c,,animal,Canis lupus,machine\n5,d1,e,,animal,Canis lupus,human\n")
    photo(root / "media" / "c.jpg", 3)
    rows = {row["id"]: row for row in read(root).frame.iter_rows(named=True)}
    assert (rows["c"]["reason"], rows["c"]["taxon_id"]) == ("machine-label", None)
    assert rows["e"]["reason"] == "missing"
    assert rows["a"]["reason"] is None


def test_a_person_s_word_on_a_sequence_outweighs_a_machine_s_on_its_photo(tmp_path: Path) -> None:
    root = camtrap_sample(tmp_path)
    with (root / "observations.csv").open("a") as observations:
        observations.write("4,d2,b,,animal,Canis lupus,machine\n")
    rows = {row["id"]: row for row in read(root).frame.iter_rows(named=True)}
    assert (rows["b"]["reason"], rows["b"]["taxon_id"]) == (None, "blank")
    assert rows.keys() == set("abcd")


def test_an_occurrence_that_only_a_machine_has_named_is_no_truth(tmp_path: Path) -> None:
    root = darwin_core_sample(tmp_path)
    marks = (
        '<field default="MachineObservation" term="http://rs.tdwg.org/dwc/terms/basisOfRecord"/>'
        '<field default="{}" '
        'term="http://rs.tdwg.org/dwc/terms/identificationVerificationStatus"/></core>'
    )
    by_people = marks.replace("MachineObservation", "HumanObservation")
    for basis, status, reason in (
        (marks, "Unverified", "machine-label"),
        (marks, "verified", None),
        (by_people, "unverified", None),
    ):
        (root / "meta.xml").write_text(META.replace("</core>", basis.format(status)))
        frame = read(root).frame
        assert frame.filter(id="1_1")["reason"].item() == reason
        assert frame.filter(id="2_1")["reason"].item() == "uncertain-label"


def test_a_list_of_the_same_name_does_not_hide_a_picture(tmp_path: Path) -> None:
    root = darwin_core_sample(tmp_path)
    for name in ("17.csv", "1_1.txt"):
        (root / "a" / name).parent.mkdir(exist_ok=True)
        (root / "a" / name).write_text("no picture")
    shutil.move(root / "photos" / "17" / "original.jpg", root / "photos" / "1_1.jpg")
    shutil.move(root / "photos" / "18" / "original.jpg", root / "photos" / "1_2.jpg")
    rows = {row["id"]: row for row in read(root).frame.iter_rows(named=True)}
    assert (rows["1_1"]["path"], rows["1_1"]["reason"]) == ("photos/1_1.jpg", None)


@pytest.mark.parametrize("name", ["1_1.html", "1_1.db", "1_1.JSON"])
def test_what_is_no_picture_by_its_name_does_not_hide_one(tmp_path: Path, name: str) -> None:
    root = darwin_core_sample(tmp_path)
    shutil.move(root / "photos" / "17" / "original.jpg", root / "photos" / "1_1.jpg")
    (root / "photos" / name).write_text("no picture")
    rows = {row["id"]: row for row in read(root).frame.iter_rows(named=True)}
    assert (rows["1_1"]["path"], rows["1_1"]["reason"]) == ("photos/1_1.jpg", None)


def test_of_several_copies_the_first_by_name_counts_on_every_file_system(tmp_path: Path) -> None:
    root = darwin_core_sample(tmp_path)
    (root / "photos" / "17" / "original.jpg").unlink()
    for number in reversed(range(20)):
        photo(root / "more" / f"{number:02}" / "1_1.jpg", number)
    assert read(root).frame.filter(id="1_1")["path"].item() == "more/00/1_1.jpg"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"file_name": "1.jpg", "label"\n', "metadata.jsonl"),
        ('{"label": "x"}\n', "file_name"),
        ("[1, 2]\n", "metadata.jsonl"),
    ],
)
def test_a_damaged_imagefolder_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    root = imagefolder_sample(tmp_path)
    (root / "train" / "metadata.jsonl").write_text(text)
    with pytest.raises(InputError, match=said):
        read(root)


@pytest.mark.parametrize("table", ["deployments", "media", "observations"])
def test_half_a_camtrap_dp_is_one_sentence(tmp_path: Path, table: str) -> None:
    root = camtrap_sample(tmp_path)
    (root / f"{table}.csv").write_text("wrong\n1\n")
    with pytest.raises(InputError, match="has no column"):
        read(root)
    (root / f"{table}.csv").unlink()
    with pytest.raises(InputError, match="could not be read"):
        read(root)


def test_an_imagefolder_says_parts_and_keeps_to_its_folder(tmp_path: Path) -> None:
    frame = read(imagefolder_sample(tmp_path)).frame
    assert dict(frame.select("path", "reason").iter_rows()) == {
        "train/1.jpg": None,
        "../../out.jpg": "outside",
        "validation/2.jpg": None,
        "validation/gone.jpg": "missing",
    }
    assert frame["split"].to_list() == ["train", "train", "val", "val"]
    assert frame["licence"][0] == "CC0"


def test_an_inat_export_says_species_and_rights(tmp_path: Path) -> None:
    table = read(inat_export_sample(tmp_path))
    rows = {row["id"]: row for row in table.frame.iter_rows(named=True)}
    assert rows["11"]["taxon_id"] == "Parus major"  # a subspecies counts as its species
    assert rows["12"]["taxon_id"] == "Parus"
    assert (rows["11"]["rights_holder"], rows["11"]["licence"]) == ("Ann", "CC0")
    assert rows["14"]["reason"] == "missing"
    assert table.taxonomy["Parus"].rank == "genus"
    assert table.taxonomy["Pica pica"].supercategory == "Aves"
    assert table.taxonomy["Pica pica"].common_name == "Magpie"
    assert table.taxonomy["Parus major"].common_name == ""  # the name is the subspecies' own


def test_an_inat_export_may_stay_in_its_zip(tmp_path: Path) -> None:
    path = inat_export_sample(tmp_path)
    there = read(path)
    zipped = tmp_path / "observations-1.csv.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(path, path.name)
    assert read(zipped).frame.equals(there.frame)
    assert [key for key, source in READERS.items() if source.matches(zipped)] == ["inat-export"]
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("second.csv", "x")
    with pytest.raises(InputError, match="it has no table, or several"):
        read(zipped, source="inat-export")


@pytest.mark.parametrize("left", [0.3, 0.9])
def test_an_inat_export_whose_zip_is_cut_off_is_one_sentence(tmp_path: Path, left: float) -> None:
    path = inat_export_sample(tmp_path)
    zipped = tmp_path / "observations-1.csv.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(path, path.name)
    data = zipped.read_bytes()
    zipped.write_bytes(data[: int(left * len(data))])
    with pytest.raises(InputError, match=r"observations-1\.csv\.zip could not be read .*not a zip"):
        read(zipped, source="inat-export")
    with pytest.raises(InputError, match=r"observations-1\.csv\.zip"):
        read(zipped)


def test_an_inat_export_whose_zip_is_damaged_within_is_one_sentence(tmp_path: Path) -> None:
    path = inat_export_sample(tmp_path)
    zipped = tmp_path / "observations-1.csv.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(path, path.name)
    zipped.write_bytes(zipped.read_bytes().replace(b"Magpie", b"Magpye", 1))
    with pytest.raises(InputError, match="is not a whole zip that can be used"):
        read(zipped, source="inat-export")


def test_half_an_inat_export_is_one_sentence(tmp_path: Path) -> None:
    path = inat_export_sample(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("scientific_name", "guess"))
    with pytest.raises(InputError, match="has no column 'scientific_name'"):
        read(path)
    path.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(InputError, match="none of its observations has an image_url"):
        read(path)


def test_an_open_data_mirror_keeps_the_photos_of_an_observation_together(tmp_path: Path) -> None:
    table = read(open_data_sample(tmp_path))
    rows = {row["id"]: row for row in table.frame.iter_rows(named=True)}
    assert rows["1"]["group"] == rows["2"]["group"] == "o1"
    assert rows["1"]["taxon_id"] == "Parus major"
    assert (rows["1"]["rights_holder"], rows["3"]["rights_holder"]) == ("Ann A.", "bo")
    assert (rows["3"]["path"], rows["3"]["reason"]) == ("photos/3/large.jpeg", "not-an-image")
    ranks = {"kingdom": "Animalia", "genus": "Parus", "species": "Parus major"}
    assert table.taxonomy["Parus major"].ranks == ranks


def test_half_an_open_data_mirror_is_one_sentence(tmp_path: Path) -> None:
    root = open_data_sample(tmp_path)
    path = root / "observations.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(InputError, match="truncated or damaged"):
        read(root)
    path.write_bytes(gzip.compress(b"observation_uuid\tquality_grade\n"))
    with pytest.raises(InputError, match="has no column 'taxon_id'"):
        read(root)
    path.write_bytes(gzip.compress(b"observation_uuid\ttaxon_id\tquality_grade\nx\t5\tcasual\n"))
    assert read(root).reasons() == {"no-label": 3}
    shutil.rmtree(root / "photos")
    path.write_bytes(whole)
    table = read(root)  # the tables alone: enough for counting
    assert (table.kept.height, table.kept["sha256"].null_count()) == (4, 4)
    path.unlink()
    with pytest.raises(InputError, match=r"no observations\.csv\.gz"):
        read(root, source="inat-open-data")


def test_camera_traps_keep_bursts_and_where_asked_places(tmp_path: Path) -> None:
    path = cct_sample(tmp_path)
    assert read(tmp_path, verify=False).source == "coco-camera-traps"
    table = read(path, verify=False)
    assert table.frame["group"].to_list() == ["s0", "s0", "s1", "s1"]
    assert table.frame["location"].to_list() == ["26", "26", "26", None]
    assert table.reasons() == {"corrupt": 1}
    assert by_location(table).frame["group"].to_list() == ["26", "26", "26", "s1"]
    with pytest.raises(InputError, match="no photo has a location"):
        by_location(read(folder_sample(tmp_path / "other"), verify=False))


def test_empty_photos_are_a_class_unless_they_are_not_wanted(tmp_path: Path) -> None:
    table = read(cct_sample(tmp_path))
    assert [taxon.name for taxon in table.taxonomy] == ["empty", "gray_wolf"]
    without = without_empty(table)
    assert [taxon.name for taxon in without.taxonomy] == ["gray_wolf"]
    assert without.reasons() == {"no-animal": 2, "corrupt": 1, "not-an-image": 1}
    assert set(without.frame["taxon_id"].drop_nulls()) <= {"1"}
    blank = without_empty(read(camtrap_sample(tmp_path / "dp")))
    assert blank.reasons()["no-animal"] == 1


def test_the_verb_indexes_camera_traps_as_asked(tmp_path: Path) -> None:
    out = tmp_path / "table.parquet"
    words = ["index", str(cct_sample(tmp_path)), "--out", str(out), "--by-location", "--no-empty"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "4 photos found = 0 kept + 4 rejected" in done.output
    assert PhotoTable.read(out).frame["group"].to_list() == ["26", "26", "26", "s1"]


def test_half_a_camera_trap_list_is_one_sentence(tmp_path: Path) -> None:
    path = cct_sample(tmp_path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="is not valid JSON"):
        read(path)
    path.write_text(text.replace("images/0.jpg", "../../secret.jpg"))
    assert read(path).reasons()["outside"] == 1
    path.write_text(text.replace('"category_id"', '"category"'))
    with pytest.raises(InputError, match=r"annotations\[0\] has no category_id"):
        read(path)
    (tmp_path / "second.json").write_text(text)
    path.write_text(text)
    with pytest.raises(InputError, match=r"holds several lists \(caltech.json, second.json\)"):
        read(tmp_path, source="coco-camera-traps")


def test_behind_a_url_it_is_read_as_here(name: str, sample: Path, tmp_path: Path) -> None:
    store = pytest.importorskip("fsspec", reason="needs the extra `remote`").filesystem("memory")
    top = f"/{tmp_path.name}-{name}"
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        store.pipe(f"{top}/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    here = read(sample)
    url = f"memory:/{top}/{sample.relative_to(tmp_path).as_posix()}"
    there = read(Path(url))
    assert there.source == here.source
    assert there.taxonomy == here.taxonomy
    assert there.frame.sort("id").equals(here.frame.sort("id"))
    assert not isinstance(there.root, Path)
    there.write(tmp_path / "index.parquet")
    store.pipe(f"{top}/index.parquet", (tmp_path / "index.parquet").read_bytes())
    again = read(Path(f"memory:/{top}/index.parquet"))
    assert again.frame.equals(there.frame)
    assert again.root == there.root
