"""What every candidate of `--quality best` must do: end in a classifier that, read back, predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fieldmark import models
from fieldmark.data.split import split_photos
from fieldmark.data.subset import DataSplits, read
from fieldmark.data.taxonomy import Taxonomy
from fieldmark.data.transforms import PAPER_CROP
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.inference.classifier import Classifier, Member, Network
from fieldmark.training.automl import (
    Budget,
    Candidate,
    TrialResult,
    candidates,
    finetune_search,
    linear_probe_search,
    training_and_validation,
)

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture(scope="module")
def given(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Candidate, DataSplits, Taxonomy]:
    """A small network with random weights, and the insects with their features kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        table = read(insects, limit=None, seed=0)
        parts = DataSplits.of(table, split_photos(table, val=0.2, test=0.2, seed=0, way="stratified"))
        store = FeatureStore(tmp_path_factory.mktemp("features"))
        extractor = FeatureExtractor(replace(PAPER_CROP), store=store, engine="torch")
        network = models.load("shufflenet_v2_x0_5", weights="random")
        (candidate,) = candidates([network], extractor, all_views=False)
        candidate.extractor.compute(parts.files, {"shufflenet_v2_x0_5": network})
    return candidate, parts, table.taxonomy.only(parts.classes)


def predicts(done: TrialResult, taxonomy: Taxonomy, insects: Path, folder: Path) -> None:
    """As a classifier, written and read, it names photos as it was measured."""
    assert 0 <= done.error <= 1
    assert np.isfinite(done.loss)
    assert np.isfinite(done.logits_NC).all()
    seen = done.candidate
    member = Member(Network.of(seen.backbone), seen.view, done.head, done.temperature)
    Classifier((member,), taxonomy).save(folder)
    photos = [insects / "Apis mellifera" / "00.jpg", insects / "Vanessa atalanta" / "03.jpg"]
    photos = [each for each in photos if each.exists()]
    for one in Classifier.load(folder).predict(photos):
        assert {answer.taxon.id for answer in one.answers} <= {taxon.id for taxon in taxonomy}
        assert sum(answer.score for answer in one.answers) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", linear_probe_search.NOTES)
def test_last_layers(kind: str, given, insects: Path, tmp_path: Path) -> None:
    candidate, parts, taxonomy = given
    done, seconds = linear_probe_search.fit_candidate(candidate, parts, 0, kind)
    assert seconds > 0
    assert done.rows_N is None
    assert done.logits_NC.shape == (len(parts.train) + len(parts.val), 4)
    assert done.error <= 0.25  # stripes of four colours
    predicts(done, taxonomy, insects, tmp_path / "m")
    again, kept = linear_probe_search.fit_candidate(candidate, parts, 0, kind)
    assert kept == seconds
    np.testing.assert_array_equal(again.head.weight, done.head.weight)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch is enough."""
    monkeypatch.setattr(finetune_search, "EPOCHS", 1)
    monkeypatch.setattr(finetune_search, "FEWEST", 1)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("transfer", finetune_search.NOTES)
def test_trained_networks(
    transfer: str, given, insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, parts, taxonomy = given
    monkeypatch.setattr(finetune_search, "NOTES", {transfer: finetune_search.NOTES[transfer]})
    doing = finetune_search.FineTuningSearch(parts, 0, Budget())
    doing.try_all([candidate])
    (done,) = doing.results
    assert not doing.skipped
    assert done.name.endswith("trained")
    assert done.candidate.backbone.key != candidate.backbone.key
    assert done.rows_N is not None
    photos = training_and_validation(parts)
    held = {photos.ids[n] for n in np.flatnonzero(done.rows_N)}
    (train, _) = finetune_search._FineTuningRun(doing, candidate, transfer).crops
    assert held.isdisjoint(train.ids)
    assert len(done.logits_NC) == len(held)
    predicts(done, taxonomy, insects, tmp_path / "m")
