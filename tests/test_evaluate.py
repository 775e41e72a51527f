"""An evaluation keeps everything, survives the disk, and is compared photo by photo."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fieldmark.evaluation import intervals, metrics
from fieldmark.evaluation.comparison import Difference, difference
from fieldmark.evaluation.results import Evaluation
from fieldmark.utils.errors import InputError


def evaluation(photos: int = 103, classes: int = 7, seed: int = 0, lift: float = 1.5) -> Evaluation:
    """Odd sizes, so that no batch size divides them; every tenth photo is of a pruned class."""
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, classes, photos)
    scores = random.normal(size=(photos, classes)).astype(np.float32)
    scores[np.arange(photos), labels] += lift
    labels[::10] = -1
    return Evaluation(
        scores_NC=scores,
        labels_N=labels,
        photo_ids=tuple(f"photo-{at}" for at in range(photos)),
        classes=tuple(f"taxon-{at}" for at in range(classes)),
        groups=tuple(None if at % 3 else f"track-{at // 6}" for at in range(photos)),
        supercategories=tuple(["Birds", "Fishes", ""][at % 3] for at in range(photos)),
    )


def test_every_photo_is_counted() -> None:
    one = evaluation()
    found = one.summary()
    kept = one.labels_N >= 0
    wrong = one.scores_NC.argmax(1) != one.labels_N
    assert found["photos"] == 103
    assert found["photos_kept"] == kept.sum() == 92
    assert found["top1_error"] == pytest.approx(wrong[kept].mean())
    assert found["top1_error_all_classes"] == pytest.approx(wrong.mean())
    assert sum(row["photos"] for row in found["per_class"]) == 92
    assert (
        sum(row["photos"] for row in found["per_supercategory"])
        == (kept & (np.array(one.supercategories) != "")).sum()
    )


def test_the_summary_says_what_the_metrics_say() -> None:
    one = evaluation()
    found = one.summary(train_counts={"taxon-0": 12})
    kept = one.kept_N
    scores, labels = one.scores_NC[kept], one.labels_N[kept]
    groups = [group for group, row in zip(one.groups, kept, strict=True) if row]
    wrong = metrics.wrong(scores, labels)
    assert found["k"] == 5
    assert found["top5_error"] == metrics.top_k_error(scores, labels, 5)
    assert found["log_loss"] == metrics.negative_log_likelihood(scores, labels)
    assert found["brier_score"] == metrics.brier_score(scores, labels)
    assert found["calibration_error"] == metrics.expected_calibration_error(scores, labels)
    assert found["top1_error_interval"] == intervals.error_interval(wrong, groups)
    assert found["macro_error_interval"] == intervals.error_interval(wrong, groups, classes_N=labels)
    assert found["top1_error_all_classes_interval"] == intervals.error_interval(one.wrong_N(), one.groups)
    assert found["macro_error"] == pytest.approx(np.mean([row["error"] for row in found["per_class"]]))
    assert [row["train_photos"] for row in found["per_class"]] == [12, 0, 0, 0, 0, 0, 0]
    birds = np.array(one.supercategories) == "Birds"
    assert found["per_supercategory"][0]["supercategory"] == "Birds"
    assert found["per_supercategory"][0]["error"] == pytest.approx(wrong[birds[kept]].mean())


def test_each_group_counts_the_same_in_the_error_of_groups() -> None:
    """A group's photos make one share; a photo without a group is one of its own."""
    one = evaluation()
    found, kept = one.summary(), one.kept_N
    shares: dict[str, list[bool]] = {}
    for at in np.flatnonzero(kept):
        shares.setdefault(one.groups[at] or f"alone {at}", []).append(bool(one.wrong_N()[at]))
    error_U = np.array([np.mean(each) for each in shares.values()])
    assert len(error_U) < kept.sum()
    assert found["group_error"] == pytest.approx(error_U.mean())
    assert found["group_error_interval"] == pytest.approx(intervals.error_interval(error_U))
    alone = dataclasses.replace(one, groups=(None,) * 103).summary()
    assert alone["group_error"] == pytest.approx(alone["top1_error"])
    assert alone["group_error_interval"] == pytest.approx(alone["top1_error_interval"])


def test_some_photos_of_an_evaluation_are_those_photos() -> None:
    one = evaluation()
    keep_N = np.arange(103) % 5 == 2
    some = one.where(keep_N)
    assert some.photo_ids == tuple(f"photo-{at}" for at in range(2, 103, 5))
    assert some.groups == one.groups[2::5]
    assert some.supercategories == one.supercategories[2::5]
    assert some.classes == one.classes
    np.testing.assert_array_equal(some.scores_NC, one.scores_NC[2::5])
    np.testing.assert_array_equal(some.labels_N, one.labels_N[2::5])
    assert len(one.where(np.zeros(103, np.bool_))) == 0


def test_the_summary_is_json() -> None:
    text = json.dumps(evaluation().summary().to_dict(), allow_nan=False)
    assert json.loads(text)["classes"] == 7


def test_k_is_capped_at_the_number_of_classes() -> None:
    found = evaluation(classes=3).summary()
    assert (found["k"], found["top5_error"]) == (3, 0.0)


def test_where_there_is_nothing_to_measure_there_is_no_number() -> None:
    one = evaluation(photos=4)
    pruned = dataclasses.replace(one, labels_N=np.full(4, -1))
    found = pruned.summary()
    for name in ("top1_error", "top1_error_interval", "top5_error", "macro_error", "group_error", "log_loss"):
        assert found[name] is None
    assert found["top1_error_all_classes"] == 1.0
    assert found["top1_error_all_classes_interval"][1] == 1.0
    empty = Evaluation(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), (), ("a", "b"), (), ())
    assert empty.summary()["top1_error_all_classes"] is None


def test_a_network_that_broke_down_is_wrong_and_has_no_loss() -> None:
    one = evaluation()
    broken = dataclasses.replace(one, scores_NC=np.full_like(one.scores_NC, np.nan))
    found = broken.summary()
    assert (found["top1_error"], found["log_loss"]) == (1.0, None)
    assert found["top1_error_interval"][1] == 1.0


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    one = evaluation()
    one.save(tmp_path / "scores.safetensors")
    back = Evaluation.load(tmp_path / "scores.safetensors")
    np.testing.assert_array_equal(back.scores_NC, one.scores_NC)
    np.testing.assert_array_equal(back.labels_N, one.labels_N)
    for field in ("photo_ids", "classes", "groups", "supercategories"):
        assert getattr(back, field) == getattr(one, field)


def test_a_file_that_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    evaluation().save(path)
    whole = path.read_bytes()
    foreign = safetensors.numpy.save({"scores": np.zeros((2, 2), np.float32)})
    about = json.dumps({"photo_ids": ["a"], "classes": ["x"], "groups": [None]})
    incomplete = safetensors.numpy.save(
        {"scores": np.zeros((1, 1), np.float32), "labels": np.zeros(1, np.int64)},
        {"format": "fieldmark-evaluation-1", "about": about},
    )
    for data in (b"", b"nonsense", whole[:-9], whole[: len(whole) // 2], foreign, incomplete):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"scores\.safetensors is not an evaluation"):
            Evaluation.load(path)
    with pytest.raises(InputError, match="missing"):
        Evaluation.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "change",
    [
        {"scores_NC": np.zeros((103, 6), np.float32)},
        {"labels_N": np.full(103, 7)},
        {"labels_N": np.zeros(102, np.int64)},
        {"groups": ()},
        {"photo_ids": ("same",) * 103},
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|do not fit"):
        dataclasses.replace(evaluation(), **change)


def test_a_difference_is_paired() -> None:
    better, worse = evaluation(photos=400, lift=3.0), evaluation(photos=400, lift=1.0)
    found = difference(better, worse)
    expected = better.summary()["top1_error"] - worse.summary()["top1_error"]
    assert found.value == pytest.approx(expected)
    assert found.interval[0] < found.value < found.interval[1] < 0
    assert found.photos == 360
    assert not found.tie
    assert difference(worse, better).value == pytest.approx(-found.value)


def test_an_evaluation_ties_with_itself_and_with_its_like() -> None:
    one = evaluation(photos=400)
    same = difference(one, one)
    assert (same.value, same.tie) == (0.0, True)
    assert same.interval == pytest.approx((-0.0119, 0.0119), abs=1e-4)  # what 307 photos leave open
    assert difference(one, evaluation(photos=400, seed=1)).tie


def test_photos_may_come_in_another_order() -> None:
    one, other = evaluation(), evaluation(seed=1)
    order = np.random.default_rng(4).permutation(len(other))
    shuffled = Evaluation(
        other.scores_NC[order],
        other.labels_N[order],
        tuple(other.photo_ids[at] for at in order),
        other.classes,
        tuple(other.groups[at] for at in order),
        tuple(other.supercategories[at] for at in order),
    )
    assert difference(one, shuffled) == difference(one, other)


def test_pruning_is_compared_on_kept_and_on_all_classes() -> None:
    """A pruned class costs nothing on the kept classes and counts as wrong on all."""
    complete = dataclasses.replace(evaluation(), labels_N=np.random.default_rng(99).integers(0, 7, 103))
    pruned = evaluation()
    assert difference(pruned, complete).value == 0
    assert difference(pruned, complete).photos == 92
    over_all = difference(pruned, complete, over="all")
    right = ~complete.wrong_N() & ~pruned.kept_N
    assert over_all.value == pytest.approx(right.mean())
    assert over_all.photos == 103


def test_evaluations_of_other_photos_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="same photos, and these share 100 of 103 and 100"):
        difference(evaluation(), evaluation(photos=100))
    none = dataclasses.replace(evaluation(), labels_N=np.full(103, -1))
    with pytest.raises(InputError, match="no photo of a kept class"):
        difference(evaluation(), none)


def test_a_tie_is_an_interval_that_holds_zero() -> None:
    assert Difference(0.01, (-0.01, 0.02), 9).tie
    assert Difference(0.01, (0.0, 0.02), 9).tie
    assert not Difference(0.01, (0.005, 0.02), 9).tie
