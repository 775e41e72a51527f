"""Where and when: the prior of places and times, its choice in folds, its file, and what predictions say."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import write_about

from fieldmark.data import images, readers
from fieldmark.data.locations import Locations, day_of_year, location_of, locations_of
from fieldmark.data.readers.occurrences import read_occurrences
from fieldmark.data.taxonomy import Taxon
from fieldmark.evaluation.location_prior import FLOOR, KernelPrior, LocationRule, choose, distinct, measure
from fieldmark.inference import clips, inputs
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.location import FILE, LocationPrior
from fieldmark.inference.classifier.species_list import columns_of
from fieldmark.training import ExtendConfig, TrainConfig, extend, train
from fieldmark.utils.errors import ClassifierError, InputError

pytestmark = pytest.mark.usefixtures("one_cache")


HERE, THERE = (47.0, 8.0), (52.0, 13.5)


def kernel(days: float = 30.0) -> KernelPrior:
    """Class 0 lives here, class 1 there, class 2 at both in June; class 3 has no occurrence."""
    rows = [
        *((*HERE, 100, 0), (*HERE, 160, 0), (*THERE, 100, 1), (*THERE, 160, 1), (*HERE, 170, 2)),
        *((*THERE, 165, 2), (*HERE, 0, 0)),
    ]
    table = np.array(sorted(rows, key=lambda row: row[3]))
    return KernelPrior(Locations.of(table[:, :3]), table[:, 3].astype(np.int64), 4, 50.0, days)


PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 366))


@given(PLACES, st.sampled_from([10.0, 30.0, 1000.0]))
def test_a_prior_sums_to_1_makes_nothing_impossible_and_is_round(
    place: tuple[float, float, int], days: float
) -> None:
    prior, at = kernel(days), Locations.of([place])
    p_QC = prior.probabilities(at)
    assert p_QC.sum() == pytest.approx(1)
    assert (p_QC >= FLOOR * prior.overall_C * (1 - 1e-9)).all()
    assert p_QC[0, 3] == pytest.approx(prior.overall_C[3])  # nothing is known of it
    turned = Locations.of([(place[0], place[1] + 360, place[2])])
    np.testing.assert_allclose(prior.probabilities(turned), p_QC, rtol=1e-6)


def test_a_prior_knows_places_and_times_of_the_year() -> None:
    prior = kernel()
    [here, there, june, nowhere, unknown] = prior.probabilities(
        Locations.of([(*HERE, 100), (*THERE, 100), (*HERE, 168), (0.0, 0.0, 100), (math.nan, math.nan, 100)])
    )
    assert here[0] > 2 * prior.overall_C[0] * 0.7 > here[1]
    assert there[1] > there[0]
    assert june[2] > here[2]
    np.testing.assert_allclose(nowhere, prior.overall_C)  # too far from all to tell
    np.testing.assert_allclose(unknown, prior.overall_C)
    assert np.isfinite(prior.log_ratios(Locations.of([(math.nan, math.nan, 0)]))).all()


def test_the_year_wraps() -> None:
    prior = KernelPrior(Locations.of([(*HERE, 365), (*HERE, 180)]), np.array([0, 1]), 2, 50.0, 10.0)
    new_year, same = prior.probabilities(Locations.of([(*HERE, 2), (*HERE, 363)]))
    assert new_year[0] > 0.6
    np.testing.assert_allclose(new_year, same, rtol=0.05)


def test_occurrences_of_a_unit_are_left_out() -> None:
    prior = kernel()
    at, unit = Locations.of([(*HERE, 100)]), np.where(prior.locations.latitude_N == HERE[0], 0, 1)
    without = prior.probabilities(at, (np.array([0]), unit))
    np.testing.assert_allclose(without[0], prior.overall_C, rtol=1e-3)


def test_visits_count_once_and_too_many_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    at, class_N = Locations.of([(*THERE, 5), (*HERE, 5), (*HERE, 5), (*HERE, 6)]), np.array([1, 0, 0, 0])
    assert distinct(at, class_N).tolist() == [1, 3, 0]
    monkeypatch.setattr("fieldmark.evaluation.location_prior.MOST", 2)
    assert len(distinct(at, class_N)) == 2


def drawn(apart: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Locations, list[str]]:
    """Photos of two classes that look alike, at 40 places in two regions; each in its own, or in both."""
    rng = np.random.default_rng(seed)
    place_N = np.repeat(np.arange(40), 12)
    region_N = place_N % 2
    y_N = np.where(rng.random(480) < 0.92, region_N, 1 - region_N) if apart else rng.integers(0, 2, 480)
    centre = rng.normal(0, 0.3, (40, 2))
    rows = [
        (47 + 5 * (p % 2) + centre[p, 0], 8 + 5 * (p % 2) + centre[p, 1], day)
        for p, day in zip(place_N, rng.integers(1, 366, 480), strict=True)
    ]
    logits = 0.6 * np.eye(2)[y_N] + rng.normal(0, 0.6, (480, 2))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_p.astype(np.float32), y_N, Locations.of(rows), [f"p{p}" for p in place_N]


def ratios(y_N: np.ndarray, at: Locations, places: list[str]) -> np.ndarray:
    rows = distinct(at, y_N)
    found = KernelPrior.fit(at.where(rows), y_N[rows], 2, [places[row] for row in rows])
    unit_N = np.array([int(place[1:]) for place in places])
    return found.log_ratios(at, (unit_N, unit_N[rows]))


def test_a_prior_helps_where_ranges_differ_also_at_new_places() -> None:
    log_p, y, at, places = drawn(apart=True)
    ratio = ratios(y, at, places)
    rule = choose(log_p, y, ratio, places, ())
    assert rule.strength >= 0.5
    found = measure(log_p, y, ratio, ratio, places)
    assert found.error < found.without - 0.1
    assert found.paired.interval[1] < 0
    assert found.paired_loss.interval[1] < 0
    p = np.exp(rule.logits(log_p, ratio).astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    assert abs(p.max(axis=1).mean() - (p.argmax(axis=1) == y).mean()) < 0.04
    assert "species" in rule.thresholds


def test_a_prior_that_knows_nothing_is_off_or_a_tie() -> None:
    for seed in range(3):
        log_p, y, at, places = drawn(apart=False, seed=seed)
        ratio = ratios(y, at, places)
        assert choose(log_p, y, ratio, places, ()) == LocationRule(0.0)
        found = measure(log_p, y, ratio, ratio, places)
        assert found.paired.tie
        assert abs(found.paired_loss.value) < 0.01


def test_strength_0_changes_no_bit() -> None:
    log_p, _, at, _ = drawn(apart=True)
    assert LocationRule(0.0).logits(log_p, np.ones((len(at), 2), np.float32)) is log_p


# Where places come from


def exif_photo(gps: dict[int, Any], taken: str = "2023:06:30 12:00:00") -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(gps)
    exif.get_ifd(0x8769)[0x9003] = taken
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "green").save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_places_in_exif_data(tmp_path: Path) -> None:
    south = {1: "S", 2: (33.0, 30.0, 36.0), 3: "W", 4: (70.0, 15.0, 0.0)}
    found = images.exif(exif_photo(south))
    assert (found.latitude, found.longitude) == pytest.approx((-33.51, -70.25))
    zero, far = {**south, 2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, {**south, 2: (133.0, 0.0, 0.0)}
    for broken in ({}, {1: "N", 2: (47.0,)}, zero, far):
        assert images.exif(exif_photo(broken)).latitude is None
    path = tmp_path / "1.jpg"
    path.write_bytes(exif_photo(south))
    assert location_of(path, None, None, None) == pytest.approx((-33.51, -70.25, 181))
    assert location_of(path, 1.0, 2.0, "2023-01-02") == (1.0, 2.0, 2)
    assert math.isnan(location_of(tmp_path / "none.jpg", None, None, None)[0])


def test_days_of_the_year() -> None:
    for text in ("2023-03-01", "2023:03:01 10:00:00", "2023-03-01/2023-03-04", "2023-3-1T00:00Z"):
        assert day_of_year(text) == 60, text
    for text in (None, "", "2023", "2023-03", "2023-02-30", "March"):
        assert day_of_year(text) == 0, text


def test_places_in_tables(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(exif_photo({1: "N", 2: (1.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)}))
    (tmp_path / "b.jpg").write_bytes(exif_photo({}))
    path = tmp_path / "photos.csv"
    rows = "a.jpg,x,,,\nb.jpg,y,47.25,8.5,2023-01-05\n"
    path.write_text(f"file_name,label,latitude,longitude,taken\n{rows}")
    found, names = locations_of(readers.read(path), ["a.jpg", "b.jpg"])
    assert found.latitude_N.tolist() == [1, 47.25]
    assert found.day_N.tolist() == [181, 5]
    assert names == ["1.00,2.00", "47.25,8.50"]
    path.write_text("file_name,label,latitude,longitude\nb.jpg,y,97.25,8.5\n")
    with pytest.raises(InputError, match=r"latitude holds '97.25'"):
        readers.read(path)


def test_index_reads_times_and_places_from_exif_data(tmp_path: Path, run: Callable[..., Any]) -> None:
    """What the list says stays; photos without EXIF data stay unknown."""
    (tmp_path / "a.jpg").write_bytes(exif_photo({1: "N", 2: (1.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)}))
    Image.new("RGB", (32, 32), "red").save(tmp_path / "b.jpg")
    listed = tmp_path / "photos.csv"
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    rows = "a.jpg,x,,,\nb.jpg,y,,,\nc.jpg,x,47.25,8.5,2023-01-05\n"
    listed.write_text(f"file_name,label,latitude,longitude,taken\n{rows}")
    columns = ("taken", "latitude", "longitude")
    for verify, first in (
        ("--verify", ("2023-06-30T12:00:00Z", 1.0, 2.0)),
        ("--no-verify", (None, None, None)),
    ):
        out = tmp_path / f"{verify}.parquet"
        done = run("index", listed, "--out", out, verify)
        assert done.code == 0, done.err
        found = pl.read_parquet(out).sort("path").select(columns).rows()
        assert found == [first, (None, None, None), ("2023-01-05", 47.25, 8.5)]


TAXA = [Taxon("1", "Apis mellifera"), Taxon("2", "Danaus plexippus")]


def test_occurrences_of_gbif_and_inaturalist(tmp_path: Path) -> None:
    gbif = tmp_path / "gbif.csv"  # with tabs
    gbif.write_text(
        "gbifID\tspecies\tscientificName\tdecimalLatitude\tdecimalLongitude\teventDate\n"
        '1\tApis mellifera\tApis "mellifera L.\t47\t8\t2020-01-03T10:00\n'
        "2\t\tDanaus plexippus (Linnaeus, 1758)\t48\t9\t2020\n3\tUrsus arctos\tUrsus\t1\t1\t\n"
        "4\tApis mellifera\tApis\t\t\t\n"
    )
    inat = tmp_path / "inat.csv"
    inat.write_text(
        "id,observed_on,latitude,longitude,scientific_name\n1,2020-01-03,47,8,Apis mellifera\n"
        "2,,48,9,danaus plexippus\n"
    )
    parquet = tmp_path / "inat.parquet"
    pl.read_csv(inat).write_parquet(parquet)
    for path in (gbif, inat, parquet):
        at, class_N = read_occurrences(path, TAXA)
        assert at.latitude_N.tolist() == [47, 48]
        assert at.day_N.tolist() == [3, 0]
        assert class_N.tolist() == [0, 1]
    inat.write_text("latitude,longitude,scientific_name\n1,2,Homo sapiens\n")
    with pytest.raises(InputError, match="no occurrence of a label"):
        read_occurrences(inat, TAXA)
    inat.write_text("latitude,scientific_name\n1,Apis mellifera\n")
    with pytest.raises(InputError, match="no column longitude"):
        read_occurrences(inat, TAXA)


# In a classifier


@pytest.fixture
def placed(classifier: Classifier) -> Classifier:
    """The classifier of the four insects: the first lives here alone, the second there alone."""
    rule = LocationRule(1.0, 1.0, {})
    rows = np.repeat([[*HERE, 100], [*THERE, 100]], 50, axis=0)
    prior = KernelPrior(Locations.of(rows), np.repeat([0, 1], 50), len(classifier.taxa))
    return replace(classifier, thresholds={}, ood=None, prior=LocationPrior(prior, rule))


def test_a_classifier_at_a_place(
    placed: Classifier, draw: Callable[[int, int], bytes], tmp_path: Path
) -> None:
    photo = draw(0, 40)
    at_home, away = placed.at(*HERE, "2023-04-10"), placed.at(*THERE)
    p, q, r = (each.predict_proba(photo)[0] for each in (placed, at_home, away))
    assert q[0] > p[0] > r[0]
    assert q.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(
        q[0] / q[1] / (p[0] / p[1]), np.exp(at_home.local.ratio_C @ [1, -1, 0, 0]), rtol=1e-3
    )
    assert len({each.digest for each in (placed, at_home, away, replace(placed, prior=None))}) == 4
    # A photo of which the classifier cannot tell the first two: the place does, and the answer says so.
    p_C = np.array([0.3, 0.4, 0.2, 0.1], np.float32)
    assert placed.rank(p_C).best.taxon.id == placed.classes[1]
    found = at_home.rank(at_home.local.probabilities(p_C))
    assert found.best.taxon.id == placed.classes[0]
    assert f"by the photo alone {placed.taxa[1].name} would come first" in found.reason
    assert "by the photo" not in away.rank(away.local.probabilities(p_C)).reason
    some = placed.only(placed.classes[1:])
    assert some.prior.frequencies.classes == 3
    assert set(some.prior.frequencies.class_N) == {0}
    placed.save(tmp_path / "saved")
    loaded = Classifier.load(tmp_path / "saved")
    assert loaded.digest == placed.digest
    np.testing.assert_array_equal(loaded.at(*HERE, 100).local.ratio_C, placed.at(*HERE, 100).local.ratio_C)
    with pytest.raises(InputError, match="no place at 97"):
        placed.at(97, 8)
    with pytest.raises(InputError, match="'June' is no date"):
        placed.at(*HERE, "June")
    with pytest.raises(InputError, match="no prior"):
        replace(placed, prior=None).at(*HERE)


def test_a_damaged_prior_is_refused(placed: Classifier, tmp_path: Path) -> None:
    placed.save(tmp_path / "m")
    about = json.loads((tmp_path / "m" / "classifier.json").read_text())
    for name, value in {"strength": 7, "days": "x", "temperature": 0, "thresholds": None}.items():
        wrong = {**about, "prior": {**about["prior"], name: value}}
        write_about(tmp_path / "m", wrong)
        with pytest.raises(ClassifierError, match="damaged"):
            Classifier.load(tmp_path / "m")
    write_about(tmp_path / "m", about)
    (tmp_path / "m" / FILE).write_bytes(b"other")
    with pytest.raises(ClassifierError, match=FILE):
        Classifier.load(tmp_path / "m")


def test_each_photo_is_predicted_for_its_own_place(placed: Classifier, insects: Path) -> None:
    path = insects / "Apis mellifera" / "00.jpg"
    items = [
        inputs.InputPhoto("1", path, latitude=HERE[0], longitude=HERE[1], taken="2023-04-10"),
        inputs.InputPhoto("2", path, latitude=THERE[0], longitude=THERE[1]),
        inputs.InputPhoto("3", path),
    ]
    here, there, nowhere = (each.scores for each in clips.predict(placed, items))
    assert here[0] > nowhere[0] > there[0]
    *_, plain = clips.predict(replace(placed, prior=None), items)
    np.testing.assert_array_equal(nowhere, plain.scores)  # no place: not a bit differs
    for one, output in ((placed.at(*HERE, "2023-04-10"), here), (replace(placed, prior=None), nowhere)):
        for each in clips.predict(one, items):
            np.testing.assert_allclose(each.scores, output, rtol=1e-4)


def test_options_that_do_not_go_together(run: Callable[..., Any], model: Path, insects: Path) -> None:
    for options, said in {
        ("--date", "2023-01-01"): "without a place",
        ("--place", "here"): "LATITUDE,LONGITUDE",
        ("--place", "47,8"): "no prior of places",
        ("--no-prior", "--place", "47,8"): "leave them out",
    }.items():
        done = run("predict", str(model), str(insects), *options)
        assert done.code == 2
        assert said in done.err.splitlines()[-1]
    done = run("train", str(insects), "--out", "x", "--prior", "own", "--holdout")
    assert "folds" in done.err
    done = run("train", str(insects), "--out", "x", "--prior", "nowhere.csv")
    assert "nowhere.csv is no file" in done.err


def test_a_prior_is_trained_with_the_classifier(insects: Path, tmp_path: Path) -> None:
    """Two classes look alike to random labels of the photos: their places tell them apart."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        label = number % 4
        north = (label + (number // 4)) % 2  # which of the two labels of a look: the place decides
        name = ("Apis mellifera", "Bombus terrestris")[label % 2]
        file = insects / name / f"{number // 4:02}.jpg"
        place = rng.normal([47 + 5 * north, 8 + 5 * north], 0.2)
        rows.append((f"{file}", f"{name} {'north' if north else 'south'}", *place, "2023-05-01"))
    frame = pl.DataFrame(rows, schema=["file_name", "label", "latitude", "longitude", "taken"], orient="row")
    config = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch", prior="own")
    found = train(frame, replace(config, groups="none"), out=tmp_path / "model")
    about = found.classifier.provenance["prior"]
    assert about["strength"] == found.classifier.prior.rule.strength > 0
    assert about["measured"]["new places"]["paired_loss"]["value"] < -0.1
    assert Classifier.load(tmp_path / "model").digest == found.classifier.digest
    written = json.loads((tmp_path / "model" / "evaluation.json").read_text())
    assert written["prior"] == {key: about[key] for key in ("source", "strength", "measured")}
    assert written["top1_error"] == about["measured"]["new places"]["without"]  # the headline is without it
    page = (tmp_path / "model" / "report.html").read_text()
    assert "All other errors on this page are without it" in page
    assert (
        '<th scope="row">new places</th>'
        in page.partition('<section id="prior">')[2].partition("</section>")[0]
    )
    # It is learned anew where the classifier grows, also from the new photos, or left out.
    new = tmp_path / "new.csv"
    places = "".join(f"{insects}/Bombus terrestris/{n}.jpg,Bombus terrestris north,52,13\n" for n in (13, 14))
    new.write_text(f"file_name,label,latitude,longitude\n{places}")
    grown = extend(tmp_path / "model", new, ExtendConfig(engine="torch"), out=tmp_path / "grown")
    assert grown.classifier.prior.rule.strength > 0
    assert grown.classifier.provenance["prior"]["occurrences"] > about["occurrences"]
    assert grown.summary.prior.source == "own"
    without = ExtendConfig(engine="torch", prior="none")
    assert extend(tmp_path / "model", new, without, out=tmp_path / "without").classifier.prior is None
    with pytest.raises(InputError, match=r"gone\.csv, which is no file"):
        extend(tmp_path / "model", new, ExtendConfig(prior="gone.csv"), out=tmp_path / "x")
    table = tmp_path / "occurrences.csv"
    frame.rename({"label": "species"}).write_csv(table)
    found = train(frame, replace(config, groups="none", prior=table))
    assert found.classifier.prior.rule.strength > 0
    assert list(found.classifier.provenance["prior"]["measured"]) == ["new places"]
    with pytest.raises(InputError, match="Only 0 photos have a place"):
        train(insects, config)


def test_higher_taxa_and_unknown_names_among_those_allowed(caplog: pytest.LogCaptureFixture) -> None:
    taxa = [
        Taxon("1", "Apis mellifera", ranks={"class": "Insecta", "genus": "Apis"}),
        Taxon("2", "Danaus plexippus", ranks={"class": "Insecta"}),
        Taxon("3", "Parus major", ranks={"class": "Aves"}),
    ]
    assert columns_of(taxa, ["insecta"]) == [0, 1]
    assert columns_of(taxa, ["Apis", "Aves"]) == [0, 2]
    assert columns_of(taxa, ["Insecta", "unicorn"]) == [0, 1]
    assert "'unicorn'" in caplog.text
    with pytest.raises(InputError, match="'unicorn'"):
        columns_of(taxa, ["unicorn"])
