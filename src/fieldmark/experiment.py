"""What training and the study share: parts of a split with their labels, and their features."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fieldmark import __version__, extraction, names, progress, sources
from fieldmark.backbones import Backbone, engines
from fieldmark.crops import PhotoFile, Spool, Streamed
from fieldmark.errors import InputError
from fieldmark.evaluate import Evaluation
from fieldmark.extraction import Extraction, Job
from fieldmark.features import FeatureStore, Precision, Shelf
from fieldmark.finetune import Crops
from fieldmark.heads.base import LabelledFeatures
from fieldmark.photos import KEPT, PhotoTable
from fieldmark.places import Place
from fieldmark.preprocess import Preprocess
from fieldmark.sampling import order
from fieldmark.split import Part, Split

PAPER_CROP = Preprocess(size=224, fit="squash")
"""The paper's way: "resized to 224 x 224". The whole photo is seen, at the cost of its proportions."""


_ROOM = 8 / 7
"""The side of crops that random crops are cut from, as a multiple of the network's: 256 for 224."""


MOST_SCORES = 1 << 28
"""How many scores of a part are held at once: 1 GiB in float32."""
FEWEST = 64
"""So many photos are measured on, however many classes there are."""


@dataclass(frozen=True)
class Photos:
    """Labelled photos of one part of a split.

    Attributes:
        ids: their ids in the table.
        files: their digests and where they lie.
        taxon_ids: the label of each.
        groups: the group of each, None where it stands alone.
        supercategories: the supercategory of each, "" where it has none.
    """

    ids: tuple[str, ...]
    files: tuple[PhotoFile, ...]
    taxon_ids: tuple[str, ...]
    groups: tuple[str | None, ...]
    supercategories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep_N: npt.NDArray[np.bool_]) -> Photos:
        """Those photos for which `keep_N` is true."""
        kept = np.flatnonzero(keep_N)
        some = {each.name: getattr(self, each.name) for each in fields(self)}
        return Photos(**{name: tuple(all_[n] for n in kept) for name, all_ in some.items()})

    def some(self, count: int) -> Photos:
        """At most `count` of them, drawn by their ids; the order stays."""
        if len(self) <= count:
            return self
        keep_N = np.zeros(len(self), np.bool_)
        keep_N[order(self.ids, "some", 0)[:count]] = True
        return self.where(keep_N)

    def labels(self, classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """The number of each photo's class among `classes`, -1 where it is none of them; shape (N,)."""
        number = {taxon_id: index for index, taxon_id in enumerate(classes)}
        return np.array([number.get(taxon_id, -1) for taxon_id in self.taxon_ids], np.int64)

    def evaluation(self, scores_NC: npt.NDArray[np.float32], classes: Sequence[str]) -> Evaluation:
        """These photos with a classifier's scores for `classes`."""
        return Evaluation(
            scores_NC=scores_NC,
            labels_N=self.labels(classes),
            photo_ids=self.ids,
            classes=tuple(classes),
            groups=self.groups,
            supercategories=self.supercategories,
        )


def photos_of(table: PhotoTable, split: Split, part: Part) -> Photos:
    """The photos of one part of a split that can be used.

    Raises:
        InputError: the files of the photos were never looked at, so there is nothing to train on.
    """
    rows = split.rows(table, part).filter(pl.col("status") == KEPT)
    if rows["sha256"].null_count():
        raise InputError(
            f"{table.root} holds the annotations but not the photos of {rows['sha256'].null_count():,} "
            "labels: put the photos where the annotations say they are; counting alone works "
            "without them (`fieldmark stats`)."
        )
    taxa = table.taxonomy
    return Photos(
        ids=tuple(rows["id"]),
        files=tuple(
            PhotoFile(digest, table.file_of(path))
            for digest, path in rows.select("sha256", "path").iter_rows()
        ),
        taxon_ids=tuple(rows["taxon_id"]),
        groups=tuple(rows["group"]),
        supercategories=tuple(taxa[taxon_id].supercategory for taxon_id in rows["taxon_id"]),
    )


def read(photos: Path, *, limit: int | None, seed: int, accepted: Path | None = None) -> PhotoTable:
    """Photos in any layout, each looked at; with a limit, only so many of the labelled ones.

    With a table of `accepted` names, labels are called as it says (see `fieldmark.names`).

    Those are drawn by their ids before any file is opened, so that a small limit is quick.
    """
    table = names.read(accepted).apply(sources.read(photos, verify=False))
    ids = table.labelled["id"].to_list()
    if limit is not None and limit < len(ids):
        drawn = [ids[index] for index in order(ids, "limit", seed)[:limit]]
        table = table.with_frame(table.frame.filter(pl.col("id").is_in(drawn)))
    return sources.look(table)


@dataclass(frozen=True)
class SpooledCrops:
    """Decoded crops on disk, and which of them belongs to which photo."""

    spool: Spool
    rows: dict[str, int]

    def labelled(
        self, photos: Photos, classes: Sequence[str], *, also_unknown: bool = False
    ) -> Crops:
        """The crops of some photos with their labels.

        Photos that could not be decoded are left out, and, unless `also_unknown`, those of none of
        the classes as well.
        """
        labels = photos.labels(classes)
        keep = [
            number
            for number, photo in enumerate(photos.files)
            if (also_unknown or labels[number] >= 0)
            and self.rows[photo.sha256] not in self.spool.rejected
        ]
        return Crops(
            pixels=self.spool.crops,
            rows=np.array([self.rows[photos.files[number].sha256] for number in keep], np.int64),
            labels=labels[keep],
            ids=tuple(photos.ids[number] for number in keep),
        )


def _streamed(photos: Photos, classes: Sequence[str], crop: Preprocess) -> Crops:
    """The photos of the classes with their labels, decoded as they are asked for."""
    labels = photos.labels(classes)
    keep = np.flatnonzero(labels >= 0)
    return Crops(
        pixels=Streamed([photos.files[number] for number in keep], crop),
        rows=np.arange(len(keep)),
        labels=labels[keep],
        ids=tuple(photos.ids[number] for number in keep),
    )


@dataclass
class Bench:
    """Where features are computed and kept.

    Attributes:
        preprocess: makes the crop that all backbones share.
        store: where features are kept.
        engine: which engine runs the networks; `auto` measures which is fastest here.
        precision: in which features are kept.
        workers: threads that decode; None: one a core.
        extraction: what was computed so far, and which photos could not be read.
    """

    preprocess: Preprocess = PAPER_CROP
    store: FeatureStore = field(default_factory=FeatureStore)
    engine: str = "auto"
    precision: Precision = "float16"
    workers: int | None = None
    extraction: Extraction = field(default_factory=Extraction)
    _spools: dict[tuple[Preprocess, tuple[str, ...]], SpooledCrops] = field(
        default_factory=dict, repr=False
    )

    def shelf(self, backbone: Backbone) -> Shelf:
        """Where a backbone's features are kept."""
        facts = backbone.architecture
        crop = self.crop_for(backbone)
        return self.store.shelf(backbone.key, crop.key(), facts.feature_dim, self.precision)

    def crop_for(self, backbone: Backbone) -> Preprocess:
        """The shared crop, in the size that the network takes."""
        size = backbone.architecture.input_size
        resize = round(self.preprocess.resize * size / self.preprocess.size)
        return replace(self.preprocess, size=size, resize=resize)

    def compute(self, photos: Sequence[PhotoFile], backbones: dict[str, Backbone]) -> Iterator[str]:
        """Bring the features of all photos onto the shelves; gives each backbone's name when done.

        Backbones that share a crop share its decoding.
        """
        sizes: dict[Preprocess, list[str]] = {}
        for name, backbone in backbones.items():
            sizes.setdefault(self.crop_for(backbone), []).append(name)
        for crop, sharing in sizes.items():
            jobs = [self._job(name, backbones[name]) for name in sharing]
            yield from extraction.extract(photos, jobs, crop, self.extraction, workers=self.workers)

    def _job(self, name: str, backbone: Backbone) -> Job:
        return Job(
            name=name,
            shelf=self.shelf(backbone),
            giga_macs=backbone.architecture.giga_macs,
            engine=lambda: engines.engine(backbone, self.engine, batch=extraction.BATCH),
        )

    def _crop_of(self, backbone: Backbone, room: float) -> Preprocess:
        crop = self.crop_for(backbone)
        return replace(crop, size=round(room * crop.size), resize=round(room * crop.resize))

    def crops(
        self, backbone: Backbone, photos: Sequence[PhotoFile], *, room: float = 1.0
    ) -> SpooledCrops:
        """Photos decoded once, for training the network itself.

        Args:
            backbone: its crop is taken.
            photos: what to decode.
            room: the crop's side as a multiple of the network's, so that random crops of it are not
                much enlarged.
        """
        crop = self._crop_of(backbone, room)
        key = crop, tuple(photo.sha256 for photo in photos)
        if key not in self._spools:
            spool = Spool.empty(len(photos), crop.size)
            with progress.stage("decoding", len(photos)) as stage:
                for _ in spool.fill(photos, crop, workers=self.workers):
                    stage.advance()
            rows = {photo.sha256: number for number, photo in enumerate(photos)}
            self._spools[key] = SpooledCrops(spool, rows)
        return self._spools[key]

    def crops_to_tune(
        self,
        backbone: Backbone,
        train: Photos,
        val: Photos,
        classes: Sequence[str],
        *,
        random_crop: bool = True,
        stream: bool = False,
    ) -> tuple[Crops, Crops]:
        """Training photos, with room for random crops where there are any, and validation photos as they
        are measured.

        With `stream` no crop is kept: each is decoded when it is its turn.
        """
        room = _ROOM if random_crop else 1.0
        if stream:
            wide, exact = self._crop_of(backbone, room), self._crop_of(backbone, 1.0)
            return _streamed(train, classes, wide), _streamed(val, classes, exact)
        spooled = self.crops(backbone, train.files, room=room), self.crops(backbone, val.files)
        return spooled[0].labelled(train, classes), spooled[1].labelled(val, classes)

    def features(
        self, backbone: Backbone, photos: Photos, classes: Sequence[str]
    ) -> LabelledFeatures:
        """The kept features of some photos with their labels."""
        features = self.shelf(backbone).get([photo.sha256 for photo in photos.files])
        return LabelledFeatures(features, photos.labels(classes), photos.ids)

    def reject_unreadable(self, table: PhotoTable) -> PhotoTable:
        """The table with those photos rejected that could not be decoded when it came to it."""
        for digest, error in self.extraction.rejected.items():
            ids = table.frame.filter(pl.col("sha256") == digest)["id"].to_list()
            table = table.reject(ids, error.reason.value)
        return table


@dataclass(frozen=True)
class Parts:
    """The three parts of a split, and the classes to learn."""

    train: Photos
    val: Photos
    test: Photos
    classes: tuple[str, ...]

    @classmethod
    def of(cls, table: PhotoTable, split: Split, classes: Sequence[str] = ()) -> Parts:
        """Every class that has a training photo is learned, unless `classes` says which are.

        Raises:
            InputError: there are fewer than two classes to tell apart.
        """
        train = photos_of(table, split, "train")
        present = set(train.taxon_ids)
        found = tuple(taxon.id for taxon in table.taxonomy if taxon.id in present)
        classes = tuple(classes) or found
        if len(classes) < 2:
            raise InputError(
                f"{table.root} has training photos of {len(classes)} class: a classifier needs at "
                "least two; add photos of another species, or raise --limit."
            )
        return cls(train, photos_of(table, split, "val"), photos_of(table, split, "test"), classes)

    def measurable(self) -> Parts:
        """The same with as many photos to choose by and to measure on as scores are held for at once.

        That is all of them up to some thousand classes; with 100,000 it is 2,684 a part.
        """
        most = max(FEWEST, MOST_SCORES // len(self.classes))
        for part, name in ((self.val, "choose by"), (self.test, "measure on")):
            if len(part) > most:
                gib = 4 * len(part) * len(self.classes) / 2**30
                progress.say(
                    f"{most:,} of the {len(part):,} photos to {name} are drawn: the scores of all for "
                    f"{len(self.classes):,} classes would need {gib:.1f} GiB."
                )
        return replace(self, val=self.val.some(most), test=self.test.some(most))

    @cached_property
    def files(self) -> list[PhotoFile]:
        """All photos, whatever their part."""
        return [*self.train.files, *self.val.files, *self.test.files]

    def train_counts(self) -> dict[str, int]:
        """How many training photos each class has."""
        counts = dict.fromkeys(self.classes, 0)
        for taxon_id in self.train.taxon_ids:
            counts[taxon_id] += 1
        return counts


def cost_of(bench: Bench, backbone: Backbone, photos: int) -> float | None:
    """Seconds that the features of so many photos took, by the rate at which they were computed."""
    return extraction.seconds_for(bench.shelf(backbone), photos)


def weights_line(backbone: Backbone) -> str:
    """Where a backbone's weights came from, with the digest of the file; `random` for none."""
    account = backbone.account
    if not account.pretrained:
        return "random"
    share = "complete" if account.complete else f"{account.filled} of {account.total} tensors"
    return f"{Path(account.source).name} sha256:{account.digest} ({share})"


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    packages = ("numpy", "onnxruntime", "pillow", "simplejpeg", "timm", "torch", "torchvision")
    found = {name: metadata.version(name) for name in packages}
    return {"fieldmark": __version__, "python": platform.python_version(), **found}


def photo_finder(table: PhotoTable) -> Callable[[str], Place | None]:
    """Where the photo with an id lies, for the pictures of a page."""
    places = dict(table.frame.select("id", "path").iter_rows())
    return lambda photo_id: table.file_of(places[photo_id]) if photo_id in places else None
