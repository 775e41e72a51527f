"""The list of networks, and the names that stand for recommended ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldmark import models
from fieldmark.experiments.model_ranking import RankConfig, rank
from fieldmark.features.cache import FeatureStore
from fieldmark.features.extraction import measured_rates
from fieldmark.models import catalogue, timm, weights
from fieldmark.models.catalogue import BUILT_IN, RECOMMENDED, Query
from fieldmark.training.config import TrainConfig

LITE0, LITE2 = timm.LITE0.name, timm.LITE2.name
DINO = "vit_small_patch16_dinov3.lvd1689m"


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Parts of the addresses that answer; empty at first. No cache of downloads is looked at."""
    parts: list[str] = []
    monkeypatch.setattr(
        "fieldmark.models.reachable.is_reachable", lambda url: any(part in url for part in parts)
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights.hub, "weights", lambda _facts, here=False: None)
    return parts


# Recommended networks


def test_every_recommendation_ends_with_a_packaged_network() -> None:
    for names in RECOMMENDED.values():
        assert names[-1] in timm.PACKAGES
        for name in names:
            assert name in BUILT_IN or name.startswith("hf-hub:") or name in timm.pretrained()


@pytest.mark.parametrize(("name", "network"), [("small", LITE0), ("medium", LITE2), ("large", LITE2)])
def test_without_a_connection_a_recommendation_is_a_packaged_network(
    reachable: list[str], caplog: pytest.LogCaptureFixture, name: str, network: str
) -> None:
    assert not reachable
    with caplog.at_level("INFO"):
        assert models.architecture(name).name == network
    [message] = caplog.messages
    assert message.startswith(f"Network {name}: {network}, since its weights are on this machine")
    for other in RECOMMENDED[name][:-1]:
        assert other in message.partition("neither here nor reachable: ")[2]


def test_a_recommendation_is_the_first_network_that_can_be_downloaded(
    reachable: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    reachable.append("/timm/vit_small_patch16_dinov3")
    with caplog.at_level("INFO"):
        assert models.named("best") == models.named("medium") == DINO
    assert "its weights can be downloaded" in caplog.text
    reachable.append("/imageomics/bioclip-2/")
    assert models.named("large") == "hf-hub:imageomics/bioclip-2"


def test_networks_of_open_clip_are_left_out_where_it_is_not_installed(
    reachable: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reachable.append("huggingface.co")
    monkeypatch.setattr(catalogue, "find_spec", lambda _name: None)
    with caplog.at_level("INFO"):
        assert models.named("large") == "vit_large_patch16_dinov3.lvd1689m"
    assert "without the extra open-clip: hf-hub:imageomics/bioclip-2" in caplog.text


def test_a_folder_of_weights_counts_as_this_machine(reachable: list[str], tmp_path: Path) -> None:
    assert not reachable
    (tmp_path / f"{DINO}.safetensors").touch()
    assert models.named("medium", tmp_path) == DINO


def test_other_names_are_left_as_they_are() -> None:
    assert [models.named(name) for name in ("", LITE0, "no-such")] == ["", LITE0, "no-such"]


def test_a_configuration_and_a_ranking_hold_the_real_names(reachable: list[str], insects: Path) -> None:
    assert not reachable
    config = TrainConfig(backbone="small", also=("medium", LITE0)).named()
    assert (config.backbone, config.also) == (LITE0, (LITE2,))
    assert TrainConfig().named() == TrainConfig()
    found = rank(insects, RankConfig(networks=("small",), engine="torch", limit=24, groups="none"))
    assert [row.backbone for row in found.networks] == [LITE0]
    assert measured_rates(FeatureStore().folder)[LITE0, 224] > 0
    rows = catalogue.catalogue(Query(LITE0)).networks
    assert LITE0 in [row.name for row in rows]


@pytest.mark.usefixtures("reachable")
def test_what_is_trained_is_recorded_by_its_real_name(
    run: Callable[..., Any], insects: Path, tmp_path: Path
) -> None:
    done = run("train", insects, "--out", tmp_path / "m", "--backbone", "small", "--engine", "torch")
    assert done.code == 0, done.err
    assert f"Network small: {LITE0}" in done.err
    about = json.loads((tmp_path / "m" / "classifier.json").read_text())
    assert LITE0 in json.dumps(about)
    assert '"small"' not in json.dumps(about)


def test_the_document_has_the_recommendations_and_the_published_figures() -> None:
    text = (Path(__file__).parents[1] / "docs" / "backbones.md").read_text(encoding="utf-8")
    text = text.partition("## Recommended networks")[2].partition("\n## ")[0]
    for name, networks in RECOMMENDED.items():
        assert f"| `{name}` | `{networks[0]}`" in text
    rows = {line.split("`")[1]: line for line in text.splitlines() if " % |" in line}
    assert rows.keys() == catalogue.PUBLISHED.keys()
    for network, published in catalogue.PUBLISHED.items():
        assert f"| {100 * published.value:.1f} % |" in rows[network]


# The command


def test_the_short_list_has_costs_and_sources(run: Callable[..., Any], reachable: list[str]) -> None:
    assert not reachable
    done = run("backbones", "--json")
    assert done.code == 0
    rows = {row["name"]: row for row in json.loads(done.out)["networks"]}
    assert rows.keys() == {*BUILT_IN, *(name for names in RECOMMENDED.values() for name in names)}
    costs = [row["giga_macs"] or 0 for row in rows.values()]
    assert costs == sorted(costs)
    lite = rows[LITE0]
    assert lite["here"]
    assert lite["published"]["value"] == 0.751
    assert lite["published"]["source"].startswith("https://")
    assert lite["parameters"] == pytest.approx(3.37, abs=0.02)  # 4.65 with the layer for 1000 classes
    assert (lite["features"], lite["size"], lite["photos_per_second"]) == (1280, 224, None)
    clip = rows["hf-hub:imageomics/bioclip-2"]
    assert (clip["library"], clip["size"], clip["here"]) == ("open_clip", 224, False)


def test_measured_rates_are_shown_in_the_table(run: Callable[..., Any], cache: Path) -> None:
    for name, cost in {
        "a": {"seconds": 2.0, "photos": 100, "network": LITE0, "side": 224},
        "b": {"seconds": 9.0, "photos": 10, "network": LITE0, "side": 224},  # fewer photos
        "c": {"seconds": 1.0, "photos": 100, "network": LITE0, "side": 160},
        "d": {"seconds": 1.0, "photos": 100},  # of an older version
    }.items():
        folder = cache / "features" / name
        folder.mkdir(parents=True)
        (folder / "cost.json").write_text(json.dumps(cost))
    try:
        done = run("backbones", "*efficientnet_lite0")
    finally:
        shutil.rmtree(cache / "features")
    [line] = [line for line in done.out.splitlines() if line.startswith(LITE0)]
    assert line.split()[:8] == [LITE0, "timm", "3.4", "0.39", "1,280", "224", "here", "50.0"]
    assert "ImageNet top-1 75.1% [1]" in line
    assert "[1] https://github.com/tensorflow" in done.out
    assert "--backbone small   tf_efficientnet_lite0" in done.out


def test_filters_leave_networks_out_and_say_how_many(run: Callable[..., Any]) -> None:
    found = json.loads(run("backbones", "mobilenetv3_small*", "--max-macs", "0.05", "--json").out)
    assert {row["library"] for row in found["networks"]} == {"timm"}
    assert all(row["giga_macs"] <= 0.05 for row in found["networks"])
    assert found["over_limits"] > 0
    assert not found["not_built"]
    few = catalogue.catalogue(Query("mobilenetv3_small", max_parameters=1))
    assert all(row.parameters is not None and row.parameters <= 1 for row in few.networks)
    here = run("backbones", "efficientnet_lite", "--here")
    assert {line.split()[0] for line in here.out.splitlines() if " here " in line} >= {LITE0, LITE2}
    assert "do not pass the filters." in here.out


def test_a_filter_builds_no_more_than_a_few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(catalogue, "_built", lambda facts: (built.append(facts.name), (facts, 1.0))[1])
    found = catalogue.catalogue(Query("resnet"))
    assert len(built) == len(found.networks) == catalogue.BUILT_AT_MOST
    assert found.not_built > 100
    assert not catalogue.catalogue(Query("resnet", every=True)).not_built


def test_all_are_listed_without_building_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_built", None)
    found = catalogue.catalogue(Query(every=True))
    assert len(found.networks) > 1000
    rows = {row.name: row for row in found.networks}
    assert (rows[DINO].parameters, rows[DINO].size, rows[DINO].licence) == (None, 256, "dinov3-license")


def test_networks_that_cannot_be_backbones_are_counted() -> None:
    found = catalogue.catalogue(Query("*sapiens2*"))
    assert found.not_usable > 0


def test_bad_input_is_one_sentence(run: Callable[..., Any], tmp_path: Path) -> None:
    for arguments in (["no_such_network"], ["--weights-dir", tmp_path / "missing"], ["--max-macs", "-1"]):
        done = run("backbones", *arguments)
        assert done.code == 2
        assert "Traceback" not in done.err
    assert (
        "no network with published weights has a name like 'no_such_network'"
        in run("backbones", "no_such_network").err
    )
