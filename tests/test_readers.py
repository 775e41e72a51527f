"""Reading photos as they lie: the years of iNaturalist, folders, tables, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from fieldmark.data.readers import read
from fieldmark.data.taxonomy import Taxon
from fieldmark.utils.errors import InputError, RejectReason


def photo(path: Path, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 90)).save(path, format="JPEG")


def listing(count: int = 3, **more: Any) -> dict[str, Any]:
    """Annotations of `count` photos of one taxon, whose photos are nowhere."""
    return {
        "images": [{"id": n, "file_name": f"top/Birds/7/{n}.jpg"} for n in range(count)],
        "annotations": [{"id": n, "image_id": n, "category_id": 7} for n in range(count)],
        "categories": [{"id": 7, "name": "XQZTWV"}],
        **more,
    }


def write(path: Path, document: Any) -> Path:
    data = json.dumps(document).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def reason_of(table: Any) -> dict[str, str | None]:
    return dict(table.frame.select("id", "reason").iter_rows())


class TestInat:
    def test_the_paper_s_data_set_is_counted_without_photos(self, shared: Path) -> None:
        table = read(shared / "data/inat2019-annotations")
        assert (len(table), table.kept.height, len(table.taxonomy)) == (268_243, 268_243, 1010)
        assert len(table.taxonomy.supercategories) == 6
        assert table.frame["split"].value_counts().sort("split").rows() == [
            ("train", 265_213),
            ("val", 3_030),
        ]

    def test_real_photos_with_tracks_and_a_test_part(self, shared: Path) -> None:
        table = read(shared / "data/wild74", verify=False)
        assert len(table) == 4958
        test = table.frame.filter(pl.col("split") == "test")
        assert (test.height, test["taxon_id"].null_count()) == (621, 621)
        assert table.frame["group"].is_not_null().sum() == 1140
        tick = table.taxonomy["0"]
        assert (tick.name, tick.common_name, tick.supercategory) == ("Ixodida", "tick", "Arachnids")
        assert "family" not in tick.ranks  # written as an empty text

    def test_photos_are_looked_at(self, shared: Path) -> None:
        table = read(shared / "data/wild74/val2019.json")
        assert table.kept.height == 250
        listed = json.loads((shared / "data/wild74/val2019.json").read_bytes())["images"]
        sizes = {str(image["id"]): {image["width"], image["height"]} for image in listed}
        assert all(
            {width, height} == sizes[key]
            for key, width, height in table.frame.select("id", "width", "height").iter_rows()
        )

    def test_2021(self, tmp_path: Path) -> None:
        bird = {
            "id": 7,
            "name": "Parus major",
            "common_name": "Great Tit",
            "supercategory": "Birds",
            "kingdom": "Animalia",
            "genus": "Parus",
            "specific_epithet": "major",
            "image_dir_name": "00007_Animalia",
        }
        document = listing(categories=[bird])
        document["images"][0] |= {"latitude": 1.5, "longitude": 2.5, "date": "2019-01-01"}
        write(tmp_path / "train.json", document)
        write(tmp_path / "train_mini.json", listing(1))
        write(tmp_path / "public_test.json", {"images": [{"id": 90, "file_name": "pt/1.jpg"}]})
        table = read(tmp_path)
        ranks = {"kingdom": "Animalia", "genus": "Parus", "species": "Parus major"}
        assert list(table.taxonomy) == [Taxon("7", "Parus major", "Great Tit", "Birds", ranks)]
        assert dict(table.frame.select("id", "split").iter_rows()) == {
            "90": "test",
            "0": "train",
            "1": "train",
            "2": "train",
        }

    def test_2019_keeps_the_group_in_the_path_and_the_obfuscated_name(self, tmp_path: Path) -> None:
        table = read(write(tmp_path / "train2019.json.gz", listing()))
        assert list(table.taxonomy) == [Taxon("7", "XQZTWV", "", "Birds", {})]
        assert set(table.frame["split"]) == {"train"}

    def test_a_name_that_leads_out_of_the_folder_is_not_followed(self, tmp_path: Path) -> None:
        document = listing()
        document["images"][1]["file_name"] = "../secret.jpg"
        table = read(write(tmp_path / "train2019.json", document))
        assert table.frame["reason"].to_list()[1] == RejectReason.OUTSIDE.value
        assert table.frame["taxon_id"].null_count() == 1

    def test_true_names_come_from_categories_json(self, tmp_path: Path) -> None:
        write(tmp_path / "train2019.json", listing())
        write(tmp_path / "categories.json", [{"id": 7, "name": "Parus major"}])
        assert read(tmp_path).taxonomy["7"].name == "Parus major"

    def test_ids_that_clash_between_parts_get_the_part_before_them(self, tmp_path: Path) -> None:
        write(tmp_path / "train.json", listing(2))
        write(tmp_path / "val.json", listing(1))
        assert read(tmp_path).frame["id"].to_list() == ["train/0", "train/1", "val/0"]

    def test_an_id_twice_in_one_file_is_rejected_the_second_time(self, tmp_path: Path) -> None:
        document = listing(2)
        document["images"].append({"id": 1, "file_name": "top/other.jpg"})
        table = read(write(tmp_path / "train.json", document))
        assert reason_of(table) == {"0": None, "1": None, "1#2": RejectReason.DUPLICATE_ID}

    @pytest.mark.parametrize("field", ["seq_id", "observation_id", "observation_uuid", "location"])
    def test_groups(self, tmp_path: Path, field: str) -> None:
        document = listing(3)
        document["images"][1][field] = 55
        document["images"][2][field] = ""
        table = read(write(tmp_path / "train.json", document))
        assert table.frame["group"].to_list() == [None, "55", None]

    def test_labels_that_cannot_be_used(self, tmp_path: Path) -> None:
        document = listing(4)
        document["annotations"] = [
            {"image_id": 0, "category_id": 7},
            {"image_id": 0, "category_id": 7},
            {"image_id": 1, "category_id": 7},
            {"image_id": 1, "category_id": 8},
            {"image_id": 2, "category_id": 9},
        ]
        document["categories"].append({"id": 8, "name": "other"})
        table = read(write(tmp_path / "train.json", document))
        assert reason_of(table) == {
            "0": None,
            "1": RejectReason.AMBIGUOUS_LABEL,
            "2": RejectReason.UNKNOWN_CATEGORY,
            "3": RejectReason.NO_LABEL,
        }
        assert table.frame["taxon_id"].to_list() == ["7", None, None, None]

    def test_a_missing_photo_is_rejected_where_its_folder_is_there(self, tmp_path: Path) -> None:
        photo(tmp_path / "top/Birds/7/1.jpg")
        table = read(write(tmp_path / "train.json", listing(2)))
        assert reason_of(table) == {"0": RejectReason.MISSING, "1": None}

    def test_sizes_that_make_no_sense_are_unknown(self, tmp_path: Path) -> None:
        document = listing(3)
        for image, width in zip(document["images"], ["wide", -1, 800], strict=True):
            image["width"] = width
        table = read(write(tmp_path / "train.json", document))
        assert table.frame["width"].to_list() == [None, None, 800]

    @pytest.mark.parametrize(
        ("document", "says"),
        [
            ([], "no field 'images'"),
            ({"images": "many"}, "'images' must be a list"),
            ({"images": []}, "holds no photos"),
            ({"images": [{"id": 1, "file_name": "a"}, {"id": 2}]}, r"images\[1\] has no file_name"),
            ({"images": [{"id": None, "file_name": "a"}]}, r"images\[0\] has no id"),
            ({"images": [17]}, r"images\[0\] has no id"),
            (listing(annotations=[{"image_id": 99, "category_id": 7}]), "image_id 99"),
            (listing(annotations=[{"image_id": 1}]), r"annotations\[0\] has no category_id"),
            (listing(categories=[{"name": "x"}]), r"categories\[0\] has no id"),
            ({"images": [{"id": 1, "file_name": "\ud800"}]}, "not valid Unicode"),
        ],
    )
    def test_bad_annotations_are_named(self, tmp_path: Path, document: Any, says: str) -> None:
        path = write(tmp_path / "train.json", document)
        with pytest.raises(InputError, match=says) as caught:
            read(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("train.json", b"{"),
            ("train.json", b""),
            ("train.json", b"\xff\xfe\xfa"),
            ("train.json.gz", b"no gzip"),
            ("train.json.gz", gzip.compress(b"{}" * 999, mtime=0)[:20]),
            ("train.json", b"[" * 100_000),
        ],
    )
    def test_unreadable_files_are_named(self, tmp_path: Path, name: str, data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read(tmp_path)


class TestFolder:
    def test_every_file_is_a_row_and_has_its_reason(self, tmp_path: Path) -> None:
        photo(tmp_path / "Parus major/1.JPG")
        photo(tmp_path / "Pica_pica/2019/may/no extension")
        photo(tmp_path / "stray.jpg")
        photo(tmp_path / "Pica_pica/.hidden.jpg")
        photo(tmp_path / ".trash/3.jpg")
        (tmp_path / "Pica_pica/Thumbs.db").write_bytes(b"x")
        (tmp_path / "Pica_pica/notes.txt").write_text("x")
        (tmp_path / "Pica_pica/empty.jpg").touch()
        table = read(tmp_path)
        assert reason_of(table) == {
            "Parus major/1.JPG": None,
            "Pica_pica/2019/may/no extension": None,
            "stray.jpg": RejectReason.NO_LABEL,
            "Pica_pica/.hidden.jpg": RejectReason.SIDE_FILE,
            ".trash/3.jpg": RejectReason.SIDE_FILE,
            "Pica_pica/Thumbs.db": RejectReason.SIDE_FILE,
            "Pica_pica/notes.txt": RejectReason.NOT_AN_IMAGE,
            "Pica_pica/empty.jpg": RejectReason.EMPTY,
        }
        assert [taxon.id for taxon in table.taxonomy] == ["Parus major", "Pica_pica"]

    def test_scientific_names_give_ranks(self, tmp_path: Path) -> None:
        for name in ("Pica_pica", "Parus major", "unknown"):
            photo(tmp_path / name / "1.jpg")
        magpie = read(tmp_path, verify=False).taxonomy["Pica_pica"]
        assert (magpie.name, magpie.ranks) == ("Pica pica", {"genus": "Pica", "species": "Pica pica"})

    def test_a_few_names_of_that_shape_are_everyday_names(self, tmp_path: Path) -> None:
        for name in ("Black_bear", "wolf", "lynx"):
            photo(tmp_path / name / "1.jpg")
        assert read(tmp_path, verify=False).taxonomy["Black_bear"].ranks == {}

    def test_parts(self, tmp_path: Path) -> None:
        for name in ("train/a/1.jpg", "Validation/b/1.jpg", "test/1.jpg", "train/2.jpg", "misc/3.jpg"):
            photo(tmp_path / name)
        table = read(tmp_path)
        rows = {row[0]: row[1:] for row in table.frame.select("id", "split", "taxon_id", "reason").rows()}
        assert rows == {
            "train/a/1.jpg": ("train", "a", None),
            "Validation/b/1.jpg": ("val", "b", None),
            "test/1.jpg": ("test", None, None),
            "train/2.jpg": ("train", None, RejectReason.NO_LABEL),
            "misc/3.jpg": (None, None, RejectReason.NO_LABEL),
        }

    def test_a_class_may_be_called_like_a_part(self, tmp_path: Path) -> None:
        photo(tmp_path / "test/1.jpg")
        photo(tmp_path / "tern/1.jpg")
        assert [taxon.id for taxon in read(tmp_path).taxonomy] == ["tern", "test"]

    def test_photos_without_classes_are_unlabelled(self, tmp_path: Path) -> None:
        photo(tmp_path / "1.jpg", (30, 20))
        table = read(tmp_path)
        assert table.kept.select("id", "taxon_id", "width", "height").rows() == [("1.jpg", None, 30, 20)]

    def test_a_loop_of_links_ends(self, tmp_path: Path) -> None:
        photo(tmp_path / "a/1.jpg")
        (tmp_path / "a/again").symlink_to(tmp_path)
        assert reason_of(read(tmp_path)) == {"a/1.jpg": None, "a/again": RejectReason.REPEATED_FOLDER}

    def test_a_link_that_leads_out_is_not_followed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        photo(tmp_path / "elsewhere/1.jpg")
        photo(tmp_path / "photos/b/1.jpg")
        (tmp_path / "photos/a").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos/b/c").symlink_to("/etc")
        (tmp_path / "link").symlink_to("photos")
        for folder in (tmp_path / "photos", tmp_path / "link"):
            caplog.clear()
            with caplog.at_level("INFO", "fieldmark"):
                outside = dict.fromkeys(("a", "b/c"), RejectReason.OUTSIDE)
                assert reason_of(read(folder)) == {"b/1.jpg": None, **outside}
            assert len([each for each in caplog.messages if "2 links" in each]) == 1

    def test_names_that_look_the_same_are_one_class(self, tmp_path: Path) -> None:
        photo(tmp_path / "train/\u00e9/1.jpg")
        photo(tmp_path / "val/e\u0301/1.jpg")
        assert [taxon.id for taxon in read(tmp_path).taxonomy] == ["\u00e9"]

    def test_what_is_no_file_is_not_waited_for(self, tmp_path: Path) -> None:
        photo(tmp_path / "a/1.jpg")
        os.mkfifo(tmp_path / "a/pipe.jpg")
        (tmp_path / "a/gone.jpg").symlink_to("nowhere")
        (tmp_path / "a/itself.jpg").symlink_to("itself.jpg")
        (tmp_path / "itself").symlink_to("itself")
        (tmp_path / "a/device.jpg").symlink_to("/dev/zero")
        assert reason_of(read(tmp_path)) == {
            "a/1.jpg": None,
            "a/pipe.jpg": RejectReason.UNREADABLE,
            "a/gone.jpg": RejectReason.MISSING,
            "a/itself.jpg": RejectReason.UNREADABLE,
            "a/device.jpg": RejectReason.UNREADABLE,
            "itself": RejectReason.NO_LABEL,
        }

    def test_a_name_that_is_not_unicode_is_rejected(self, tmp_path: Path) -> None:
        photo(tmp_path / "a/1.jpg")
        with Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.jpg")).open("wb"):
            pass
        assert sorted(read(tmp_path).reasons().items()) == [("unreadable", 1)]

    @pytest.mark.parametrize("made", [[], ["a/", "b/"], ["a/readme.txt"]])
    def test_a_folder_without_photos_says_what_is_expected(self, tmp_path: Path, made: list[str]) -> None:
        for name in made:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.mkdir() if name.endswith("/") else path.touch()
        with pytest.raises(InputError, match=r"holds no photos.*a folder for each class") as caught:
            read(tmp_path)
        assert str(tmp_path) in str(caught.value)


class TestTable:
    def test_taxonomy_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.csv"
        path.write_text(
            "\ufefffile_name, Label,split,group,genus,species,common_name\n"
            "p/1.jpg,7,Train,s1,Parus,major,Great tit\n"
            "p/2.jpg,7,valid,,,,\n"
            "p/3.jpg,,,,,,\n"
        )
        table = read(path)
        assert table.frame.select("id", "taxon_id", "split", "group", "status").rows() == [
            ("p/1.jpg", "7", "train", "s1", "kept"),
            ("p/2.jpg", "7", "val", None, "kept"),
            ("p/3.jpg", None, None, None, "kept"),
        ]
        ranks = {"genus": "Parus", "species": "Parus major"}
        assert list(table.taxonomy) == [Taxon("7", "Parus major", "Great tit", "", ranks)]

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.parquet"
        pl.DataFrame({"file_name": ["p/1.jpg", "p/2.jpg"], "label": [3, 4]}).write_parquet(path)
        assert read(path).frame["taxon_id"].to_list() == ["3", "4"]

    def test_a_file_that_stands_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.csv"
        path.write_text("file_name,label\np/1,a\np/1,a\np/2,a\np/2,b\n")
        assert reason_of(read(path)) == {
            "p/1": None,
            "p/1#2": RejectReason.DUPLICATE_ID,
            "p/2": RejectReason.AMBIGUOUS_LABEL,
            "p/2#2": RejectReason.AMBIGUOUS_LABEL,
        }

    def test_photos_beside_the_table_are_looked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.csv"
        path.write_text("file_name,label\n1.jpg,a\n")
        assert reason_of(read(path)) == {"1.jpg": RejectReason.MISSING}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "is empty"),
            ("file_name,label\n", "holds no photos"),
            ("file_name,what\n1.jpg,a\n", "no column 'label'"),
            ("where,label\n1.jpg,a\n", "no column 'file_name'"),
            ("file_name,label\n,a\n", "1 rows have no file_name"),
            ("file_name,label,split\n1.jpg,a,tarin\n", "split holds 'tarin'"),
            ("file_name,label,genus\n1.jpg,a,B\n2.jpg,a,C\n", "two values of genus, 'B' and 'C'"),
            ("file_name,label\n1.jpg,a,b,c\n", "could not be read as a table"),
        ],
    )
    def test_bad_tables_are_named(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "photos.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=says) as caught:
            read(path)
        assert str(path) in str(caught.value)

    def test_a_parquet_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "photos.parquet").write_bytes(b"PAR1 but not for long")
        with pytest.raises(InputError, match=r"photos\.parquet could not be read as a table"):
            read(tmp_path / "photos.parquet")


def test_a_path_that_is_not_there_or_has_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere not found"):
        read(tmp_path / "nowhere")
    photo(tmp_path / "lone.jpg")
    with pytest.raises(InputError, match=r"lone\.jpg has no known layout.*inat.*folder.*table"):
        read(tmp_path / "lone.jpg")
    with pytest.raises(InputError, match="no source 'inaturalist'"):
        read(tmp_path, source="inaturalist")


def test_the_source_can_be_named(tmp_path: Path) -> None:
    photo(tmp_path / "a/1.jpg")
    write(tmp_path / "train.json", listing())
    assert read(tmp_path).source == "inat"
    assert read(tmp_path, source="folder").source == "folder"
    with pytest.raises(InputError, match="is not a folder"):
        read(tmp_path / "train.json", source="folder")


def test_the_photos_of_a_sequence_at_one_place_are_a_group(tmp_path: Path) -> None:
    """Where the table names no group; cameras number their sequences anew."""
    lines = ["file_name,label,location,sequence,group"]
    lines += ["a.jpg,x,L1,7,", "b.jpg,x,L1,7,", "c.jpg,x,L2,7,", "d.jpg,x,L1,,", "e.jpg,x,L1,7,mine"]
    (tmp_path / "photos.csv").write_text("\n".join(lines) + "\n")
    one, same, elsewhere, none, own = read(tmp_path / "photos.csv", verify=False).frame["group"].to_list()
    assert one == same != elsewhere
    assert None not in (one, elsewhere)
    assert (none, own) == (None, "mine")
