"""Networks of one's own: ONNX files by their path, and PyTorch networks that are traced as such files."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file
from tests.conftest import write_about
from torch import nn

from fieldmark import Classifier, InputError, TrainConfig, models, train
from fieldmark.models import onnx_graph, runtime
from fieldmark.models.network import session
from fieldmark.models.runtime import graphs
from fieldmark.utils.errors import ClassifierError

pytestmark = pytest.mark.usefixtures("one_cache")


SIDE = 32
HALVES = (0.5, 0.5, 0.5)


class Patches(nn.Module):
    """A feature map of 12 channels, (N, 12, 8, 8) for crops of 32 pixels, or its mean."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 12, 3, padding=1)
        self.norm, self.pooled = nn.BatchNorm2d(8), pooled

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(torch.relu(self.norm(self.first(crops))))
        return found.mean((2, 3)) if self.pooled else found


@pytest.fixture
def path(tmp_path: Path, cache: Path) -> Path:
    return onnx_graph.write(Patches(), tmp_path / "net.onnx", size=SIDE, mean=HALVES, std=HALVES)


def features_of(module: nn.Module, crops: np.ndarray) -> np.ndarray:
    pixels = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        found = module.eval()(pixels)
    return (found.mean((2, 3)) if found.ndim == 4 else found).numpy()


@pytest.mark.parametrize("pooled", [False, True])
def test_every_engine_gives_the_features_of_the_network(tmp_path: Path, cache: Path, pooled: bool) -> None:
    module = Patches(pooled=pooled)
    file = onnx_graph.write(module, tmp_path / "net.onnx", size=SIDE, mean=HALVES, std=HALVES, licence="MIT")
    found = models.load(f"onnx:{file}")
    facts = found.architecture
    assert (facts.name, facts.feature_dim, facts.input_size, facts.licence) == ("onnx:net", 12, SIDE, "MIT")
    assert facts.giga_macs == 0.001  # 64 places: 8 x 48 and 12 x 72 products each, rounded up
    assert found.weights_info.complete
    assert found.weights_info.source == "net.onnx"
    crops = graphs.sample(SIDE, 5)
    for name in ("torch", "onnxruntime", *(["openvino"] if runtime.installed() else []), "auto"):
        features = runtime.engine(found, name)(crops)
        np.testing.assert_allclose(features, features_of(module, crops), rtol=1e-3, atol=1e-5)
    assert copy.deepcopy(found.trunk)(torch.from_numpy(crops)).shape == (5, 12)


def test_the_cost_is_counted(tmp_path: Path, cache: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4096, 500)
    )
    file = onnx_graph.write(module, tmp_path / "net.onnx", size=SIDE)
    own = (SIDE**2 * 64 * 27 + 4096 * 500) / 1e9
    assert models.architecture(f"onnx:{file}").giga_macs == round(own, 3) == 0.004


def test_a_classifier_holds_the_graph(run: Any, photos: Path, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = run("train", photos, "--out", out, "--backbone", f"onnx:{path},licence=CC0", "--groups", "none")
    assert done.code == 0, done.err
    assert "licence of the weights: CC0" in " ".join(done.err.split())
    path.unlink()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    photo = photos / "Danaus plexippus" / "03.jpg"
    code = f"from fieldmark import Classifier\nprint(Classifier.load({str(out)!r}).predict([{str(photo)!r}]))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "Danaus plexippus" in told.stdout
    for words in (
        ("export", out, "--onnx", tmp_path / "model.onnx"),
        ("explain", out, photo, "--out", tmp_path / "map.png"),
    ):
        done = run(*words)
        assert done.code == 0, done.err


def test_a_network_of_pytorch_is_traced(photos: Path, tmp_path: Path, cache: Path) -> None:
    found = train(
        photos, TrainConfig(size=SIDE, groups="none"), network=Patches(pooled=True), out=tmp_path / "model"
    )
    assert found.classifier.architecture == "onnx:Patches"
    backbone = models.load("test_vit", weights="random")
    again = train(photos, TrainConfig(groups="none"), network=backbone, out=tmp_path / "other")
    crops = graphs.sample(160, 2)
    with torch.inference_mode():
        expected = backbone.trunk(torch.from_numpy(crops)).numpy()
    np.testing.assert_allclose(again.classifier.networks[0].engine(crops), expected, rtol=1e-3, atol=1e-4)
    photo = photos / "Danaus plexippus" / "03.jpg"
    for folder in ("model", "other"):
        assert Classifier.load(tmp_path / folder).predict([photo])[0].best is not None
    with pytest.raises(InputError, match="leave one of them out"):
        train(photos, TrainConfig(backbone="test_vit"), network=Patches())


class Untraceable(nn.Module):
    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(crops[:, 0]).real


@pytest.mark.parametrize("transfer", ["all", "low-rank", "adapters"])
def test_fine_tuning_is_refused(run: Any, photos: Path, path: Path, tmp_path: Path, transfer: str) -> None:
    done = run("train", photos, "--out", tmp_path / "m", "--backbone", f"onnx:{path}", "--transfer", transfer)
    assert (done.code, "is an ONNX graph, which is not trained itself" in " ".join(done.err.split())) == (
        2,
        True,
    )


def test_what_cannot_be_a_backbone_is_one_sentence(path: Path, tmp_path: Path, cache: Path) -> None:
    def named(*, like: Any = None, **dims: Any) -> str:
        """Write a graph of one node with other shapes."""
        given = {"put": [None, 3, SIDE, SIDE], "out": [None, 3, SIDE, SIDE], "kind": TensorProto.FLOAT} | dims
        value = helper.make_tensor_value_info
        nodes = like or [helper.make_node("Relu", ["crops"], ["features"])]
        graph = helper.make_graph(
            nodes,
            "g",
            [value("crops", given["kind"], given["put"])],
            [value("features", given["kind"], given["out"])],
        )
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        opset = [helper.make_opsetid("", 17)]
        file.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
        return f"onnx:{file}"

    models.architecture(named())
    (tmp_path / "text.onnx").write_text("not a graph")
    whole = [helper.make_node("ReduceMean", ["crops"], ["features"], axes=[0, 2, 3], keepdims=0)]
    tokens = [helper.make_node("ReduceMean", ["crops"], ["features"], axes=[3], keepdims=0)]
    for name, said in (
        ("onnx:nowhere.onnx", "is not a file"),
        (f"onnx:{tmp_path / 'text.onnx'}", "is not an ONNX graph that can be used"),
        (named(put=[None, 1, SIDE, SIDE], out=[None, 1, SIDE, SIDE]), "must have one input"),
        (named(kind=TensorProto.DOUBLE), "must have one input"),
        (named(put=[None, 3, 32, 48], out=[None, 3, 32, 48]), "32 x 48 pixels"),
        (named(like=whole, out=[3]), "cannot be run|features are float32"),
        (named(like=tokens, out=[None, 3, SIDE]), "features are float32"),
        (f"onnx:{path},size=64", "takes crops of 32 x 32 pixels: size=64"),
        (f"onnx:{path},size=x", "size=x cannot be"),
        (f"onnx:{path},mean=0.5", "must be three numbers"),
        (f"onnx:{path},std=0/1/1", "must be three numbers"),
        (f"onnx:{path},colour=red", "has a setting 'colour'"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            pytest.fail(f"{name} is {models.architecture(name)}: {said}")
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="leave --weights random out"):
        models.load(f"onnx:{path}", weights="random")
    with pytest.raises(InputError, match="takes crops of 32 pixels only, not of 64"):
        models.load(f"onnx:{path}").at(64)
    with pytest.raises(InputError, match="Untraceable cannot be traced"):
        onnx_graph.write(Untraceable(), tmp_path / "no.onnx", size=8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_opsets_and_side_by_settings(tmp_path: Path, cache: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    file = tmp_path / "old.onnx"
    axes = {"crops": {0: "n", 2: "h", 3: "w"}, "features": {0: "n"}}
    torch.onnx.export(
        module,
        (torch.zeros(1, 3, 64, 64),),
        file,
        dynamo=False,
        opset_version=11,
        input_names=["crops"],
        output_names=["features"],
        dynamic_axes=axes,
    )
    found = models.load(f"onnx:{file},size=48,name=old,mean=0.5/0.5/0.5,std=0.5/0.5/0.5")
    assert (found.architecture.name, found.architecture.input_size) == ("onnx:old", 48)
    for side in (48, 64):
        crops = graphs.sample(side, 2)
        features = runtime.engine(found.at(side), "onnxruntime")(crops)
        np.testing.assert_allclose(features, features_of(module, crops), rtol=1e-3, atol=1e-5)


def test_a_graph_with_branches_is_a_network(tmp_path: Path, cache: Path) -> None:
    """A branch uses values of the graph around it, which get other names where the crops come before."""
    value, node = helper.make_tensor_value_info, helper.make_node
    branches = {
        name: helper.make_graph(
            [node(what, ["means", "means"], ["inner"])],
            name,
            [],
            [value("inner", TensorProto.FLOAT, ["n", 3])],
        )
        for name, what in (("then_branch", "Add"), ("else_branch", "Mul"))
    }
    graph = helper.make_graph(
        [
            node("ReduceMean", ["crops"], ["means"], axes=[2, 3], keepdims=0),
            node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
            node("If", ["yes"], ["features"], **branches),
        ],
        "branches",
        [value("crops", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [value("features", TensorProto.FLOAT, ["n", 3])],
    )
    file = tmp_path / "branches.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    found = models.load(f"onnx:{file},mean=0.5/0.5/0.5,std=0.5/0.5/0.5")
    crops = graphs.sample(SIDE, 2)
    expected = 2 * ((crops / 255 - 0.5) / 0.5).mean(axis=(1, 2))
    for engine in ("torch", "onnxruntime"):
        np.testing.assert_allclose(runtime.engine(found, engine)(crops), expected, rtol=1e-3, atol=1e-5)


def test_a_hostile_graph_in_a_classifier_is_one_sentence(photos: Path, path: Path, tmp_path: Path) -> None:
    config = TrainConfig(backbone=f"onnx:{path}", groups="none", engine="torch")
    train(photos, config, out=tmp_path / "model")
    about = json.loads((tmp_path / "model" / "classifier.json").read_text())
    graph = onnx.load(path)
    graph.graph.initializer[0].data_location = TensorProto.EXTERNAL
    graph.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    for data in (graph.SerializeToString(), b"nonsense"):
        weights = tmp_path / "model" / "backbone.safetensors"
        weights.unlink()
        save_file({onnx_graph.TENSOR: torch.frombuffer(bytearray(data), dtype=torch.uint8)}, weights)
        about["members"][0]["network"]["config"] = json.dumps({"bytes": len(data)})
        write_about(tmp_path / "model", about)
        assert load_file(weights)
        with pytest.raises(ClassifierError):
            Classifier.load(tmp_path / "model").networks[0].backbone  # noqa: B018
        with pytest.raises(ValueError if data != b"nonsense" else Exception):
            session(data)
