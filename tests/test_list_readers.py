"""Lists of photos as others write them: what they mean, and one sentence where they are not whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fieldmark.data.readers import READERS, read, scientific_names, tabular
from fieldmark.inference.inputs import find_photos
from fieldmark.utils.errors import InputError


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8)).save(path)


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read(path, verify=False).frame.iter_rows(named=True)}


# Tables


@pytest.mark.parametrize("end", ["", ",", '"', "\r"])
def test_a_table_that_was_cut_off_is_one_sentence(tmp_path: Path, end: str) -> None:
    path = tmp_path / "photos.csv"
    path.write_text(f'file_name,label,split\na.jpg,"x, or\ny",train\n{end}b.jp')
    with pytest.raises(InputError, match=r"ends within a row: the last one has [12] of 3"):
        read(path)


CELLS = st.text("ab\"\n,é '", max_size=6)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6), st.booleans())
def test_a_whole_table_is_never_taken_for_a_part(tmp_path_factory: Any, rows: Any, end: Any) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    frame = pl.DataFrame(rows, schema=["a", "b", "c"], orient="row")
    text = frame.write_csv(quote_style="always")
    path.write_text(text if end else text.removesuffix("\n"))
    tabular.check_complete(path)


def test_a_list_of_ones_own_says_whom_to_name(tmp_path: Path) -> None:
    path = tmp_path / "photos.csv"
    path.write_text("file_name,label,attribution,observer,license\na.jpg,x,(c) Ann,ann,CC0\n")
    (row,) = rows_of(path).values()
    assert (row["rights_holder"], row["licence"]) == ("(c) Ann", "CC0")


# Parquet and tars


def parquet(folder: Path) -> Path:
    photo(folder / "x.jpg")
    data = (folder / "x.jpg").read_bytes()
    (folder / "set").mkdir()
    for name in ("train-0.parquet", "train-1.PARQUET"):
        pl.DataFrame({"image": [data], "label": ["x"]}).write_parquet(folder / "set" / name)
    return folder / "set"


def test_a_damaged_shard_among_others_is_one_sentence(tmp_path: Path) -> None:
    folder = parquet(tmp_path)
    assert len(read(folder)) == 2
    path = folder / "train-1.PARQUET"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"train-1.PARQUET is not a complete Parquet file"):
        read(folder)
    with pytest.raises(InputError, match=r"train-1.PARQUET is not a complete Parquet file"):
        find_photos([folder])


def test_a_label_of_several_values_is_one_sentence(tmp_path: Path) -> None:
    frame = {"image": [b"no picture"], "label": [["x", "y"]]}
    pl.DataFrame(frame).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"the column 'label' holds List"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("turned", [False, True])
def test_a_cls_comes_before_a_json_before_a_txt(tmp_path: Path, write_tar: Any, turned: bool) -> None:
    photos = {f"{key}.jpg": b"no picture" for key in "abcd"}
    notes = {
        **{"a.cls": b"from cls", "a.json": b'{"label": "from json", "license": "CC0"}'},
        **{"a.txt": b"from txt", "b.txt": b"from txt", "b.json": b'{"label": "from json"}'},
        **{"c.txt": b"from txt", "c.caption.txt": b"a bird on a branch"},
        **{"d.label.cls": b"from label.cls", "d.bbox.json": b"[1, 2]", "d.txt": b"from txt"},
    }
    members = {**photos, **notes}
    ordered = sorted(members, key=lambda name: (name[0], name[1:] if turned else name[::-1]))
    found = read(write_tar(tmp_path / "t.tar", {name: members[name] for name in ordered}), verify=False)
    labels = dict(found.frame.select(pl.col("id").str.slice(6, 1), "taxon_id").iter_rows())
    assert labels == {**{"a": "from cls", "b": "from json", "c": "from txt", "d": "from label.cls"}}
    assert found.frame["licence"].drop_nulls().to_list() == ["CC0"]


def test_pictures_of_every_kind_are_rows_and_a_label_is_utf_8(tmp_path: Path, write_tar: Any) -> None:
    members = {"a.JFIF": b"x", "b.heic": b"x", "c.jpg": b"x", "d.bin": b"x"}
    found = read(write_tar(tmp_path / "t.tar", members))
    assert found.frame["id"].to_list() == ["t.tar/a.jfif", "t.tar/b.heic", "t.tar/c.jpg"]
    with pytest.raises(InputError, match=r"a.cls in it is not UTF-8 text"):
        read(write_tar(tmp_path / "t.tar", {"a.jpg": b"x", "a.cls": "Bär".encode("latin1")}))


# Camera traps


def package(root: Path, **more: Any) -> Path:
    """Two deployments whose photos are labelled by what is said of an hour."""
    root.mkdir(exist_ok=True)
    tables = ("deployments", "media", "observations")
    resources = [{"name": name, "path": f"{name}.csv"} | more.get(name, {}) for name in tables]
    (root / "datapackage.json").write_text(json.dumps({"resources": resources}))
    (root / "deployments.csv").write_text("deploymentID,locationID\nd1,p\nd2,q\n")
    (root / "media.csv").write_text(
        "mediaID,deploymentID,timestamp,filePath,fileMediatype\n"
        "a,d1,2024-05-01T10:00:00Z,a.jpg,image/jpeg\nb,d1,2024-05-01T10:05:00.5+00:00,b.jpg,\n"
        "c,d1,2024-05-01T14:00:00+0200,c.jpg,image/jpeg\nd,d2,2024-05-01T10:01:00Z,d.jpg,image/jpeg\n"
        "e,d1,,e.jpg,image/jpeg\nf,d1,2024-05-01T10:01:00Z,f.mp4,video/mp4\n"
    )
    (root / "observations.csv").write_text(
        "observationID,deploymentID,mediaID,eventStart,eventEnd,observationType,scientificName\n"
        "1,d1,,2024-05-01T10:00:00Z,2024-05-01T10:10:00Z,animal,Vulpes vulpes\n"
        "2,d1,,2024-05-01T12:00:00Z,2024-05-01T12:00:00Z,animal,Canis lupus\n"
        "3,d1,,2024-05-01T12:00:00Z,2024-05-01T12:00:00Z,human,\n"
    )
    return root


def test_an_event_has_the_photos_of_its_deployment_and_its_time(tmp_path: Path) -> None:
    """The standard has no event at a photo: the two are joined by deployment and time."""
    rows = rows_of(package(tmp_path / "p"))
    assert {name: row["taxon_id"] for name, row in rows.items() if "#" not in name} == {
        **{"a": "Vulpes vulpes", "b": "Vulpes vulpes", "c": None, "d": None, "e": None}
    }  # two species in the event of c; another deployment; no time; and a film is no photo
    assert rows["c"]["reason"] == "ambiguous-label"
    assert (rows["a"]["deployment"], rows["a"]["taken"]) == ("d1", "2024-05-01T10:00:00Z")


def test_a_table_may_be_of_several_files_in_its_own_dialect(tmp_path: Path) -> None:
    root = package(
        tmp_path / "p",
        media={"path": ["m1.csv", "m2.csv"], "dialect": {"delimiter": ";"}},
        observations={"encoding": "utf-8"},
    )
    head, *lines = (root / "media.csv").read_text().replace(",", ";").splitlines()
    (root / "m1.csv").write_text("\n".join([head, *lines[:2], ""]))
    (root / "m2.csv").write_text("\n".join([head, *lines[2:], ""]))
    (root / "media.csv").unlink()
    assert {name[0] for name in rows_of(root)} == set("abcde")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"media": {"path": []}}, "has no path of the table 'media'"),
        ({"media": {"path": ["../x.csv"]}}, "outside of its folder"),
        ({"media": {"encoding": "latin1"}}, "the table media is in latin1: only UTF-8"),
        ({"media": {"dialect": {"delimiter": "||"}}}, "the delimiter of media is '||'"),
    ],
)
def test_what_a_package_says_of_a_table_is_one_sentence(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said.replace("|", r"\|")):
        read(package(tmp_path / "p", **more))


def test_a_column_that_is_missing_is_one_of_its_table(tmp_path: Path) -> None:
    root = package(tmp_path / "p")
    (root / "media.csv").write_text("mediaID,filePath\na,a.jpg\n")
    with pytest.raises(InputError, match=r"media.csv has no column 'deploymentID'"):
        read(root)


def camera_list(path: Path) -> None:
    images = [{"id": "1", "file_name": "1.jpg", "seq_id": "s", "datetime": "2020-01-01 10:00:00"}]
    labels = [{"id": "1", "image_id": "1", "category_id": 1}]
    document = {"images": images, "annotations": labels, "categories": [{"id": 1, "name": "fox"}]}
    path.write_text(json.dumps(document))


def test_a_folder_with_a_list_is_not_taken_for_folders_of_classes(tmp_path: Path) -> None:
    photo(tmp_path / "1.jpg")
    photo(tmp_path / "old" / "2.jpg")
    camera_list(tmp_path / "CCT.JSON")
    (row,) = rows_of(tmp_path).values()
    assert (row["taxon_id"], row["taken"]) == ("1", "2020-01-01 10:00:00")
    camera_list(tmp_path / "more.json")
    with pytest.raises(InputError, match=r"holds several lists \(CCT.JSON, more.json\)"):
        read(tmp_path)


def test_a_folder_with_an_export_is_read_as_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "pictures" / "11.jpg")
    header = "id,quality_grade,image_url,scientific_name,taxon_species_name,taxon_hybrid_name"
    hybrid = "Anas platyrhynchos × rubripes"
    line = f"11,research,https://example.org/photos/7/medium.jpg,{hybrid},Anas platyrhynchos,{hybrid}"
    (tmp_path / "observations-1.csv").write_text(f"{header}\n{line}\n")
    (row,) = rows_of(tmp_path).values()
    assert row["taxon_id"] == hybrid  # and not the parent that it is filed under
    photo(tmp_path / "pictures" / "more.jpg")
    assert [item.id for item in find_photos([tmp_path])] == ["11"]
    assert "has a list of its photos: using these 1" in capsys.readouterr().err
    assert len(find_photos([tmp_path / "**" / "*"])) == 2
    (tmp_path / "observations-2.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(InputError, match="several exports"):
        read(tmp_path)


# Darwin Core


@pytest.mark.parametrize(
    ("name", "rank", "species", "label"),
    [
        ("Anas platyrhynchos × Anas rubripes", "hybrid", "Anas platyrhynchos", None),
        ("Anas platyrhynchos x rubripes", "", "", None),
        ("Quercus × rosacea Bechst.", "species", "", "Quercus × rosacea"),
        ("Parus major Linnaeus, 1758", "species", "Parus major", "Parus major"),
        ("Parus major major", "subspecies", "", "Parus major"),
    ],
)
def test_a_hybrid_is_called_after_both(name: str, rank: str, species: str, label: str | None) -> None:
    row = {**dict.fromkeys(scientific_names.TERMS), "scientificName": name}
    row |= {"taxonRank": rank or None, "species": species or None}
    frame = pl.DataFrame([row], schema=dict.fromkeys(scientific_names.TERMS, pl.String))
    assert frame.select(scientific_names.label())[:, 0].item() == (label or name)


def archive(root: Path, media: str) -> Path:
    root.mkdir(exist_ok=True)
    dwc, dc = "http://rs.tdwg.org/dwc/terms", "http://purl.org/dc/terms"
    fields = [f"{dc}/type", f"{dc}/format", f"{dc}/identifier"]
    media_fields = "".join(f'<field index="{n}" term="{t}"/>' for n, t in enumerate(fields, 1))
    (root / "meta.xml").write_text(
        f'<archive xmlns="http://rs.tdwg.org/dwc/text/"><core rowType="{dwc}/Occurrence" '
        'ignoreHeaderLines="1" fieldsTerminatedBy=","><files><location>o.csv</location></files>'
        f'<id index="0"/><field index="1" term="{dwc}/scientificName"/></core><extension '
        'rowType="http://rs.gbif.org/terms/1.0/Multimedia" ignoreHeaderLines="1" '
        'fieldsTerminatedBy=","><files><location>m.csv</location></files><coreid index="0"/>'
        f"{media_fields}</extension></archive>"
    )
    (root / "o.csv").write_text("id,scientificName\n1,Parus major\n")
    (root / "m.csv").write_text("id,type,format,identifier\n" + media)
    return root


def test_a_film_is_no_photo(tmp_path: Path) -> None:
    media = "1,MovingImage,,a.jpg\n1,StillImage,video/mp4,b.jpg\n1,StillImage,image/jpeg,c.jpg\n"
    assert list(rows_of(archive(tmp_path / "a", media + "1,,,d.jpg\n"))) == ["1_1", "1_2"]


def test_pictures_without_their_occurrences_are_half_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = archive(tmp_path / "a", "1,,,a.jpg\n2,,,b.jpg\n")
    assert rows_of(root)["2_1"]["reason"] == "no-label"
    assert "1 of 2 photos belong to no occurrence" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of its 2 photos belongs to an occurrence"):
        read(archive(tmp_path / "a", "7,,,a.jpg\n8,,,b.jpg\n"))
    with pytest.raises(InputError, match=r"m.csv ends within a row"):
        read(archive(tmp_path / "a", "1,,,a.jpg\n1,"))


def test_a_folder_with_an_archive_in_its_zip_is_read_as_it(tmp_path: Path) -> None:
    root = archive(tmp_path / "a", "1,,,pictures/c.jpg\n")
    photo(tmp_path / "b" / "pictures" / "c.jpg")
    with zipfile.ZipFile(tmp_path / "b" / "gbif.zip", "w") as packed:
        for path in root.iterdir():
            packed.write(path, path.name)
    table = read(tmp_path / "b")
    assert (table.source, table.kept.height) == ("darwin-core", 1)
    assert [key for key, each in READERS.items() if each.matches(tmp_path / "b")] == ["darwin-core"]
