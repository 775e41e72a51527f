"""Checklist archives: which names of a list are of the labels of a classifier."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldmark.data.checklist import accepted_names
from fieldmark.data.readers.occurrences import read_occurrences
from fieldmark.data.taxonomy import Taxon
from fieldmark.utils.errors import InputError

DWC = "http://rs.tdwg.org/dwc/terms"
TAXA = [Taxon("a", "Apis mellifera"), Taxon("b", "Papilio plexippus"), Taxon("c", "Vulpes vulpes")]
LISTED = [
    *(
        "Apis mellifica",
        "Danaus plexippus",
        "Vulpes vulpes",
        "Canis vulpes",
        "Danaida plexippus",
        "Unicornis",
    ),
    *("Oenanthe", "Apis mellifera Linnaeus, 1758"),
]
FOUND = ["a", "b", "Vulpes vulpes", "Canis vulpes", "b", "Unicornis", "Oenanthe", LISTED[-1]]
"""Canis vulpes is misapplied, Oenanthe a name of two taxa."""

ROWS = (  # id, accepted or parent, status, name, author
    ("1", "", "accepted", "Apis mellifera", "Linnaeus, 1758"),
    ("2", "1", "synonym", "Apis mellifica", "Linnaeus, 1761"),
    ("3", "", "accepted", "Danaus plexippus", "(Linnaeus, 1758)"),
    ("4", "3", "synonym", "Papilio plexippus", "Linnaeus, 1758"),
    ("5", "3", "heterotypic synonym", "Danaida plexippus", ""),
    ("6", "", "accepted", "Vulpes vulpes", "(Linnaeus, 1758)"),
    ("7", "6", "misapplied", "Canis vulpes", "auct."),
    ("8", "6", "synonym", "Oenanthe", ""),
    ("9", "1", "synonym", "Oenanthe", ""),
)


def meta(columns: tuple[str, ...], kind: str = "Taxon") -> str:
    fields = "".join(f'<field index="{n}" term="{DWC}/{each}"/>' for n, each in enumerate(columns) if n)
    return (
        f'<archive xmlns="http://rs.tdwg.org/dwc/text/"><core encoding="UTF-8" fieldsTerminatedBy="\\t" '
        f'linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1" rowType="{DWC}/{kind}"><files>'
        f'<location>Taxon.tsv</location></files><id index="0"/>{fields}</core></archive>'
    )


def tabbed(*rows: tuple[str, ...]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def darwin_core() -> dict[str, str]:
    columns = (
        "taxonID",
        "acceptedNameUsageID",
        "taxonomicStatus",
        "scientificName",
        "scientificNameAuthorship",
    )
    rows = [(*row[:3], f"{row[3]} {row[4]}".strip(), row[4], *("Insecta",) * (row[0] < "6")) for row in ROWS]
    return {"meta.xml": meta((*columns, "class")), "Taxon.tsv": tabbed((*columns, "class"), *rows)}


def coldp() -> dict[str, str]:
    columns = ("col:ID", "col:parentID", "col:status", "col:scientificName", "col:authorship")
    return {"metadata.yaml": "title: x", "NameUsage.tsv": tabbed(columns, *ROWS)}


def coldp_in_three() -> dict[str, str]:
    names = [(f"n{row[0]}", row[3], row[4]) for row in ROWS]
    taxa = [(row[0], f"n{row[0]}") for row in ROWS if not row[1]]
    synonyms = [(row[1], f"n{row[0]}", row[2]) for row in ROWS if row[1]]
    return {
        "name.csv": "ID,scientificName,authorship\n" + "".join(f'{a},{b},"{c}"\n' for a, b, c in names),
        "taxon.csv": "ID,nameID\n" + "".join(f"{a},{b}\n" for a, b in taxa),
        "synonym.csv": "taxonID,nameID,status\n" + "".join(f"{a},{b},{c}\n" for a, b, c in synonyms),
    }


def packed(path: Path, files: dict[str, str], below: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(below + name, text)
    return path


@pytest.mark.parametrize("made", [darwin_core, coldp, coldp_in_three])
def test_names_become_the_labels_that_they_are_of(
    made: Callable[[], dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = packed(tmp_path / "list.zip", made(), "backbone/")
    assert accepted_names(path, LISTED, TAXA) == FOUND
    assert "names of several taxa are passed over: Oenanthe" in caplog.text
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in made().items():
        (folder / name).write_text(text)
    assert accepted_names(folder, LISTED, TAXA) == FOUND


def test_a_higher_taxon_becomes_its_labels(tmp_path: Path) -> None:
    path = packed(tmp_path / "list.zip", darwin_core())
    assert accepted_names(path, ["Insecta"], TAXA) == ["a", "b"]
    assert accepted_names(tmp_path / "is not read", ["Vulpes vulpes"], TAXA) == ["Vulpes vulpes"]


def test_occurrences_of_synonyms_count(tmp_path: Path) -> None:
    table = tmp_path / "gbif.csv"
    table.write_text("species,latitude,longitude\nApis mellifica,1,2\nVulpes vulpes,3,4\nOenanthe,5,6\n")
    path = packed(tmp_path / "list.zip", coldp())
    at, class_N = read_occurrences(table, TAXA, path)
    assert (at.latitude_N.tolist(), class_N.tolist()) == ([1, 3], [0, 2])
    assert read_occurrences(table, TAXA)[1].tolist() == [2]


def test_what_is_no_checklist_is_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.zip", darwin_core()).read_bytes()
    at = whole.index(b"Taxon.tsv") + 40
    long = "x" * (1 << 20)
    wrong: dict[str, tuple[bytes | dict[str, str], str]] = {
        "text": (b"Apis mellifera", "not a zip"),
        "cut": (whole[: len(whole) // 2], "not a zip"),
        "bit": (whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :], "could not be read as a checklist"),
        "photos": ({"a.jpg": "x"}, "is no checklist"),
        "occurrences": ({"meta.xml": meta(("id",), "Occurrence")}, "archive of Occurrence"),
        "xml": ({"meta.xml": "<archive"}, "could not be read as XML"),
        "no-table": ({"meta.xml": meta(("id", "scientificName"))}, "Taxon.tsv is missing"),
        "no-name": ({"meta.xml": meta(("id", "x")), "Taxon.tsv": "a\n"}, "has no column scientificName"),
        "no-id": ({"NameUsage.tsv": "name\nx\n"}, "has no column id"),
        "endless": ({"NameUsage.tsv": f"ID\tparentID\tstatus\tscientificName\n{long}"}, "longer than"),
    }
    for name, (content, said) in wrong.items():
        path = tmp_path / f"{name}.zip"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            packed(path, content)
        with pytest.raises(InputError, match=said) as error:
            accepted_names(path, ["Apis mellifica"], TAXA)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="No such file"):
        accepted_names(tmp_path / "nowhere.zip", ["Apis mellifica"], TAXA)


def test_lists_with_a_checklist_on_the_command_line(
    run: Callable[..., Any], model: Path, insects: Path, tmp_path: Path
) -> None:
    photo = insects / "Danaus plexippus" / "00.jpg"
    path = packed(tmp_path / "list.zip", coldp())
    (tmp_path / "park.txt").write_text("Apis mellifica\nBombus terrestris\n")
    command = ("predict", model, photo, "--format", "jsonl", "--only", tmp_path / "park.txt")
    found = run(*command, "--checklist", path)
    assert found.code == 0, found.err
    assert "Apis mellifica is Apis mellifera" in found.err
    assert "Apis mellifera" in found.out
    assert run(*command[:-2], "--checklist", path).code == 2
    path.write_bytes(path.read_bytes()[:100])
    assert run(*command, "--checklist", path).code == 2
