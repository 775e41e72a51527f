"""Neighbours: found as scikit-learn finds them, by the index as often as it says; no file is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.neighbors import NearestNeighbors

from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.data.transforms import Preprocess
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.base import LinearHead
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier, Member, Network
from fieldmark.inference.neighbours import FILE, Neighbours, vectors, write
from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError, InputError

DIM, CLASSES = 32, 4
TAXA = Taxonomy(Taxon(f"t{n}", f"Genus species{n}") for n in range(CLASSES))


def classifier(folder: Path | None = None, key: str = "a" * 64) -> Classifier:
    head = LinearHead(np.zeros((DIM, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    member = Member(Network("shufflenet_v2_x0_5", key), Preprocess(), head)
    return Classifier((member,), TAXA, source=folder)


def clusters(count: int, seed: int = 0, centres: int = 40) -> np.ndarray:
    """Features in clusters, as those of photos are; of any length."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(99).normal(0, 1, (centres, DIM))
    x_ND = middle[rng.integers(0, centres, count)] + rng.normal(0, 0.6, (count, DIM))
    return (x_ND * rng.uniform(0.5, 20, (count, 1))).astype(np.float32)


def labelled(x_ND: np.ndarray, labels: np.ndarray | None = None) -> LabelledFeatures:
    labels = np.arange(len(x_ND)) % CLASSES if labels is None else labels
    return LabelledFeatures(Features.of(x_ND), labels, tuple(f"id{n}" for n in range(len(x_ND))))


def table_of(train: LabelledFeatures, root: Path, sha256: list[str | None] | None = None) -> Any:
    frame = build_frame(
        {
            "id": list(train.ids),
            "path": [f"sub/é {number}.png" for number in range(len(train))],
            "sha256": sha256 or [io.sha256(i.encode()) for i in train.ids],
        }
    )
    return PhotoTable(frame, TAXA, root, "folder")


def kept(tmp_path: Path, train: LabelledFeatures, **options: Any) -> Neighbours:
    write(tmp_path, classifier(), table_of(train, tmp_path / "photos"), train, **options)
    found = neighbours.load_index(classifier(tmp_path))
    assert found is not None
    return found


# The search


@pytest.mark.parametrize("block", [7, 64, 1024])
def test_the_nearest_are_those_of_scikit_learn(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldmark.inference.neighbours.index.BLOCK", block)
    x_ND, q_QD = clusters(500), clusters(30, seed=1)
    found = kept(tmp_path, labelled(x_ND), per_class=1000)
    rows, similarity = found.search(q_QD, 10)
    reference = NearestNeighbors(n_neighbors=10, metric="cosine").fit(x_ND)
    distance, expected = reference.kneighbors(q_QD)
    np.testing.assert_allclose(similarity, 1 - distance, atol=2e-3)  # kept in half precision
    assert np.mean([len({*a} & {*b}) for a, b in zip(rows, expected, strict=True)]) > 9.8
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_a_photo_is_its_own_nearest_and_comes_with_its_record(tmp_path: Path) -> None:
    x_ND = clusters(40)
    found = kept(tmp_path, labelled(x_ND))
    for number in (0, 17, 39):
        [[first, *_]] = found.similar(x_ND[number][None], 3)
        assert (first.photo_id, first.path) == (f"id{number}", f"sub/é {number}.png")
        assert first.taxon == list(TAXA)[number % CLASSES]
        assert first.row == number
        assert 0.999 < first.similarity <= 1


@pytest.mark.parametrize("k", [0, 1, 5, 6, 100])
def test_there_are_as_many_as_there_are(k: int, tmp_path: Path) -> None:
    rows, similarity = kept(tmp_path, labelled(clusters(6))).search(clusters(3, seed=2), k)
    assert rows.shape == similarity.shape == (3, min(k, 6))
    assert all(len(set(row)) == min(k, 6) for row in rows.tolist())


def test_features_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="features must be"):
        kept(tmp_path, labelled(clusters(6))).search(np.zeros((1, DIM + 1), np.float32), 1)


def test_half_precision_is_read_exactly() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(2, -1)
    read = vectors.floats(finite)
    assert (read == finite.astype(np.float32)).all()
    assert (np.signbit(read) == np.signbit(finite)).all()


# What is kept


def test_a_class_keeps_so_many_the_same_ones_whatever_the_order(tmp_path: Path) -> None:
    x_ND = clusters(60)
    labels = np.array([0] * 40 + [1] * 3 + [-1] * 10 + [3] * 7)
    train = labelled(x_ND, labels)
    found = kept(tmp_path / "a", train, per_class=5)
    assert np.bincount(found.labels).tolist() == [5, 3, 0, 5]
    order = np.random.default_rng(3).permutation(60)
    ids = tuple(train.ids[n] for n in order)
    again = LabelledFeatures(Features.of(x_ND[order]), labels[order], ids)
    other = kept(tmp_path / "b", again, per_class=5)
    near = [{n.photo_id for n in f.similar(x_ND[:1], 99)[0]} for f in (found, other)]
    assert near[0] == near[1]
    assert len(near[0]) == 13


def test_nothing_is_kept_without_photos(tmp_path: Path) -> None:
    found = kept(tmp_path, labelled(clusters(3), np.full(3, -1)))
    assert len(found) == 0
    assert found.similar(clusters(2), 5) == [[], []]


def test_similar_takes_features_or_says_that_nothing_is_kept(tmp_path: Path) -> None:
    x_ND = clusters(10)
    kept(tmp_path, labelled(x_ND))
    assert neighbours.similar(classifier(tmp_path), x_ND[4], 2)[0].photo_id == "id4"
    (tmp_path / FILE).unlink()
    with pytest.raises(InputError, match="has no training photos"):
        neighbours.similar(classifier(tmp_path), x_ND[4], 2)
    assert neighbours.load_index(classifier(None)) is None


# The index


def test_the_index_finds_what_it_says(tmp_path: Path) -> None:
    x_ND = clusters(4000)
    found = kept(tmp_path, labelled(x_ND), per_class=10**6, index_from=4000)
    assert float(found.about["recall"]) >= 0.98
    assert found.probes < 63, "every cell is looked into"
    queries = clusters(200, seed=5)
    by_index, similarity = found.search(queries, 10)
    exact, _ = found.search(queries, 10, exact=True)
    recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(by_index, exact, strict=True)])
    assert recall > 0.95
    assert (np.diff(similarity, axis=1) <= 0).all()
    # The rows are in another order now: each still has its own record.
    [[first]] = found.similar(x_ND[1234][None], 1)
    assert first.photo_id == "id1234"
    assert first.taxon == list(TAXA)[1234 % CLASSES]


def test_small_cells_still_give_as_many_as_asked_for(tmp_path: Path) -> None:
    found = kept(tmp_path, labelled(clusters(100)), per_class=10**6, index_from=2)
    rows, _ = found.search(clusters(5, seed=6), 90)
    assert rows.shape == (5, 90)
    assert all(len(set(row)) == 90 for row in rows.tolist())


def test_below_the_limit_there_is_no_index(tmp_path: Path) -> None:
    assert "probes" not in kept(tmp_path, labelled(clusters(100)), index_from=101).about


# Pictures


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, LabelledFeatures, PhotoTable]:
    train = labelled(clusters(3))
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    digests: list[str | None] = []
    for number in range(3):
        path = tmp_path / "photos" / "sub" / f"é {number}.png"
        Image.fromarray(np.full((120, 200, 3), 80 * number, np.uint8)).save(path)
        digests.append(io.sha256(path.read_bytes()))
    return tmp_path, train, table_of(train, tmp_path / "photos", digests)


@pytest.mark.parametrize("thumbnails", [True, False])
def test_a_photo_that_is_gone_is_shown_only_by_its_thumbnail(photos: Any, thumbnails: bool) -> None:
    folder, train, table = photos
    write(folder, classifier(), table, train, thumbnails=thumbnails)
    found = neighbours.load_index(classifier(folder))
    assert found is not None
    [[near]] = found.similar(train.features[np.array([1])], 1)
    whole = found.picture(near)
    assert whole is not None
    assert whole.shape == (120, 200, 3)
    assert (whole == 80).all()
    moved = folder / "elsewhere"
    (folder / "photos").rename(moved)
    small = found.picture(near)
    if thumbnails:
        assert small is not None
        assert small.shape == (58, 96, 3)
        assert np.abs(small.astype(int) - 80).max() <= 2
    else:
        assert small is None
    again = found.picture(near, root=moved)
    assert again is not None
    assert again.shape == (120, 200, 3)


def test_another_file_in_the_photos_place_is_not_shown(photos: Any) -> None:
    """A folder from elsewhere could name any picture on this machine."""
    folder, train, table = photos
    write(folder, classifier(), table, train)
    found = neighbours.load_index(classifier(folder))
    assert found is not None
    [[near]] = found.similar(train.features[np.array([1])], 1)
    private = folder / "photos" / "sub" / "é 1.png"
    Image.fromarray(np.full((120, 200, 3), 7, np.uint8)).save(private)
    assert found.picture(near) is None


# Files that are not what they should be


def damage(name: str, tensors: dict[str, np.ndarray], about: dict[str, str]) -> None:
    if name == "key":
        about["backbone_key"] = "b" * 64
    elif name == "format":
        about["format"] = "other"
    elif name == "labels":
        tensors["labels"][2] = CLASSES
    elif name == "dim":
        tensors["vectors"] = tensors["vectors"][:, :-1].copy()
    elif name == "type":
        tensors["vectors"] = tensors["vectors"].astype(np.float32)
    elif name == "ends":
        tensors["paths_ends"][0] = 10**9
    elif name == "negative":
        tensors["ids_ends"][0] = -5
    elif name == "cells":
        tensors["cells_ends"][-1] += 1
    elif name == "probes":
        about["probes"] = "many"
    else:
        del tensors[name]


DAMAGES = ("key", "format", "labels", "dim", "type", "ends", "negative", "cells", "probes")
MISSING = ("vectors", "labels", "digests", "paths", "ids_ends", "cells_ends")


@pytest.mark.parametrize("name", [*DAMAGES, *MISSING])
def test_a_damaged_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    about = dict(kept(tmp_path, labelled(clusters(50)), index_from=50).about)
    tensors = load_file(tmp_path / FILE)
    damage(name, tensors, about)
    save_file(tensors, tmp_path / FILE, metadata=about)
    with pytest.raises(ClassifierError, match="damaged or of another classifier"):
        neighbours.load_index(classifier(tmp_path))


def test_a_file_that_is_cut_off_is_one_sentence(tmp_path: Path) -> None:
    kept(tmp_path, labelled(clusters(50)))
    data = (tmp_path / FILE).read_bytes()
    for length in (0, 4, 100, len(data) - 1):
        (tmp_path / FILE).write_bytes(data[:length])
        with pytest.raises(ClassifierError):
            neighbours.load_index(classifier(tmp_path))


def test_vectors_that_are_no_numbers_are_like_nothing(tmp_path: Path) -> None:
    x_ND = clusters(20)
    about = kept(tmp_path, labelled(x_ND)).about
    tensors = load_file(tmp_path / FILE)
    tensors["vectors"][5] = np.nan
    tensors["vectors"][6] = np.inf
    save_file(tensors, tmp_path / FILE, metadata=about)
    found = neighbours.load_index(classifier(tmp_path))
    assert found is not None
    rows, similarity = found.search(x_ND[5:6], 18)
    assert np.isfinite(similarity).all()
    assert not {5, 6} & set(rows[0].tolist())
