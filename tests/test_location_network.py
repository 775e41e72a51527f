"""The network of place and time: its gradients, what it learns, and that odd data do no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_about

from fieldmark.data.locations import Locations
from fieldmark.evaluation import location_network
from fieldmark.evaluation.location_network import NetworkPrior, fit
from fieldmark.evaluation.location_prior import FLOOR, LocationRule
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.training.prior_candidates import Photos, of_table
from fieldmark.utils import random
from fieldmark.utils.errors import ClassifierError


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location_network, "_STEPS", 100)


def drawn(places: int = 20, each: int = 6) -> tuple[Locations, np.ndarray, list[str]]:
    """Class 0 in the west, 1 in the east, 2 everywhere in summer."""
    rng = np.random.default_rng(0)
    rows, classes, names = [], [], []
    for place in range(places):
        latitude, longitude = rng.uniform(45, 50), rng.uniform(5, 15)
        for day in rng.integers(1, 366, each):
            rows.append((latitude, longitude, day))
            classes.append(2 if 150 < day < 240 else int(longitude > 10))
            names.append(f"p{place}")
    return Locations.of(rows), np.array(classes), names


def test_its_gradients_are_those_of_differences() -> None:
    at, class_N, _ = drawn(5)
    weights = location_network._begin(at, class_N, 3, random.generator(0, "x"))
    weights = {name: each.astype(np.float64) for name, each in weights.items()}
    x = location_network.inputs(weights, at).astype(np.float64)
    direction = np.random.default_rng(1).normal(size=(len(x), 3))

    def value(changed: dict[str, np.ndarray]) -> float:
        out = location_network._hidden(changed, x)[-1] @ changed["out.weight"] + changed["out.bias"]
        return float((out * direction).sum())

    found = location_network._gradients(weights, location_network._hidden(weights, x), direction)
    assert found.keys() == {name for name in weights if "." in name}
    for name, gradient in found.items():
        step = np.random.default_rng(2).normal(size=gradient.shape)
        up, down = ({**weights, name: weights[name] + s * 1e-6 * step} for s in (1, -1))
        assert (value(up) - value(down)) / 2e-6 == pytest.approx(float((gradient * step).sum()), rel=1e-3)


def test_it_learns_ranges_and_seasons() -> None:
    at, class_N, _ = drawn()
    found = fit(at, class_N, 3)
    west, east, summer, unknown = found.probabilities(
        Locations.of([(47, 6, 20), (47, 14, 20), (47, 6, 200), (np.nan, np.nan, 20)])
    )
    assert west.argmax() == 0
    assert east.argmax() == 1
    assert summer.argmax() == 2
    np.testing.assert_allclose(unknown, found.overall_C)
    assert min(each.min() for each in (west, east, summer) / found.overall_C) >= FLOOR * 0.99
    assert fit(at, class_N, 3).weights["out.weight"].tolist() == found.weights["out.weight"].tolist()


def test_the_date_line_and_the_poles_have_no_seam() -> None:
    rng = np.random.default_rng(0)
    rows = [(70 + rng.normal(), (180 + rng.normal(0, 3) + 180) % 360 - 180, 0) for _ in range(60)]
    found = fit(Locations.of(rows), np.arange(60) % 2, 2)
    one, other = found.probabilities(Locations.of([(70, 179.9999, 0), (70, -179.9999, 0)]))
    np.testing.assert_allclose(one, other, atol=1e-3)
    one, other = found.probabilities(Locations.of([(90, 0, 0), (90, 120, 0)]))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("photos", [1, 2, 5])
def test_few_photos_one_place_and_one_date_are_harmless(photos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known at a new place where all photos are of one: no ratio differs from 1."""
    monkeypatch.setattr(location_network, "_STEPS", 5)
    here = Locations.of([(47.0, 8.0, 100)] * photos)
    y_N = np.arange(photos) % 3
    given = Photos(here, y_N, ["a"] * photos, np.arange(photos), 4, by_place=False)
    kernel, network = given.candidates("auto", 0)
    for each in (kernel, network):
        np.testing.assert_allclose(each.new_NC, 0, atol=1e-6)
        np.testing.assert_allclose(each.known_NC, 0, atol=1e-6)
        assert np.isfinite(each.frequencies.log_ratios(Locations.of([(-90, 0, 0), (0, 180, 366)]))).all()
    at, class_N, _ = drawn(4)
    for each in of_table(at, class_N, 4, here, "auto", 0):
        assert each.new_NC.shape == (photos, 4)
        assert np.isfinite(each.new_NC).all()


def test_photos_are_judged_by_networks_that_did_not_see_their_place() -> None:
    """At each place lives a class of its own: that is known at the place, and nowhere else."""
    here = Locations.of([(47 + p, 8.0, day) for p in range(6) for day in range(1, 361, 30)])
    y_N, places = np.repeat(np.arange(6), 12), [f"p{p}" for p in np.repeat(np.arange(6), 12)]
    [found] = Photos(here, y_N, places, np.arange(72), 6, by_place=False).candidates("network", 0)
    rows = np.arange(72)
    assert found.known_NC[rows, y_N].mean() > 1
    assert found.new_NC[rows, y_N].mean() < 0.1
    [found] = Photos(here, y_N, places, np.arange(72), 6, by_place=True).candidates("network", 0)
    assert found.known_NC is found.new_NC


def test_a_classifier_keeps_its_network(classifier: Classifier, tmp_path: Path) -> None:
    at, class_N, _ = drawn(6)
    prior = LocationPrior(fit(at, class_N, 4), LocationRule(1.0, 1.0, {}))
    placed = replace(classifier, thresholds={}, ood=None, prior=prior)
    placed.save(tmp_path / "m")
    loaded = Classifier.load(tmp_path / "m")
    assert loaded.digest == placed.digest
    assert isinstance(loaded.prior.frequencies, NetworkPrior)
    np.testing.assert_array_equal(loaded.at(47, 6, 9).local.ratio_C, placed.at(47, 6, 9).local.ratio_C)
    some = placed.only(placed.classes[1:]).prior.frequencies
    assert some.classes == 3
    assert some.probabilities(at).sum(axis=1) == pytest.approx(1)
    about = json.loads((tmp_path / "m" / "classifier.json").read_text())
    about["taxonomy"].append({**about["taxonomy"][0], "id": "x"})
    for wrong in ({"smoothing": 0}, {"kind": "kernel"}):
        changed = {**about, "taxonomy": about["taxonomy"][:4], "prior": {**about["prior"], **wrong}}
        write_about(tmp_path / "m", changed)
        with pytest.raises(ClassifierError, match="damaged"):
            Classifier.load(tmp_path / "m")
