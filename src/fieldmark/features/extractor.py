"""Compute features of photos and cache them in the feature store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fieldmark.data.loader import CachedCrops, CropCache, LabelledCrops, streamed_crops
from fieldmark.data.photos import PhotoFile
from fieldmark.data.subset import LabelledPhotos
from fieldmark.data.transforms import FITS, Preprocess, ResizeMode
from fieldmark.features import extraction
from fieldmark.features.cache import FeatureCache, FeatureDtype, FeatureStore
from fieldmark.features.extraction import BeyondFloat16, Extraction, Job
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.models import Architecture, Backbone, runtime
from fieldmark.utils.choices import DecodingTier
from fieldmark.utils.logging import progress_bar

_ROOM = 8 / 7
"""The side of crops for random cropping, as a multiple of the network's: 256 for 224."""


@dataclass(frozen=True)
class View:
    """How photos become crops, beside what is as each network was published (`Architecture.preprocess`).

    Attributes:
        fit: as in `Preprocess`; None: as the network was published.
        tier, flip: as in `Preprocess`.
    """

    fit: ResizeMode | None = None
    tier: DecodingTier = "exact"
    flip: bool = False

    def of(self, facts: Architecture) -> Preprocess:
        """Return the view of one network, in the proportions of its published side."""
        how = facts.preprocess
        return replace(how, fit=self.fit or how.fit, tier=self.tier, flip=self.flip)


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes the features of photos with frozen networks, and reads them back.

    Attributes:
        preprocess: makes the crops: one for all networks, in the size of each; or a `View`.
        store: where features are kept.
        engine: which engine runs the networks; `auto` measures which is fastest here.
        dtype: the data type in which features are kept.
        workers: decoding threads; None: one a core.
    """

    preprocess: Preprocess | View = View()
    store: FeatureStore = field(default_factory=FeatureStore)
    engine: str = "auto"
    dtype: FeatureDtype = "float16"
    workers: int | None = None
    # Decoded crops that several trainings of one process share; not part of the value.
    _crops: dict[tuple[Preprocess, tuple[str, ...]], CachedCrops] = field(
        default_factory=dict, repr=False, compare=False
    )

    def with_view(self, preprocess: Preprocess | View) -> FeatureExtractor:
        """Return the same extractor for another view of the photos."""
        return replace(self, preprocess=preprocess, _crops={})

    def cache(self, backbone: Backbone) -> FeatureCache:
        """Return the cache of one backbone's features of this view."""
        facts = backbone.architecture
        crop = self.crop_for(backbone)
        cache = self.store.cache(backbone.key, crop.key(), facts.feature_dim, self.dtype)
        if cache.beyond_float16:
            return self.store.cache(backbone.key, crop.key(), facts.feature_dim, "float32")
        return cache

    def crop_for(self, backbone: Backbone) -> Preprocess:
        """Return the crop that the network is given, in the size that it takes."""
        facts, how = backbone.architecture, self.preprocess
        how = how.of(facts) if isinstance(how, View) else how
        return replace(how, size=facts.input_size, resize=round(how.resize * facts.input_size / how.size))

    def compute(
        self,
        photos: Sequence[PhotoFile],
        backbones: dict[str, Backbone],
        *,
        on_complete: Callable[[str, Extraction], None] = lambda _name, _so_far: None,
    ) -> Extraction:
        """Compute and keep the features of all photos that are missing.

        Backbones that share a crop share its decoding.

        Args:
            photos: the photos; one that occurs twice is computed once.
            backbones: the networks by their names.
            on_complete: called with a network's name and the extraction so far as soon as all of its
                features are there.

        Returns:
            What was computed, and which photos could not be decoded.
        """
        result = Extraction()
        sizes: dict[Preprocess, list[str]] = {}
        for name, backbone in backbones.items():
            sizes.setdefault(self.crop_for(backbone), []).append(name)
        complete: set[str] = set()

        def completed(name: str, so_far: Extraction) -> None:
            if name not in complete:
                complete.add(name)
                on_complete(name, so_far)

        waiting = list(sizes.items())
        while waiting:
            crop, sharing = waiting[0]
            jobs = [self._job(name, backbones[name]) for name in sharing]
            with suppress(BeyondFloat16):  # begun again in float32
                extraction.extract(photos, jobs, crop, result, on_complete=completed, workers=self.workers)
                del waiting[0]
        return result

    def _job(self, name: str, backbone: Backbone) -> Job:
        return Job(
            name=name,
            cache=self.cache(backbone),
            giga_macs=backbone.architecture.giga_macs,
            engine=lambda: runtime.engine(backbone, self.engine, batch=extraction.BATCH),
        )

    def _crop_of(self, backbone: Backbone, room: float) -> Preprocess:
        crop = self.crop_for(backbone)
        return replace(crop, size=round(room * crop.size), resize=round(room * crop.resize))

    def crops(self, backbone: Backbone, photos: Sequence[PhotoFile], *, room: float = 1.0) -> CachedCrops:
        """Decode photos once, for fine-tuning.

        Args:
            backbone: defines the crop.
            photos: what to decode.
            room: the crop's side as a multiple of the network's, for random crops of it.
        """
        crop = self._crop_of(backbone, room)
        key = crop, tuple(photo.sha256 for photo in photos)
        if key not in self._crops:
            crop_cache = CropCache.empty(len(photos), crop.size)
            with progress_bar("decoding", len(photos)) as stage:
                for _ in crop_cache.fill(photos, crop, workers=self.workers):
                    stage.advance()
            rows = {photo.sha256: number for number, photo in enumerate(photos)}
            self._crops[key] = CachedCrops(crop_cache, rows)
        return self._crops[key]

    def finetuning_crops(
        self,
        backbone: Backbone,
        train: LabelledPhotos,
        val: LabelledPhotos,
        classes: Sequence[str],
        *,
        random_crop: bool = True,
        stream: bool = False,
    ) -> tuple[LabelledCrops, LabelledCrops]:
        """Return crops of the training photos, larger for random crops, and of the validation photos.

        With `stream` crops are decoded when they are needed.
        """
        room = _ROOM if random_crop else 1.0
        if stream:
            wide, exact = self._crop_of(backbone, room), self._crop_of(backbone, 1.0)
            return streamed_crops(train, classes, wide), streamed_crops(val, classes, exact)
        train_crops, val_crops = (
            self.crops(backbone, train.files, room=room),
            self.crops(backbone, val.files),
        )
        return train_crops.labelled(train, classes), val_crops.labelled(val, classes)

    def features(
        self, backbone: Backbone, photos: LabelledPhotos, classes: Sequence[str]
    ) -> LabelledFeatures:
        """Return the cached features of some photos with their labels."""
        features = self.cache(backbone).get([photo.sha256 for photo in photos.files])
        return LabelledFeatures(features, photos.labels(classes), photos.ids)


def extractor_of(config: Any) -> FeatureExtractor:
    """Return the extractor of a configuration with the fields `crop`, `tier` and `engine`."""
    return FeatureExtractor(View(FITS.get(config.crop), config.tier), engine=config.engine)


def cost_of(extractor: FeatureExtractor, backbone: Backbone, photos: int) -> float | None:
    """Return the cost of the features of so many photos in seconds, by the measured rate."""
    return extraction.seconds_for(extractor.cache(backbone), photos)
