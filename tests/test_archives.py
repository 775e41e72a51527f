"""Darwin Core Archives: read as an independent library reads them, and refused where they are half."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fieldmark.data.darwin_core import Table
from fieldmark.data.readers import read
from fieldmark.data.readers.darwin_core import scan
from fieldmark.data.readers.offline_media import find_copies
from fieldmark.utils.errors import InputError

DWC = "http://rs.tdwg.org/dwc/terms"


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (10, 200, 90)).save(path, format="JPEG")


def archive(root: Path, *, media: str = "http://purl.org/dc/terms/identifier") -> Path:
    """Quoted cells with line breaks in them, as IPT writes archives."""
    fields = ("scientificName", "taxonRank", "genus", "specificEpithet", "class", "order")
    terms = "".join(f'<field index="{n}" term="{DWC}/{t}"/>' for n, t in enumerate(fields, 1))
    how = """encoding="UTF-8" fieldsTerminatedBy="," fieldsEnclosedBy='&quot;' ignoreHeaderLines="1" """
    (root / "meta.xml").write_text(
        f"""<?xml version="1.0"?><archive xmlns="http://rs.tdwg.org/dwc/text/">
        <core {how} linesTerminatedBy="\\n" rowType="{DWC}/Occurrence">
          <files><location>occurrence.csv</location></files><id index="0"/>{terms}</core>
        <extension {how} rowType="http://rs.tdwg.org/ac/terms/Multimedia">
          <files><location>media.csv</location></files><coreid index="0"/>
          <field index="1" term="{media}"/><field index="2" term="http://purl.org/dc/terms/format"/>
        </extension></archive>"""
    )
    (root / "occurrence.csv").write_text(
        "id,scientificName,taxonRank,genus,specificEpithet,class,order\n"
        'a,"Parus\nmajor",species,Parus,major,Aves,"Passeriformes, perching birds"\n'
        "b,Parus L.,genus,Parus,,Aves,\nc,Aves,class,,,Aves,\nd,Rosa × alba,,,,,\n"
    )
    (root / "media.csv").write_text(
        "id,identifier,format\n"
        "a,https://example.org/a/1.jpg,image/jpeg\na,https://example.org/a/2.jpg,\n"
        "b,https://example.org/b/1.jpg,image/jpeg\nb,https://example.org/b/1.mp3,audio/mpeg\n"
        "c,https://example.org/c/1.jpg,image/jpeg\nd,https://example.org/d/1.jpg,image/jpeg\n"
    )
    return root


def test_it_is_read_as_by_the_reference_library(tmp_path: Path) -> None:
    reference = pytest.importorskip("dwca.read")
    seen = {}
    with reference.DwCAReader(str(archive(tmp_path))) as theirs:
        for row in theirs:
            for media in row.extensions:
                seen[media.data["http://purl.org/dc/terms/identifier"]] = row.data
    table = read(tmp_path, verify=False)
    ours = {f"https://example.org/{row['path']}": row for row in table.frame.to_dicts()}
    assert ours.keys() == {url for url in seen if not url.endswith("mp3")}
    for url, row in ours.items():
        said = seen[url]
        taxon = table.taxonomy[row["taxon_id"]]
        for rank in ("class", "order", "genus"):
            assert taxon.ranks.get(rank, "") == said[f"{DWC}/{rank}"]
    assert [row["taxon_id"] for row in table.frame.to_dicts()] == [
        *("Parus major", "Parus major", "Parus", "Aves", "Rosa × alba")
    ]
    assert table.frame["group"].to_list() == ["a", "a", "b", "c", "d"]
    assert table.taxonomy["Parus"].rank == "genus"


CELLS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8).map(str.strip)


@settings(max_examples=30)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from([",", "\t", ";"]))
def test_cells_come_back_whatever_is_in_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], separator: str
) -> None:
    root = tmp_path_factory.mktemp("archive")
    with (root / "t.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b\nc"), *rows])
    table = Table("x", ("t.csv",), separator, '"', "\n", 1, {"one": 0, "two": 1}, {"two": "none"})
    found = scan(table, ("one", "two", "three"), root).collect()
    assert found.rows() == [(one or None, two or "none", None) for one, two in rows]


def test_a_zip_is_read_in_place_with_the_copies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive(tmp_path / "in", media="http://rs.tdwg.org/ac/terms/accessURI")
    photo(tmp_path / "a_1.jpg")
    photo(tmp_path / "photos/a_2.jpg")
    path = tmp_path / "0001.zip"
    with zipfile.ZipFile(path, "w") as pack:
        for name in ("meta.xml", "occurrence.csv", "media.csv"):
            pack.write(tmp_path / "in" / name, name)
    table = read(path)
    assert table.source == "darwin-core"
    assert table.kept["path"].to_list() == ["a_1.jpg", "photos/a_2.jpg"]
    assert table.reasons() == {"missing": 3}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"media.csv": None}, "lacks the table media.csv: it is incomplete"),
        ({"occurrence.csv": None}, "lacks the table occurrence.csv: it is incomplete"),
        ({"meta.xml": "<archive><core"}, "could not be read as XML"),
        ({"meta.xml": "<archive/>"}, "describes no core table"),
        ({"meta.xml": '<archive><core rowType="x/Event"/></archive>'}, "names no file"),
        ({"media.csv": "id,identifier,format\n"}, "none of its occurrences has a photo"),
        ({"media.csv": "id,x\na,b.jpg\na,b.jpg,image/jpeg,d\n"}, "a table could not be read"),
    ],
)
def test_half_an_archive_is_one_sentence(tmp_path: Path, change: dict[str, str | None], says: str) -> None:
    archive(tmp_path)
    for name, text in change.items():
        (tmp_path / name).unlink()
        if text is not None:
            (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        read(tmp_path)


def test_pictures_that_occurrences_name_themselves(tmp_path: Path) -> None:
    archive(tmp_path)
    about = (tmp_path / "meta.xml").read_text()
    about = about[: about.index("<extension")].replace("/order", "/associatedMedia") + "</archive>"
    (tmp_path / "meta.xml").write_text(about)
    (tmp_path / "occurrence.csv").write_text(
        "h\na,Parus major,,,,Aves,https://x.org/1.jpg | https://x.org/2.JPG?size=9; https://x.org/a.mp3\n"
        "b,Pica pica,,,,Aves,\n"
    )
    photo(tmp_path / "2.JPG")
    table = read(tmp_path)
    assert table.frame["path"].to_list() == ["1.jpg", "2.JPG"]
    assert table.kept["id"].to_list() == ["a_2"]
    assert table.frame["group"].to_list() == ["a", "a"]


def test_a_zip_that_is_cut_off_and_another_core(tmp_path: Path) -> None:
    archive(tmp_path)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as pack:
        pack.write(tmp_path / "meta.xml", "meta.xml")
    with pytest.raises(InputError, match=r"lacks the table .*: it is incomplete"):
        read(path)
    path.write_bytes(path.read_bytes()[:-30])
    for source in (None, "darwin-core"):
        with pytest.raises(InputError, match="is not a complete zip: download it again"):
            read(path, source=source)
    about = (tmp_path / "meta.xml").read_text()
    (tmp_path / "meta.xml").write_text(about.replace("/Occurrence", "/Taxon"))
    with pytest.raises(InputError, match="archive of Taxon: only archives with occurrences"):
        read(tmp_path)
    (tmp_path / "meta.xml").write_text(about.replace("UTF-8", "latin1"))
    with pytest.raises(InputError, match="only UTF-8 is read"):
        read(tmp_path)
    (tmp_path / "meta.xml").write_text(about.replace("media.csv", "../media.csv"))
    with pytest.raises(InputError, match="names no file in its folder"):
        read(tmp_path)


URLS = [f"https://example.org/photos/{n}/medium.jpg" for n in (70, 71, 80)]


def test_copies_are_known_by_one_way_for_all(tmp_path: Path) -> None:
    """A picture's number may be a record's of another: the names of each must not be mixed."""
    pictures = pl.DataFrame({"url": URLS, "record": ["70", "80", "90"]})
    names = {
        "record": ["70.jpg", "80.jpg", "90_1.jpg"],
        "number": ["70.png", "71.jpg", "80.jpg"],
        "hash": [f"{hashlib.md5(url.encode()).hexdigest()}.jpg" for url in URLS],
        "path": ["x/70/medium.jpg", "x/71/medium.jpg", "x/80/medium.jpg"],
    }
    for way, paths in names.items():
        for path in paths:
            photo(tmp_path / way / path)
        assert find_copies(tmp_path / way, pictures).to_list() == paths
    assert find_copies(tmp_path / "nowhere", pictures)[0] == "photos/70/medium.jpg"
    climbing = pl.DataFrame({"url": ["https://example.org/../../etc/passwd"], "record": ["x"]})
    assert find_copies(tmp_path, climbing).to_list() == ["etc/passwd"]
