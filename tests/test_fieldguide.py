from __future__ import annotations

import gzip
import io
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fieldmark.data import readers
from fieldmark.data.synthetic import MARKER, draw, draw_like
from fieldmark.data.synthetic.camera import photograph, size_of
from fieldmark.data.synthetic.plan import counts, plan
from fieldmark.data.synthetic.species import create_species
from fieldmark.data.synthetic.wings import appearance_of, paint
from fieldmark.utils.errors import InputError

SMALL = {"species": 5, "photos": 40, "seed": 3}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide") / "drawn"
    draw(folder, **SMALL)
    return folder


def test_the_annotations_name_every_photo_once(guide: Path) -> None:
    parts = {part: json.loads((guide / f"{part}2019.json").read_text()) for part in ("train", "val")}
    test = json.loads((guide / "test2019.json").read_text())
    answers = json.loads((guide / "answers.json").read_text())["annotations"]
    assert "annotations" not in test
    assert {entry["image_id"] for entry in answers} == {image["id"] for image in test["images"]}
    for document in parts.values():
        labels = {entry["image_id"]: entry["category_id"] for entry in document["annotations"]}
        categories = {entry["id"]: entry for entry in document["categories"]}
        for image in document["images"]:
            _, supercategory, category, _ = image["file_name"].split("/")
            assert int(category) == labels[image["id"]]
            assert supercategory == categories[int(category)]["supercategory"]
    images = [image for part in (*parts.values(), test) for image in part["images"]]
    assert len({image["id"] for image in images}) == len(images) == SMALL["photos"]
    assert sorted(image["file_name"] for image in images) == [
        name for name in contents(guide) if name.endswith(".jpg")
    ]


def test_categories_have_the_ranks_of_the_inaturalist_layout(guide: Path) -> None:
    for category in json.loads((guide / "train2019.json").read_text())["categories"]:
        assert category["name"] == f"{category['genus']} {category['specific_epithet']}"
        for rank in ("kingdom", "phylum", "class", "order", "family", "common_name"):
            assert category[rank]


def test_two_files_are_broken_and_the_others_have_the_size_written_down(guide: Path) -> None:
    broken = []
    for part in ("train", "val", "test"):
        for image in json.loads((guide / f"{part}2019.json").read_text())["images"]:
            try:
                with Image.open(guide / image["file_name"]) as photo:
                    seen = ImageOps.exif_transpose(photo)
            except OSError:
                broken.append(part)
            else:
                assert seen.size == (image["width"], image["height"])
    assert broken == ["train", "train"]


def test_the_same_arguments_give_the_same_bytes_with_any_number_of_workers(
    guide: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "again", **SMALL, workers=1)
    assert contents(tmp_path / "again") == contents(guide)


def test_a_half_drawn_guide_is_completed_and_a_complete_one_left_alone(guide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    draw(folder, **SMALL)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    draw(folder, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == times
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps({**marker, "complete": False}))
    lost = sorted(times)[:7]
    for path in lost:
        path.unlink()
    (folder / "val2019.json").unlink()
    draw(folder, **SMALL)
    assert contents(folder) == contents(guide)
    kept = [path for path in times if path not in lost]
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)


@pytest.mark.parametrize("lost", ["train2019.json", "answers.json"])
def test_a_lost_annotation_file_is_written_anew(guide: Path, tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "lost"
    for name, data in contents(guide).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / lost).unlink()
    draw(folder, **SMALL)
    assert contents(folder) == contents(guide)


def test_another_guide_or_foreign_files_are_not_overwritten(guide: Path, tmp_path: Path) -> None:
    before = contents(guide)
    with pytest.raises(InputError, match="other settings"):
        draw(guide, **{**SMALL, "seed": 4})
    assert contents(guide) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="new or empty folder"):
        draw(tmp_path, **SMALL)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize(("species", "photos"), [(1, 100), (10, 59), (0, 0)])
def test_too_small_a_guide_is_refused(tmp_path: Path, species: int, photos: int) -> None:
    with pytest.raises(InputError, match="too small"):
        draw(tmp_path / "new", species=species, photos=photos)
    assert not (tmp_path / "new").exists()


def test_the_guide_of_the_demo_has_look_alikes_and_a_long_tail() -> None:
    species = create_species(48, 0)
    genera = Counter(kind.genus for kind in species)
    assert len(genera) == 12
    assert min(genera.values()) >= 2
    assert len({kind.family for kind in species}) == 4
    numbers = counts(48, 1100, 0)
    assert min(numbers) <= 8
    assert max(numbers) >= 55
    assert sum(numbers) == 1100


@settings(max_examples=60, deadline=None)
@given(species=st.integers(2, 150), extra=st.integers(0, 400), seed=st.integers(0, 2**40))
def test_no_animal_is_in_two_parts_and_every_species_in_all(species: int, extra: int, seed: int) -> None:
    kinds = create_species(species, seed)
    assert len({kind.name for kind in kinds}) == len({kind.common_name for kind in kinds}) == species
    frames = plan(kinds, 6 * species + extra, seed)
    assert len(frames) == len({frame.path for frame in frames}) == 6 * species + extra
    parts: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        parts[frame.individual].add(frame.part)
    assert {len(found) for found in parts.values()} == {1}
    for kind in kinds:
        assert {frame.part for frame in frames if frame.species == kind.id} == {"train", "val", "test"}
    shots = Counter(frame.individual for frame in frames)
    assert all((frame.sequence is not None) == (shots[frame.individual] > 1) for frame in frames)
    assert sorted(frame.defect for frame in frames if frame.defect) == ["truncated", "web page"]


def test_look_alikes_differ_on_the_wing() -> None:
    kinds = create_species(48, 0)
    wings = {
        kind.id: [
            np.asarray(paint(kind, appearance_of(kind, 0, "same"), front=front, underside=False), float)
            for front in (True, False)
        ]
        for kind in kinds
    }
    for one in kinds:
        for other in kinds:
            if one.id < other.id and one.genus == other.genus:
                pairs = list(zip(wings[one.id], wings[other.id], strict=True))
                if all(a.shape == b.shape for a, b in pairs):
                    assert max(np.abs(a - b).mean() for a, b in pairs) > 0.5, (one, other)


def test_photos_of_one_animal_differ_but_show_the_same_animal() -> None:
    kind = create_species(8, 0)[0]
    first = photograph(kind, 0, "0/1", "a")
    assert first == photograph(kind, 0, "0/1", "a")
    assert first != photograph(kind, 0, "0/1", "b")
    assert appearance_of(kind, 0, "0/1") == appearance_of(kind, 0, "0/1") != appearance_of(kind, 0, "0/2")


def test_upright_photos_are_stored_lying_with_an_orientation() -> None:
    kind = create_species(8, 0)[0]
    name = next(str(i) for i in range(200) if size_of(0, str(i))[1] > size_of(0, str(i))[0])
    with Image.open(io.BytesIO(photograph(kind, 0, "0/1", name))) as photo:
        assert photo.width > photo.height
        assert ImageOps.exif_transpose(photo).size == size_of(0, name)


# Photos for the annotations of a real data set


def listed(folder: Path, names: list[str]) -> Path:
    """A list in the layout of iNaturalist 2019: two classes in turn, the last photo without a label."""
    folder.mkdir()
    images = [{"id": at, "file_name": name} for at, name in enumerate(names)]
    labels = [{"id": at, "image_id": at, "category_id": at % 2} for at in range(len(names) - 1)]
    categories = [{"id": 0, "name": "Apis mellifera"}, {"id": 1, "name": "Danaus plexippus"}]
    document = {"images": images, "annotations": labels, "categories": categories}
    with gzip.open(folder / "train2019.json.gz", "wt") as handle:
        json.dump(document, handle)
    return folder / "train2019.json.gz"


def test_every_photo_of_annotations_is_drawn_and_what_is_there_stays(tmp_path: Path) -> None:
    names = [f"train_val2019/Insects/{at % 2}/{at}.jpg" for at in range(20)]
    annotations = listed(tmp_path / "lists", names)
    assert draw_like(annotations, tmp_path / "drawn") == 20
    before = {name: (tmp_path / "drawn" / name).read_bytes() for name in names}
    assert len(set(before.values())) == 20
    for name in names:
        with Image.open(tmp_path / "drawn" / name) as photo:
            assert photo.size == (128, 96)
    (tmp_path / "drawn" / names[0]).write_bytes(b"kept")
    (tmp_path / "drawn" / names[1]).unlink()
    assert draw_like(annotations.parent, tmp_path / "drawn") == 1
    assert (tmp_path / "drawn" / names[0]).read_bytes() == b"kept"
    assert (tmp_path / "drawn" / names[1]).read_bytes() == before[names[1]]
    table = readers.read(tmp_path / "drawn")
    assert (len(table), len(table.labelled)) == (20, 18)  # one has no label, one is no photo now


def test_annotations_that_lead_out_of_the_folder_draw_nothing(tmp_path: Path) -> None:
    annotations = listed(tmp_path / "lists", ["../a.jpg", "b.jpg"])
    with pytest.raises(InputError, match="outside"):
        draw_like(annotations, tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()
    with pytest.raises(InputError, match="name another folder"):
        draw_like(annotations.parent, annotations.parent / "below")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="no list of photos"):
        draw_like(tmp_path / "notes.txt", tmp_path / "drawn")
