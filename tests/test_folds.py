"""Photos in folds: none torn from its group, none measured twice, no class put aside as a whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fieldmark import models
from fieldmark.data import cross_validation
from fieldmark.data.split import split_photos
from fieldmark.data.subset import DataSplits, LabelledPhotos, read
from fieldmark.data.transforms import PAPER_CROP
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.training.automl import Budget, candidates, training_and_validation
from fieldmark.training.automl.finetune_search import FineTuningSearch
from fieldmark.training.automl.linear_probe_search import fit_candidate


def photos_of(drawn: list[tuple[str, int]]) -> LabelledPhotos:
    """Photos of these classes; those with a number from 5 on share a group with their like."""
    ids = tuple(f"p{at}" for at in range(len(drawn)))
    groups = tuple(None if number < 5 else f"{name}{number}" for name, number in drawn)
    return LabelledPhotos(ids, (), tuple(name for name, _ in drawn), groups, ("",) * len(drawn))


DRAWN = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), min_size=1, max_size=60)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=80))
def test_folds_tear_no_group_and_measure_every_photo_once(drawn: list[tuple[str, int]]) -> None:
    ids = tuple(f"p{at}" for at in range(len(drawn)))
    groups = tuple(None if number < 5 else f"{name}{number}" for name, number in drawn)
    taxa = tuple(name for name, _ in drawn)
    photos = LabelledPhotos(ids, (), taxa, groups, ("",) * len(drawn))
    parts = cross_validation.rounds(photos, seed=3)
    assert (np.sum([part.measure for part in parts], axis=0) == 1).all()
    for part in parts:
        assert ((part.learn.astype(int) + part.choose + part.measure) == 1).all()
        inside = {groups[at] for at in np.flatnonzero(part.measure)} - {None}
        assert not inside & {groups[at] for at in np.flatnonzero(~part.measure)}


@given(DRAWN)
def test_no_class_is_put_aside_as_a_whole(drawn: list[tuple[str, int]]) -> None:
    photos = photos_of(drawn)
    chosen = cross_validation.choosing(photos, 1, np.ones(len(photos), np.bool_))
    taxa = np.array(photos.taxon_ids)
    assert set(taxa[~chosen]) == set(taxa)
    groups = np.array([group or f"alone {at}" for at, group in enumerate(photos.groups)])
    assert not set(groups[chosen]) & set(groups[~chosen])
    for part in cross_validation.rounds(photos, seed=3):
        assert set(taxa[part.choose]) <= set(taxa[part.learn])


def test_a_class_with_one_photo_is_learned_in_the_end(insects: Path, tmp_path: Path) -> None:
    """Whatever fold its photo lies in: neither the last layer nor the network is closed to it."""
    shutil.copytree(insects, tmp_path / "photos")
    drawn = sorted(insects.rglob("1?.jpg"))
    for number in range(10):
        folder = tmp_path / "photos" / f"kind {number}"
        folder.mkdir()
        shutil.move(tmp_path / "photos" / drawn[2 * number].relative_to(insects), folder)
    network = models.load("shufflenet_v2_x0_5", weights="random")
    table = read(tmp_path / "photos", limit=None, seed=0)
    parts = DataSplits.of(table, split_photos(table, val=0.2, test=0.1, seed=0, way="stratified"))
    (candidate,) = candidates([network], FeatureExtractor(PAPER_CROP, engine="torch"), all_views=False)
    candidate.extractor.compute(parts.files, {network.architecture.name: network})
    photos = training_and_validation(parts)
    taxa, held = np.array(photos.taxon_ids), 0
    for seed in range(3):
        fold = FineTuningSearch(parts, seed, Budget(None)).fold
        assert set(taxa[~fold.measure]) == set(taxa)
        tenth = cross_validation.folds(photos, 10, seed + 1) == 0
        if set(taxa[~tenth]) < set(taxa):
            held += 1
            for kind in ("ridge", "ncm"):
                head = fit_candidate(candidate, parts, seed, kind)[0].head
                assert (np.linalg.norm(head.weight, axis=0) > 0).all()
    assert held  # else this shows nothing
