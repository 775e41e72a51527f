"""Split: which photos train, which validate, which test; and the pruning of rare classes.

A split is a function of the photos' ids, labels and groups and of the seed; the order of the rows does
not matter. Photos of one group (a burst, an observation, a site) are never on two sides.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from fieldmark.data.photos import IS_HARD, IS_KEPT, PhotoTable, by_location
from fieldmark.utils import io
from fieldmark.utils.choices import SplitMethod
from fieldmark.utils.errors import InputError
from fieldmark.utils.random import hashes
from fieldmark.utils.typing import BoolArray, IntArray

Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = get_args(Part)
SCHEMA: dict[str, pl.DataType] = {"id": pl.String(), "part": pl.String()}
_METADATA_KEY = "fieldmark-split"


@dataclass(frozen=True, eq=False)
class Split:
    """Which part each photo is in.

    `frame` has a row a photo, `id` and `part` (train, val or test), sorted by id, without the photos in no
    part (rejected or unlabelled; a hard photo has one, so that the split is the same as without the
    check); `seed` and `way` are how it was drawn; the way `folds` trains on all photos but an official
    test part, and measures each by a head that did not see it.
    """

    frame: pl.DataFrame
    seed: int
    way: SplitMethod | Literal["folds"]

    def __post_init__(self) -> None:
        if self.frame.schema != pl.Schema(SCHEMA):
            raise ValueError("a split has the columns id and part")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Split) and self.frame.equals(other.frame)

    def __hash__(self) -> int:
        return hash(self.digest)

    def ids(self, part: Part) -> pl.Series:
        """The ids of the photos in one part, sorted."""
        return self.frame.filter(pl.col("part") == part)["id"]

    @property
    def train(self) -> pl.Series:
        """The ids of the training photos."""
        return self.ids("train")

    @property
    def val(self) -> pl.Series:
        """The ids of the validation photos."""
        return self.ids("val")

    @property
    def test(self) -> pl.Series:
        """The ids of the test photos, which neither training nor any choice uses."""
        return self.ids("test")

    @property
    def digest(self) -> str:
        """A digest of which photo is in which part: 64 hexadecimal digits."""
        return io.sha256(self.frame.write_csv().encode())

    def pooled(self) -> Split:
        """Return the split with the validation photos in the training part."""
        return Split(self.frame.with_columns(pl.col("part").replace("val", "train")), self.seed, "folds")

    def rows(self, table: PhotoTable, part: Part) -> pl.DataFrame:
        """The rows of `table` that one part uses, in the order of the table; test also uses hard photos."""
        used = IS_KEPT | IS_HARD if part == "test" else IS_KEPT
        return table.frame.filter(used & pl.col("id").is_in(self.ids(part).implode()))

    def write(self, path: Path) -> None:
        """Write the split as one Parquet file; seed and way go into its metadata."""
        about = json.dumps({"seed": self.seed, "way": self.way})
        io.write_table(path, self.frame, {_METADATA_KEY: about})

    @classmethod
    def read(cls, path: Path) -> Split:
        """Read what `write` wrote; `InputError` for any other file."""
        try:
            about = json.loads(pl.read_parquet_metadata(path)[_METADATA_KEY])
            return cls(pl.read_parquet(path), int(about["seed"]), about["way"])
        except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"{path} is not a split that fieldmark wrote ({error}): make it anew."
            ) from error


def split_photos(
    table: PhotoTable, *, val: float = 0.1, test: float = 0.0, seed: int = 0, way: SplitMethod = "stratified"
) -> Split:
    """Divide the labelled photos, kept or hard, into train, val and test.

    The source's own train and val parts are pooled and drawn from anew. Of N photos, train gets
    floor((1 - val - test) N), test floor(test N) but at least 1, val the rest: exactly where every photo
    stands alone, and as near as the groups allow where they do not. Photos that the source itself
    calls test, with the groups they belong to, stay test and are not counted in N.

    Args:
        table: the photos.
        val, test: the shares of the photos to validate and to test on, in [0, 1).
        seed: another seed draws another split.
        way: `stratified` gives every class its share (by largest remainders), and leaves in train at
            least one photo or group of each class that has two; `random` takes no heed of classes;
            `official` keeps the source's own parts, even across groups, without shares or seed;
            `location` is `stratified` with no location in two parts.

    Raises:
        InputError: the shares cannot be used, there are too few photos for them, or the source has
            no parts of its own.
    """
    rows = _labelled(by_location(table) if way == "location" else table)
    if way == "official":
        return Split(_official(rows, table), seed, way)
    if way not in (ways := get_args(SplitMethod)):
        raise InputError(f"There is no way to split called {way!r}: choose one of {', '.join(ways)}.")
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise InputError(
            f"Shares of {val:g} for val and {test:g} for test leave no training photos or no others: "
            "each has to be at least 0, and their sum between 0 and 1."
        )
    return Split(_draw(rows, val, test, seed, by_class=way != "random"), seed, way)


def undivided(table: PhotoTable, seed: int = 0) -> Split:
    """Put all labelled photos into train, but those that the source calls test, with their groups.

    Raises:
        InputError: there is none.
    """
    part = pl.when(_held_out()).then(pl.lit("test")).otherwise(pl.lit("train"))
    return Split(_labelled(table).with_columns(part=part).select("id", "part"), seed, "folds")


def _labelled(table: PhotoTable) -> pl.DataFrame:
    rows = table.measurable.select("id", "taxon_id", "group", "split").sort("id")
    if rows.is_empty():
        raise InputError(f"{table.root} has no usable photo with a label: a split needs labelled photos.")
    return rows


def prune(split: Split, table: PhotoTable, min_photos: int = 100) -> list[str]:
    """The taxa that have at least `min_photos` training photos, in the order of the taxonomy.

    Raises:
        InputError: no taxon has so many.
    """
    counts = split.rows(table, "train")["taxon_id"].value_counts(name="photos")
    enough = set(counts.filter(pl.col("photos") >= min_photos)["taxon_id"])
    if not enough:
        most = max(counts["photos"].to_list(), default=0)
        number = f"{min_photos:,} training photos (the largest has {most:,})"
        raise InputError(f"No class has {number}: prune at a lower number.")
    return [taxon.id for taxon in table.taxonomy if taxon.id in enough]


def _official(rows: pl.DataFrame, table: PhotoTable) -> pl.DataFrame:
    present = set(rows["split"].drop_nulls())
    if missing := [part for part in ("train", "val") if part not in present]:
        lacks = f"has no {' and no '.join(missing)} part of its own with labelled photos"
        raise InputError(f"{table.root} {lacks}: split it another way (stratified or random).")
    if unplaced := rows["split"].null_count():
        raise InputError(
            f"{table.root} says of {unplaced:,} labelled photos no part: name one for each, or split "
            "another way (stratified or random)."
        )
    return rows.select("id", part="split")


def _held_out() -> pl.Expr:
    """Whether the source calls a photo or another one of its group test."""
    held_out = pl.col("split").eq_missing(pl.lit("test"))
    held_out = held_out | pl.when(pl.col("group").is_not_null()).then(held_out.any().over("group"))
    return held_out.fill_null(False)


def _draw(rows: pl.DataFrame, val: float, test: float, seed: int, *, by_class: bool) -> pl.DataFrame:
    rows = rows.with_columns(held_out=_held_out())
    pool = rows.filter(~pl.col("held_out"))
    part = np.full(pool.height, "train", dtype=object)
    urn = _Urn(pool, seed, by_class=by_class)
    for name, size in _sizes(pool.height, val, test).items():
        if size:
            part[urn.draw(size)] = name
    drawn = pool.select("id").with_columns(part=pl.Series(part, dtype=pl.String))
    for name, share in {"train": 1, "val": val, "test": test}.items():
        if share and not (part == name).any():
            raise InputError(
                f"{pool.height:,} labelled photos in {urn.units:,} groups are too few for a {name} part "
                f"(val {val:g}, test {test:g}): add photos, or choose other shares."
            )
    kept = rows.filter(pl.col("held_out")).select("id", part=pl.lit("test"))
    return pl.concat([drawn, kept]).sort("id")


def _sizes(count: int, val: float, test: float) -> dict[str, int]:
    """Return the sizes; test is drawn first: it is then the same photos whatever the share of val is."""
    # Exact fractions of the decimals as they were written: 0.9 * 268,243 must not hang on rounding.
    val_share, test_share = Fraction(str(val)), Fraction(str(test))
    rest = count - floor(count * (1 - val_share - test_share))
    held = rest
    if val_share:
        held = min(rest, max(1, floor(count * test_share))) if test_share else 0
    return {"test": held, "val": rest - held}


class _Group(NamedTuple):
    """Two photos or more that stay together."""

    place: float  # uniform in [0, 1): a hash of the smallest id among its photos
    members: IntArray  # which rows
    classes: list[int]  # the classes of its photos, and how many photos of each
    sizes: list[int]


class _Urn:
    """Photos that are still in train; `draw` takes out a part of them, whole groups at a time."""

    def __init__(self, pool: pl.DataFrame, seed: int, *, by_class: bool) -> None:
        """Set up N photos, sorted by id, in C classes (one class where classes do not matter)."""
        label = pool["taxon_id"].rank("dense").to_numpy().astype(np.int64) - 1
        self.class_N: IntArray = label if by_class else np.zeros(pool.height, dtype=np.int64)
        self.classes = int(self.class_N.max(initial=-1)) + 1
        hash_N = hashes(pool["id"].to_list(), "split", seed)
        self.units, self.groups = _groups(pool["group"], hash_N, self.class_N)
        self.alone_N: BoolArray = np.ones(pool.height, dtype=bool)  # still in train, in no group
        for group in self.groups:
            self.alone_N[group.members] = False
        self.order_N = np.lexsort((hash_N, self.class_N))
        # Between classes with the same claim the one with the smallest hash goes first.
        self.tie_C = np.full(self.classes, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(self.tie_C, self.class_N, hash_N)
        # How many photos or groups each class still has in train; one with two of them keeps one.
        self.units_C = self._count(self.alone_N)
        for group in self.groups:
            self.units_C[group.classes] += 1
        self.guarded_C: BoolArray = self.units_C >= 2
        self.total_C = np.bincount(self.class_N, minlength=self.classes).astype(np.int64)
        self.reach = 0.0

    def _count(self, mask_N: BoolArray) -> IntArray:
        return np.bincount(self.class_N[mask_N], minlength=self.classes).astype(np.int64)

    def draw(self, size: int) -> IntArray:
        """Take out about `size` photos, exactly as many where photos alone can fill up to it."""
        quota_C = _largest_remainders(self.total_C, size, self.tie_C)
        self.reach += size / max(1, len(self.class_N))
        grouped = self._draw_groups(quota_C)
        want_C = quota_C - np.bincount(self.class_N[grouped], minlength=self.classes)
        alone = self._draw_alone(want_C, size - len(grouped))
        self.alone_N[alone] = False
        return np.concatenate([grouped, alone])

    def _draw_groups(self, quota_C: IntArray) -> IntArray:
        """Whole groups, in three rounds.

        The first takes its share of the groups, as far as they fit into the quotas. The others take more
        groups only where the photos that stand alone are too few to fill a quota: those that fit, then
        those that overshoot by less than what would be missing without them.
        """
        room, units = quota_C.tolist(), self.units_C.tolist()
        alone, guarded = self._count(self.alone_N).tolist(), self.guarded_C.tolist()
        taken: list[_Group] = []

        def take(groups: list[_Group], *, must_fit: bool, must_gain: bool) -> list[_Group]:
            """Go through the groups and take what may be taken; the others come back."""
            left = []
            for group in groups:
                pairs = list(zip(group.classes, group.sizes, strict=True))
                if (
                    (not must_fit or all(size <= room[c] for c, size in pairs))
                    and (not must_gain or sum(_gain(room[c], n, alone[c]) for c, n in pairs) > 0)
                    and all(units[c] > 1 for c in group.classes if guarded[c])
                ):
                    for c, size in pairs:
                        room[c] -= size
                        units[c] -= 1
                    taken.append(group)
                else:
                    left.append(group)
            return left

        reached = bisect_left(self.groups, self.reach, key=lambda group: group.place)
        left = take(self.groups[:reached], must_fit=True, must_gain=False) + self.groups[reached:]
        if any(r > a for r, a in zip(room, alone, strict=True)):
            left = take(left, must_fit=True, must_gain=True)
            left = take(left, must_fit=False, must_gain=True)
        self.groups = left
        self.units_C = np.array(units, dtype=np.int64)
        return np.concatenate([np.empty(0, np.int64), *(group.members for group in taken)])

    def _draw_alone(self, want_C: IntArray, size: int) -> IntArray:
        """Photos that stand alone: what each class wants, then evened out to `size` in all."""
        have_C = self._count(self.alone_N)
        spare_C = np.minimum(have_C, np.maximum(self.units_C - 1, 0))
        take_C = _even_out(np.clip(want_C, 0, spare_C), spare_C, want_C, size, self.tie_C)
        # The only photo of a class leaves train where nothing else can make up the number.
        single = np.flatnonzero(~self.guarded_C & (have_C > take_C))
        short = max(0, size - int(take_C.sum()))
        take_C[single[np.argsort(self.tie_C[single])][:short]] += 1
        self.units_C = self.units_C - take_C
        order = self.order_N[self.alone_N[self.order_N]]
        starts_C = np.cumsum(have_C) - have_C
        place = np.arange(len(order)) - starts_C[self.class_N[order]]
        chosen: IntArray = order[place < take_C[self.class_N[order]]]
        return chosen


def _gain(room: int, size: int, alone: int) -> int:
    """By how many photos a class nears its quota with a group of `size`; `alone` photos fill up the rest."""

    def missed(rest: int) -> int:
        return -rest if rest < 0 else max(rest - alone, 0)

    return missed(room) - missed(room - size)


def _groups(group: pl.Series, hash_N: npt.NDArray[np.uint64], class_N: IntArray) -> tuple[int, list[_Group]]:
    """How many units (groups, and photos in none) there are, and the groups of two photos and more.

    A group is known by the smallest id among its photos, not by what it is called.
    """
    frame = pl.DataFrame({"group": group, "hash": hash_N, "class": class_N}).with_row_index("row")
    shared = frame.filter(pl.col("group").is_not_null() & pl.col("group").is_duplicated())
    groups = shared.group_by("group", maintain_order=True).agg(pl.col("hash").first(), "row", "class")
    found = []
    for first_hash, rows, classes in groups.sort("hash").select("hash", "row", "class").iter_rows():
        distinct, sizes = zip(*sorted(Counter(classes).items()), strict=True)
        found.append(_Group(first_hash / 2**64, np.array(rows, np.int64), list(distinct), list(sizes)))
    return frame.height - shared.height + groups.height, found


def _largest_remainders(total_C: IntArray, size: int, tie_C: npt.NDArray[np.uint64]) -> IntArray:
    """Divide `size` in proportion to `total_C`, in whole numbers (Hamilton's method)."""
    count = int(total_C.sum())
    quota_C = total_C * size // count
    remainder_C = total_C * size % count
    first = np.lexsort((tie_C, -remainder_C))[: size - int(quota_C.sum())]
    quota_C[first] += 1
    return quota_C


def _even_out(
    take_C: IntArray, spare_C: IntArray, want_C: IntArray, size: int, tie_C: npt.NDArray[np.uint64]
) -> IntArray:
    """Move `take_C` within [0, spare_C] until it sums to `size`, the most deserving classes first."""
    take_C = take_C.copy()
    while gap := size - int(take_C.sum()):
        room_C = spare_C - take_C if gap > 0 else take_C
        able = np.flatnonzero(room_C > 0)
        if not len(able):
            break
        claim = (want_C - take_C)[able] * (1 if gap > 0 else -1)
        first = able[np.lexsort((tie_C[able], -claim))][: abs(gap)]
        step = np.minimum(room_C[first], max(1, abs(gap) // len(able)))
        take_C[first] += step if gap > 0 else -step
    return take_C
