"""Splits: sizes, classes, groups, seeds; and pruning."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldmark.data.photos import PhotoTable, build_frame
from fieldmark.data.readers import read
from fieldmark.data.split import Split, prune, split_photos
from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.utils.errors import InputError


def table_of(
    labels: Sequence[str | None],
    groups: Sequence[str | None] | None = None,
    parts: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
) -> PhotoTable:
    count = len(labels)
    names = ids or [f"p{n}" for n in range(count)]
    frame = build_frame(
        {
            "id": names,
            "path": names,
            "taxon_id": pl.Series(labels, dtype=pl.String),
            "group": pl.Series(groups or [None] * count, dtype=pl.String),
            "split": pl.Series(parts or [None] * count, dtype=pl.String),
        }
    )
    taxa = sorted({label for label in labels if label is not None})
    return PhotoTable(frame, Taxonomy(Taxon(name, name) for name in taxa), Path("x"), "table")


def parts_of(split: Split) -> dict[str, str]:
    return dict(split.frame.iter_rows())


def by_class(table: PhotoTable, split: Split, part: str) -> dict[str, int]:
    return dict(split.rows(table, part)["taxon_id"].value_counts().iter_rows())  # type: ignore[arg-type]


@st.composite
def tables(draw: st.DrawFn, *, grouped: bool) -> PhotoTable:
    labels = draw(st.lists(st.sampled_from("abcde"), min_size=20, max_size=120))
    groups: list[str | None] = [None] * len(labels)
    if grouped:
        name = st.one_of(st.none(), st.sampled_from([f"g{n}" for n in range(25)]))
        groups = draw(st.lists(name, min_size=len(labels), max_size=len(labels)))
    return table_of(labels, groups)


WAYS = st.sampled_from(["stratified", "random"])
SEEDS = st.integers(0, 3)


@pytest.fixture(scope="module")
def inat2019(shared: Path) -> PhotoTable:
    return read(shared / "data/inat2019-annotations")


class TestTheRealPhotos:
    @pytest.mark.parametrize("way", ["stratified", "random"])
    def test_the_paper_s_sizes_in_two_seconds(self, inat2019: PhotoTable, way: str) -> None:
        start = time.process_time()
        split = split_photos(inat2019, way=way)  # type: ignore[arg-type]
        seconds = time.process_time() - start
        assert (len(split.train), len(split.val), len(split.test)) == (241_418, 26_825, 0)
        assert seconds < 4  # of both processors together, which is under 2 s on the clock

    def test_every_class_has_its_tenth(self, inat2019: PhotoTable) -> None:
        split = split_photos(inat2019)
        found = by_class(inat2019, split, "val")
        for taxon, total in inat2019.frame["taxon_id"].value_counts().iter_rows():
            assert abs(found[taxon] - total * 26_825 / 268_243) < 1

    def test_tracks_stay_together(self, shared: Path) -> None:
        table = read(shared / "data/wild74", verify=False)
        split = split_photos(table, val=0.1, test=0.1, seed=5)
        sides = table.labelled.join(split.frame, on="id").drop_nulls("group")
        assert sides.group_by("group").agg(pl.col("part").n_unique())["part"].max() == 1
        assert (len(split.train), len(split.val) + len(split.test)) == (3469, 868)
        grouped = sides.filter(pl.col("part") != "train").height / sides.height
        assert 0.12 < grouped < 0.28  # photos in groups are held out as often as the others


@settings(deadline=None)
@given(tables(grouped=False), WAYS, SEEDS, st.sampled_from([0.1, 0.2, 0.25]), st.sampled_from([0.0, 0.1]))
def test_sizes_are_exact_where_photos_stand_alone(
    table: PhotoTable, way: str, seed: int, val: float, test: float
) -> None:
    split = split_photos(table, val=val, test=test, seed=seed, way=way)  # type: ignore[arg-type]
    count = len(table)
    hundredths = round(100 * (1 - val - test))
    held = max(1, count * 10 // 100) if test else 0
    assert len(split.train) == count * hundredths // 100
    assert len(split.test) == held
    assert len(split.train) + len(split.val) + len(split.test) == count
    assert split.frame["id"].is_unique().all()


@settings(deadline=None)
@given(tables(grouped=True), WAYS, SEEDS)
def test_groups_are_never_split_and_sizes_are_near(table: PhotoTable, way: str, seed: int) -> None:
    try:
        split = split_photos(table, val=0.2, test=0.1, seed=seed, way=way)  # type: ignore[arg-type]
    except InputError:  # the groups are too few or too large
        return
    sides = table.frame.join(split.frame, on="id")
    assert sides.height == len(table)
    together = sides.drop_nulls("group").group_by("group").agg(pl.col("part").n_unique())
    assert (together["part"] == 1).all()
    largest = sides.drop_nulls("group")["group"].value_counts()["count"].max() or 1
    if way == "random":
        assert abs(len(split.val) - 0.2 * len(table)) <= largest + 1  # type: ignore[operator]


@settings(deadline=None)
@given(tables(grouped=True), SEEDS)
def test_a_class_with_two_units_keeps_one_in_train(table: PhotoTable, seed: int) -> None:
    try:
        split = split_photos(table, val=0.3, test=0.3, seed=seed)
    except InputError:
        return
    unit = pl.coalesce("group", "id")
    units = table.frame.group_by("taxon_id").agg(unit.n_unique())
    several = set(units.filter(pl.col("group") > 1)["taxon_id"])
    assert several <= by_class(table, split, "train").keys()


@settings(deadline=None)
@given(tables(grouped=True), WAYS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_groups_do_not_matter(
    table: PhotoTable, way: str, seed: int, chance: random.Random
) -> None:
    rows = list(range(len(table)))
    chance.shuffle(rows)
    renamed = pl.when(pl.col("group").is_not_null()).then(
        pl.col("group").str.reverse() + pl.lit(str(chance.random()))
    )
    other = table.with_frame(table.frame[rows].with_columns(group=renamed))

    def outcome(given: PhotoTable) -> object:
        try:
            split = split_photos(given, val=0.2, seed=seed, way=way)  # type: ignore[arg-type]
        except InputError as error:
            return str(error)
        return split.digest, parts_of(split)

    assert outcome(table) == outcome(other)


def test_another_seed_is_another_split() -> None:
    table = table_of(["a"] * 50 + ["b"] * 50)
    digests = {split_photos(table, seed=seed).digest for seed in range(5)}
    assert len(digests) == 5


def test_this_split_never_changes() -> None:
    """A split is part of every measurement: it has to be the same on every machine, in every version."""
    labels = ["ab"[n % 3 == 0] for n in range(30)]
    groups = [f"g{n // 3}" if n < 12 else None for n in range(30)]
    split = split_photos(table_of(labels, groups), val=0.2, test=0.1, seed=7)
    assert (sorted(split.val), sorted(split.test)) == (
        ["p0", "p1", "p19", "p2", "p21", "p23"],
        ["p10", "p11", "p9"],
    )


def test_photos_in_groups_are_drawn_as_often_as_others() -> None:
    """Half of the photos come in pairs: about half of the validation photos have to."""
    labels = ["a"] * 2000
    groups = [f"g{n // 2}" if n < 1000 else None for n in range(2000)]
    val = split_photos(table_of(labels, groups)).val
    in_pairs = sum(int(name[1:]) < 1000 for name in val)
    assert len(val) == 200
    assert 60 <= in_pairs <= 140


def test_a_group_may_span_classes() -> None:
    labels = ["a", "b"] * 30
    groups = [f"g{n // 4}" for n in range(60)]
    split = split_photos(table_of(labels, groups), val=0.2)
    assert by_class(table_of(labels, groups), split, "val") == {"a": 6, "b": 6}


def test_groups_come_as_near_to_the_quota_as_they_can() -> None:
    labels = ["a"] * 40
    groups = [f"g{n // 10}" for n in range(40)]  # four groups of ten, a quota of eight
    assert len(split_photos(table_of(labels, groups), val=0.2).val) == 10


def test_what_cannot_be_used_is_in_no_part() -> None:
    table = table_of(["a"] * 20 + [None]).reject(["p3"], "truncated")
    found = parts_of(split_photos(table))
    assert found.keys() == {f"p{n}" for n in range(20) if n != 3}


def test_the_source_s_own_test_photos_stay_test_and_take_their_group_along() -> None:
    labels = ["a"] * 40
    parts = ["test"] * 3 + ["train"] * 30 + ["val"] * 7
    groups = ["g"] + [None] * 9 + ["g"] + [None] * 29
    split = split_photos(table_of(labels, groups, parts))
    assert set(split.test) == {"p0", "p1", "p2", "p10"}
    assert (len(split.train), len(split.val)) == (32, 4)


def test_official_parts_are_kept() -> None:
    labels = ["a", "a", "b", None]
    split = split_photos(table_of(labels, None, ["train", "val", "test", "test"]), way="official")
    assert parts_of(split) == {"p0": "train", "p1": "val", "p2": "test"}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (["train", "train"], "no val part of its own"),
        ([None, None], "no train and no val part of its own"),
        (["train", "val", None], "says of 1 labelled photos no part"),
    ],
)
def test_official_parts_that_are_missing(parts: list[str | None], says: str) -> None:
    with pytest.raises(InputError, match=says):
        split_photos(table_of(["a"] * len(parts), None, parts), way="official")


def test_shares_and_tables_that_cannot_be_used() -> None:
    table = table_of(["a"] * 10)
    for val, test in ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.0)):
        with pytest.raises(InputError, match="Shares of"):
            split_photos(table, val=val, test=test)
    with pytest.raises(InputError, match="needs labelled photos"):
        split_photos(table_of([None]))
    with pytest.raises(InputError, match=r"1 labelled photos in 1 groups are too few"):
        split_photos(table_of(["a"]))
    with pytest.raises(InputError, match="too few for a val part"):
        split_photos(table_of(["a"] * 10, ["g"] * 10))
    with pytest.raises(InputError, match="no way to split called 'halves'"):
        split_photos(table, way="halves")  # type: ignore[arg-type]


def test_a_split_comes_back_from_disk(tmp_path: Path) -> None:
    split = split_photos(table_of(["a"] * 20), seed=3, way="random")
    split.write(tmp_path / "split.parquet")
    again = Split.read(tmp_path / "split.parquet")
    assert (again, again.seed, again.way) == (split, 3, "random")
    (tmp_path / "other.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=r"other\.parquet is not a split"):
        Split.read(tmp_path / "other.parquet")


def test_pruning_counts_training_photos() -> None:
    table = table_of(["b"] * 130 + ["a"] * 110 + ["c"] * 200)
    split = split_photos(table)
    in_train = by_class(table, split, "train")
    threshold = in_train["b"]
    assert in_train["a"] < threshold
    assert prune(split, table, min_photos=threshold) == ["b", "c"]
    assert prune(split, table, min_photos=in_train["a"]) == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"No class has 500 training photos \(the largest has 180\)"):
        prune(split, table, min_photos=500)
