"""A list of species, as of a park: its labels are favoured, and none becomes impossible."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import write_about

from fieldmark.data.species_list import read_species_list
from fieldmark.data.taxonomy import Taxon
from fieldmark.evaluation.events import EventRule
from fieldmark.evaluation.location_prior import FLOOR, KernelPrior, LocationRule
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.location import LocationPrior
from fieldmark.inference.classifier.species_list import ListPrior
from fieldmark.inference.events import combine
from fieldmark.utils.errors import ClassifierError, InputError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            "# of the park\nApis  mellifera\n\nVulpes vulpes\nApis mellifera\n",
            ["Apis mellifera", "Vulpes vulpes"],
        ),
        ("Danaus plexippus (Linnaeus, 1758)\n", ["Danaus plexippus (Linnaeus, 1758)"]),
        ('id,scientific_name,common_name\n1,"Apis mellifera",bee\n2,,\n', ["Apis mellifera"]),
        ("key\tscientificName\tspecies\n1\tApis L.\t\n2\tApis m. L.\tApis mellifera\n", ["Apis mellifera"]),
        ("name;count\nVulpes vulpes;3\n", ["Vulpes vulpes"]),
        ("scientificName\nVulpes vulpes\n", ["Vulpes vulpes"]),
    ],
)
def test_lists_are_texts_or_tables(text: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    assert read_species_list(path) == names
    path.write_text("scientificName,x\n,1\n")
    with pytest.raises(InputError, match="names no species"):
        read_species_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_species_list(path)


def test_labels_of_a_list(caplog: pytest.LogCaptureFixture) -> None:
    taxa = [
        *(Taxon("1", "Apis mellifera", ranks={"class": "Insecta"}), Taxon("2", "Vulpes vulpes")),
        *(Taxon("3", "Bombus", ranks={"genus": "Bombus"}), Taxon("4", "blank"), Taxon("5", "human")),
    ]
    found = ListPrior.of(taxa, ["Bombus terrestris", "Apis mellifera Linnaeus, 1758"], "park")
    assert found.listed_C.tolist() == [True, False, True, True, True]
    assert "'Bombus terrestris'" in caplog.text
    assert ListPrior.of(taxa, ["Insecta"], "park").listed_C.tolist() == [True, False, False, True, True]
    with pytest.raises(InputError, match="'Bombus terrestris'"):
        ListPrior.of(taxa, ["Bombus terrestris"], "park")


def test_labels_that_are_not_on_the_list_count_20_times_less(
    classifier: Classifier, draw: Callable[[int, int], bytes], tmp_path: Path
) -> None:
    first, second = classifier.taxa[:2]
    found = classifier.favouring([second.name, "Insecta nulla"], "park")
    photo = draw(0, 40)
    [p_C], [q_C] = classifier.predict_proba(photo), found.predict_proba(photo)
    np.testing.assert_allclose(q_C[0] / q_C[1] / (p_C[0] / p_C[1]), FLOOR, rtol=1e-3)
    assert q_C.sum() == pytest.approx(1, rel=1e-5)
    # The photo says the first, but not by far: the list decides, and the reason says so.
    close_C = np.log(np.array([0.5, 0.4, 0.05, 0.05], np.float32))
    said = found.rank(np.exp(found.favoured.logits(close_C)) / 0.43).reason
    assert f"by the photo alone {first.name} would come first" in said
    clear_C = np.log(np.array([0.99, 0.004, 0.003, 0.003], np.float32))
    said = found.rank(np.exp(found.favoured.logits(clear_C)) / 0.0538).reason
    assert said.endswith(f"{first.name} is not on the list park")
    assert found.digest != classifier.digest
    some = found.only([first.name, classifier.taxa[2].name])
    assert some.favoured.listed_C.tolist() == [False, False]
    found.save(tmp_path / "saved")
    loaded = Classifier.load(tmp_path / "saved")
    assert loaded.digest == found.digest
    about = json.loads((tmp_path / "saved" / "classifier.json").read_text())
    for listed in ([7], "all", [True], None):
        about["favoured"]["listed"] = listed
        write_about(tmp_path / "saved", about)
        with pytest.raises(ClassifierError, match="damaged"):
            Classifier.load(tmp_path / "saved")


def test_a_list_counts_with_a_place(classifier: Classifier) -> None:
    rule, at = LocationRule(0.5, 1.5, {}), [(47.0, 8.0, 100)]
    kernel = KernelPrior(replace_locations(at), np.array([2]), len(classifier.taxa))
    placed = replace(classifier, prior=LocationPrior(kernel, rule), thresholds={}, ood=None)
    found = placed.favouring([classifier.taxa[1].name]).at(47.0, 8.0)
    raw_1C = np.log(np.array([[0.6, 0.2, 0.1, 0.1]], np.float32))
    with_1C = found.local.logits(found.favoured.logits(raw_1C))
    back_1C = found.favoured.without(found.local.without(with_1C))
    np.testing.assert_allclose(back_1C, raw_1C, atol=1e-4)
    p_C = np.exp(with_1C[0]) / np.exp(with_1C[0]).sum()
    assert f"by the photo alone {classifier.taxa[0].name}" in found.rank(p_C).reason
    assert found.rank(p_C).prior


def replace_locations(rows: list[tuple[float, float, int]]) -> Any:
    from fieldmark.data.locations import Locations

    return Locations.of(rows)


def test_a_list_counts_once_for_an_event(classifier: Classifier) -> None:
    """Thirty photos that say one thing outweigh it, whatever the rule."""
    found = replace(classifier.favouring([classifier.taxa[1].name]), ood=None, thresholds={})
    raw_1C = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
    scores = np.exp(found.favoured.logits(raw_1C))[0]
    labels = [{"name": classifier.taxa[1].name}]
    rows = [
        {"file_name": f"{n}", "scores": (scores / scores.sum()).tolist(), "sure": True, "labels": labels}
        for n in range(30)
    ]
    assert combine(rows, found, EventRule("product"), 5).prediction.best.taxon == classifier.taxa[0]
    assert combine(rows, found, EventRule("mean"), 5).prediction.best.taxon == classifier.taxa[1]


def test_a_list_on_the_command_line(
    run: Callable[..., Any], model: Path, insects: Path, tmp_path: Path
) -> None:
    photo, park = insects / "Danaus plexippus" / "00.jpg", tmp_path / "park.txt"
    park.write_text("Apis mellifera\nUnicornis\n")
    found = run("predict", model, photo, "--prior", park, "--format", "jsonl")
    assert found.code == 0, found.err
    assert "1 of 4 labels are on the list park" in found.err
    assert "'Unicornis'" in found.err
    [record] = map(json.loads, found.out.splitlines())
    assert record["labels"][0]["name"] == "Apis mellifera" or "not on the list park" in record["reason"]
    assert run("predict", model, photo, "--checklist", park).code == 2
    found = run("train", insects, "--out", tmp_path / "m", "--prior", park)
    assert found.code == 2
    assert "park.txt has no column latitude" in found.err or "no column species" in found.err
    assert "`fieldmark predict --prior`" in found.err
    found = run("train", insects, "--out", tmp_path / "m", "--checklist", park)
    assert found.code == 2
    assert "--prior" in found.err
