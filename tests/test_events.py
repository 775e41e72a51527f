"""Events: which photos belong to one, how their answers are combined, and what is written of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.detections import Detection, Detections
from fieldmark.data.events import Shot, number_events, read_clocks, seconds_of, shifted
from fieldmark.data.storage.places import Box
from fieldmark.evaluation import events
from fieldmark.evaluation.events import EventRule, choose, combined
from fieldmark.inference import checkpoint, inputs, predictor
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.events import event_records
from fieldmark.inference.record import Record, to_record
from fieldmark.utils.errors import InputError


def test_times() -> None:
    assert seconds_of("2020-01-01T00:01:00Z") == 1577836860
    for text in ("2020-01-01 00:01:00", "2020:01:01 00:01:00", "2020-01-01T01:01+01:00"):
        assert seconds_of(text) == 1577836860, text
    for text in (None, "", "2020-01-01", "2020-06-31T00:00:00Z", "yesterday"):
        assert seconds_of(text) is None, text
    assert shifted("2020-01-01T23:59:30Z", 45) == "2020-01-02T00:00:15Z"
    assert shifted("2020-01-01", 45) == "2020-01-01"


def test_photos_of_one_place_without_a_long_gap_are_an_event() -> None:
    def shot(seconds: int, place: str = "a", sequence: str | None = None) -> Shot:
        return Shot(place, f"2020-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}Z", sequence)

    shots = [shot(0), shot(50), shot(0, "b"), shot(170), shot(105), Shot("a"), Shot("a"), shot(9, "a", "s")]
    assert number_events(shots) == [0, 0, 1, 2, 0, 3, 4, 5]
    assert number_events(shots, gap=70) == [0, 0, 1, 0, 0, 2, 3, 4]
    assert number_events([]) == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 500)), max_size=30), st.integers(1, 100))
def test_events_are_stretches_of_time(rows: Sequence[tuple[str, int]], gap: int) -> None:
    """Two photos of a place that follow each other are of one event exactly where no gap is between them."""
    shots = [Shot(place, shifted("2020-01-01T00:00:00Z", second)) for place, second in rows]
    found = number_events(shots, gap)
    for place in "ab":
        own = sorted(
            (second, event) for (there, second), event in zip(rows, found, strict=True) if there == place
        )
        for (first, one), (then, other) in pairwise(own):
            assert (one == other) == (then - first <= gap)


def test_clocks(tmp_path: Path) -> None:
    path = tmp_path / "clocks.csv"
    path.write_text("deployment,seconds\na,3600\nb,-1.5\n")
    assert read_clocks(path) == {"a": 3600, "b": -1.5}
    path.write_text("deployment,seconds\na,an hour\n")
    with pytest.raises(InputError, match="no number"):
        read_clocks(path)
    for text, said in (("a,nan\n", "more than 100 years"), ("a,1\na,1\na,2\n", "'a' twice")):
        path.write_text(f"deployment,seconds\n{text}")
        with pytest.raises(InputError, match=said):
            read_clocks(path)
    photos = [inputs.InputPhoto(f"{place}/1.jpg", Path("x")) for place in "ab"]
    assert [photo.late for photo in inputs.at_clocks(photos, {"b": -1.5})] == [0, -1.5]
    with pytest.raises(InputError, match="'c' of the clocks"):
        inputs.at_clocks(photos, {"c": 1})
    photos = [inputs.InputPhoto(f"{place}/1.jpg", Path("x")) for place in ("x/a", "x/ba", "y/b", "z/b")]
    assert [photo.late for photo in inputs.at_clocks(photos, {"a": 9, "y/b": 1})] == [9, 0, 1, 0]
    with pytest.raises(InputError, match=r"'b' of the clocks is 2 places \(y/b, z/b\)"):
        inputs.at_clocks(photos, {"b": 1})


@pytest.mark.parametrize("way", ["mean", "product", "maximum", "confidence"])
def test_ways_to_combine(way: events.Way) -> None:
    p_NC = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    found = np.exp(combined(np.log(p_NC).astype(np.float32), np.array([1, 1, 0]), way))
    first = {
        "mean": 0.65,
        "product": 0.9 * 0.4 / (0.9 * 0.4 + 0.1 * 0.6),
        "maximum": 0.9 / 1.5,
        "confidence": (0.81 * 0.9 + 0.36 * 0.4) / (0.81 + 0.36),
    }[way]
    np.testing.assert_allclose(found, [[0.2, 0.8], [first, 1 - first]], rtol=1e-5)


def draw(alike: float, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities, labels and events of 4 photos each; how alike the noise of an event's photos is."""
    rng = np.random.default_rng(seed)
    y_E = rng.integers(0, 3, count)
    noise = alike * rng.normal(size=(count, 1, 3)) + np.sqrt(1 - alike**2) * rng.normal(size=(count, 4, 3))
    logits = 1.5 * np.eye(3)[y_E][:, None] + noise
    log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    return log_p.reshape(-1, 3).astype(np.float32), np.repeat(y_E, 4), np.repeat(np.arange(count), 4)


def test_independent_photos_are_multiplied_and_the_result_is_calibrated() -> None:
    found = choose(*draw(0.0), levels=())
    assert found is not None
    assert found.rule.way == "product"
    assert found.error < 0.6 * found.photo_error
    assert not found.paired.tie
    log_p, y, event = draw(0.0, seed=1)
    p_EC = found.rule.probabilities(log_p, event)
    right = p_EC.argmax(axis=1) == y[::4]
    assert abs(p_EC.max(axis=1).mean() - right.mean()) < 0.03


def test_photos_that_are_all_alike_win_nothing_and_are_not_made_sure() -> None:
    found = choose(*draw(1.0), levels=())
    assert found is not None
    assert found.paired.tie
    log_p, y, event = draw(1.0, seed=1)
    p_EC = found.rule.probabilities(log_p, event)
    assert abs(p_EC.max(axis=1).mean() - (p_EC.argmax(axis=1) == y[::4]).mean()) < 0.04


def test_few_events_choose_nothing_and_mixed_ones_are_left_out() -> None:
    log_p, y, event = draw(0.0, 19)
    assert choose(log_p, y, event, levels=()) is None
    log_p, y, event = draw(0.0, 40)
    y[0] = (y[0] + 1) % 3
    y[4:8] = -1
    found = choose(log_p, y, event, levels=())
    assert found is not None
    assert found.events == 38


# Predictions


def rows(classifier: Classifier, *answers: dict[str, object]) -> list[Record]:
    """Records of boxes; each answer has a photo, a time, and the class that it is sure of, or a kind."""
    found = []
    for number, each in enumerate(answers):
        kind = str(each.get("kind", "animal"))
        box = None if kind == "blank" else Detection(Box(0.01 * number, 0, 0.1, 0.1), "animal", 0.9)
        photo = inputs.InputPhoto(
            f"site/{each['photo']}.jpg",
            Path("x"),
            taken=f"2020-01-01T00:00:{each['at']:02d}Z",
            detection=box,
            kind=kind,  # type: ignore[arg-type]
        )
        if kind != "animal":
            found.append(to_record(predictor.PhotoResult(photo, None), 2, wide=True))
            continue
        p_C = np.full(len(classifier.taxa), 0.02 / (len(classifier.taxa) - 1), np.float32)
        p_C[int(str(each["shows"]))] = 0.98
        result = predictor.PhotoResult(photo, classifier.rank(p_C, 5), scores=p_C)
        found.append(to_record(result, len(p_C), wide=True))
    return found


def test_an_event_has_one_answer_its_times_and_a_number_of_animals(classifier: Classifier) -> None:
    plain = replace(classifier, thresholds={}, ood=None)
    found = list(
        event_records(
            rows(
                plain,
                {"photo": 2, "at": 5, "shows": 0},
                {"photo": 2, "at": 5, "shows": 0},
                {"photo": 1, "at": 0, "shows": 0},
                {"photo": 3, "at": 9, "kind": "blank"},
                {"photo": 4, "at": 10, "shows": 1},
                {"photo": 5, "at": 11, "shows": 1},
            ),
            plain,
        )
    )
    [event] = found
    assert event["name"] == plain.taxa[0].name
    about = event["event"]
    assert about["photos"] == [f"site/{n}.jpg" for n in (1, 2, 3, 4, 5)]
    assert (about["start"], about["end"]) == ("2020-01-01T00:00:00Z", "2020-01-01T00:00:11Z")
    assert about["count"] == 2
    assert about["also"] == [{"name": plain.taxa[1].name, "count": 1}]
    placed = [
        *rows(plain, {"photo": 1, "at": 0, "kind": "blank"}),
        *rows(plain, {"photo": 2, "at": 9, "kind": "blank"}),
    ]
    placed[1] |= {"latitude": 47.5, "longitude": 8.25}
    [empty] = event_records(placed, plain)
    assert empty["kind"] == "blank"
    assert (empty["latitude"], empty["longitude"]) == (47.5, 8.25)  # of the first photo that has a place


@pytest.mark.parametrize(
    ("flags", "unknown"), [([1, 1, 0], True), ([1, 0], False), ([0, 0], False), ([], None)]
)
def test_an_event_of_photos_that_are_unlike_the_learned_ones_is_not_sure(
    classifier: Classifier, flags: list[int], unknown: bool | None
) -> None:
    plain = replace(classifier, thresholds={}, ood=None)
    photos = rows(plain, *({"photo": at, "at": at, "shows": 0} for at in range(len(flags) or 1)))
    for record, flag in zip(photos, flags, strict=False):
        record["unknown"] = bool(flag)
    [event] = event_records(photos, plain)
    assert event["unknown"] is unknown
    assert event["sure"] is (not unknown)


def test_events_are_written_in_every_format_that_has_them(
    insects: Path, tmp_path: Path, classifier: Classifier
) -> None:
    items = [
        replace(photo, taken=f"2020-01-01T00:00:{number:02d}Z")
        for number, photo in enumerate(inputs.find_photos([insects / "Apis mellifera"])[:6])
    ]
    listed = Detections(
        {
            photo.name: (Detection(Box(0.1, 0.1, 0.6, 0.6), "animal", 0.9),) * (number < 4)
            for number, photo in enumerate(items)
        },
        "test",
    )
    boxes = inputs.Boxes(listed, 0.2)
    cut = inputs.at_boxes(items, boxes)
    assert [photo.kind for photo in cut] == ["animal"] * 4 + ["blank"] * 2
    for suffix in (".csv", ".jsonl", ".parquet", ".camtrap.csv"):
        out = tmp_path / f"events{suffix}"
        assert checkpoint.to_file(out, classifier, cut, boxes=boxes, gap=60) == 0
        assert checkpoint.to_file(out, classifier, cut, boxes=boxes, gap=60) == 0  # goes on, and is the same
    [event] = (json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines())
    assert len(event["event"]["photos"]) == 6
    first, *_ = csv.DictReader((tmp_path / "events.csv").read_text("utf-8-sig").splitlines())
    assert (first["photos"], first["start"]) == ("6", "2020-01-01 00:00:00")
    [row] = csv.DictReader((tmp_path / "events.camtrap.csv").read_text().splitlines())
    assert (row["observationLevel"], row["mediaID"], row["eventID"]) == ("event", "", first["event"])
    assert row["eventEnd"] == "2020-01-01T00:00:05Z"


def test_a_rule_is_kept_with_the_classifier(classifier: Classifier) -> None:
    from fieldmark.inference.events import rule_of

    assert rule_of(classifier) == EventRule()
    kept = {"events": {"rule": {"way": "product", "temperature": 2.5, "thresholds": {}}}}
    assert rule_of(replace(classifier, provenance=kept)) == EventRule("product", 2.5)
