"""Weights: where they are found, how they are read, what they fill; and that importing is light."""

from __future__ import annotations

import csv
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fieldmark.data.transforms import Preprocess
from fieldmark.models import BACKBONES, DEFAULT, Backbone, architecture, available, load, reachable, weights
from fieldmark.models.network import ClassifierNetwork
from fieldmark.models.runtime import engine
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, WeightsUnavailable

SMALL = "squeezenet1_1"


@pytest.fixture(autouse=True)
def no_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download cache, and no server that answers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(reachable, "is_reachable", lambda url: False)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def source() -> Backbone:
    return load(SMALL, weights="random", seed=11)


@pytest.fixture
def state(source: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in source.network.state_dict().items()}


# --- the package -----------------------------------------------------------------------------------


def test_importing_is_light() -> None:
    code = (
        "import sys, fieldmark.models, fieldmark.models.runtime\n"
        "heavy = {'torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'openvino', 'safetensors'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_default_needs_nothing_but_the_package() -> None:
    assert available() == [DEFAULT, "tf_efficientnet_lite2"]
    account = load(DEFAULT).weights_info
    assert account.complete
    assert account.pretrained
    assert account.filled == account.total
    assert account.ignored == ()


def test_any_network_of_timm_by_name() -> None:
    facts = architecture("timm:resnet18")
    assert facts == architecture("resnet18")
    assert (facts.library, facts.feature_dim, facts.input_size) == ("timm", 512, 224)
    assert facts.giga_macs == pytest.approx(1.81, rel=0.02)
    backbone = load("timm:resnet18", weights="random")
    crops = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert backbone.trunk(crops).shape == (2, 512)
        assert backbone.literal(5, 0)(crops).shape == (2, 5)


def test_an_unknown_name_is_refused_with_a_near_one() -> None:
    with pytest.raises(InputError, match="densenet121"):
        load("densnet121")


# --- random weights and keys -----------------------------------------------------------------------


def test_random_weights_are_a_function_of_the_seed(source: Backbone) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again, other = load(SMALL, weights="random", seed=11), load(SMALL, weights="random", seed=12)
    assert torch.equal(before, torch.get_rng_state())
    assert again.key == source.key != other.key


def test_key_follows_the_trunk_alone(
    source: Backbone, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state["classifier.1.weight"] += 1
    save_file(state, tmp_path / "head.safetensors")
    assert load(SMALL, weights=tmp_path / "head.safetensors").key == source.key
    state["features.0.bias"][0] += 1e-3
    save_file(state, tmp_path / "trunk.safetensors")
    assert load(SMALL, weights=tmp_path / "trunk.safetensors").key != source.key


def test_an_engine_leaves_the_key_and_the_literal_network_as_they_are(source: Backbone) -> None:
    fresh = load(SMALL, weights="random", seed=11)
    engine(fresh, "torch")
    assert fresh.key == source.key
    ours, theirs = fresh.literal(3, 1).state_dict(), source.literal(3, 1).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(value.stride() == theirs[name].stride() for name, value in ours.items())


def test_literal_begins_as_its_library_has_it(source: Backbone) -> None:
    model = source.literal(50, seed=4)
    kinds = [type(part).__name__ for part in model.network.get_submodule("classifier").children()]
    assert kinds == ["Dropout", "Conv2d", "ReLU", "AdaptiveAvgPool2d"]
    weight, bias = model.last_layer.parameters()
    assert weight.shape == (50, 512, 1, 1)
    assert float(weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not bias.any()
    same, other = source.literal(50, seed=4).last_layer, source.literal(50, seed=5).last_layer
    assert torch.equal(weight, next(same.parameters()))
    assert not torch.equal(weight, next(other.parameters()))


def test_training_the_literal_network_leaves_the_backbone(source: Backbone) -> None:
    before = weights.digest_of_values(source.network, "nothing")
    model = source.literal(2, seed=0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.full((2, 64, 64, 3), 9, dtype=torch.uint8)).sum().backward()
    optimizer.step()
    assert weights.digest_of_values(source.network, "nothing") == before
    assert not source.network.training


# --- files that fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "plain", "nested", "parallel"])
def test_every_form_of_file_gives_the_same_weights(
    form: str, source: Backbone, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "plain":
        torch.save(state, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    loaded = load(SMALL, weights=path, seed=1)
    assert loaded.key == source.key
    assert loaded.weights_info.complete
    assert loaded.weights_info.digest == io.sha256(path.read_bytes())


def test_a_partial_file_is_accounted_for(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    part = {name: value for name, value in state.items() if not name.startswith("features.12.")}
    part["extra"] = torch.zeros(3)
    save_file(part, tmp_path / f"{SMALL}_part.safetensors")
    account = load(SMALL, weights_dir=tmp_path, seed=1).weights_info
    assert (account.filled, account.total) == (44, 50)
    assert account.ignored == ("extra",)
    assert account.random == tuple(
        f"features.12.{layer}.{kind}"
        for layer in ("squeeze", "expand1x1", "expand3x3")
        for kind in ("weight", "bias")
    )
    assert not account.complete
    assert account.pretrained
    digest = (account.digest or "")[:8]
    start = f"pretrained weights (44 of 50 tensors) from {SMALL}_part.safetensors, sha256 {digest}…"
    assert account.summary.startswith(start)
    assert account.summary.endswith(
        "; features.12.squeeze, features.12.expand1x1, features.12.expand3x3 random"
    )
    first, same = (load(SMALL, weights_dir=each, seed=1).key for each in (tmp_path, str(tmp_path)))
    assert first == same != load(SMALL, weights_dir=tmp_path, seed=2).key


def test_a_last_layer_for_other_classes_is_left_aside(
    source: Backbone, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state["classifier.1.weight"] = torch.zeros(8, 512, 1, 1)
    state["classifier.1.bias"] = torch.zeros(8)
    save_file(state, tmp_path / "w.safetensors")
    loaded = load(SMALL, weights=tmp_path / "w.safetensors")
    assert loaded.weights_info.complete
    assert sorted(loaded.weights_info.ignored) == ["classifier.1.bias", "classifier.1.weight"]
    assert loaded.key == source.key


def test_densenets_published_names_are_understood(tmp_path: Path) -> None:
    source = load("densenet121", weights="random", seed=3)
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for name, value in source.network.state_dict().items()
        if "num_batches_tracked" not in name
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    loaded = load("densenet121", weights_dir=tmp_path)
    assert loaded.weights_info.complete
    assert loaded.weights_info.ignored == ()
    assert loaded.key == source.key


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "filled", "total", "end"),
    [
        ("squeezenet1_1", 50, 50, "…"),
        ("mobilenet_v2", 260, 260, "…"),
        ("alexnet", 10, 14, "classifier.1, classifier.4 random"),
        ("shufflenet_v2_x0_5", 275, 280, "conv5.0, conv5.1 random"),
    ],
)
def test_accounts_of_real_files(shared: Path, name: str, filled: int, total: int, end: str) -> None:
    folder = shared / "weights"
    assert name in available(folder)
    account = load(name, weights_dir=folder).weights_info
    assert (account.filled, account.total, account.ignored) == (filled, total, ())
    assert account.summary.endswith(end)
    assert account.complete == (filled == total)
    assert account.summary.startswith("pretrained weights (complete) from ") == account.complete


# --- files that do not -----------------------------------------------------------------------------


class Hostile:
    """Pickles to a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(self.path), "w"))  # type: ignore[return-value]


def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for name, data in (("zip.pth", None), ("bare.pt", pickle.dumps(Hostile(proof)))):
        if data is None:
            torch.save({"features.0.weight": Hostile(proof)}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            load(SMALL, weights=tmp_path / name)
    assert not proof.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 7, 5000])
def test_a_broken_file_is_refused(
    state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, keep: int
) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read as weights"):
        load(SMALL, weights=path)


def test_one_infinite_number_is_a_limit_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"highest": torch.tensor(float("inf")), "x": torch.zeros(2)}, path)
    assert weights.read(path).state["highest"].isinf()
    torch.save({"highest": torch.tensor(float("nan")), "x": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not finite"):
        weights.read(path)


def test_files_that_hold_something_else(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    wrong_shape = state | {"features.0.weight": torch.zeros(64, 3, 5, 5)}
    not_finite = state | {"features.0.bias": torch.full((64,), float("nan"))}
    for value, said in (
        (wrong_shape, r"'features.0.weight' is float32 \(64, 3, 5, 5\) there"),
        (not_finite, "'features.0.bias' has values that are not finite"),
        ({"conv.weight": torch.zeros(2)}, "fills nothing of squeezenet1_1: .* 'conv.weight'"),
        ({"classifier.1.bias": torch.zeros(1000)}, "fills nothing"),
        ({"features.0.weight": 3}, "'features.0.weight' is not a tensor"),
        ({}, "has no tensors"),
        ([1, 2], "has no tensors"),
    ):
        torch.save(value, path)
        with pytest.raises(InputError, match=said):
            load(SMALL, weights=path)


def test_places_that_are_not_there_or_not_clear(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file of weights"):
        load(SMALL, weights=tmp_path / "none.pth")
    with pytest.raises(InputError, match="is not a folder"):
        load(SMALL, weights_dir=tmp_path / "none")
    save_file(state, tmp_path / f"{SMALL}_a.safetensors")
    save_file(state, tmp_path / f"{SMALL}_b.safetensors")
    with pytest.raises(InputError, match="could each be the weights"):
        load(SMALL, weights_dir=tmp_path)
    save_file(state, tmp_path / f"{SMALL}.safetensors")  # the exact name settles it
    assert load(SMALL, weights_dir=tmp_path).weights_info.source == f"{SMALL}.safetensors"


# --- the network -----------------------------------------------------------------------------------


def test_what_cannot_be_had_says_what_to_do() -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        load("densenet121")
    said = str(caught.value)
    assert "densenet121-a639ec97.pth" in said
    assert "https://download.pytorch.org/models/densenet121-a639ec97.pth" in said
    assert "--weights-dir" in said


def test_a_download_that_is_there_is_used(
    no_downloads: Path, source: Backbone, state: dict[str, torch.Tensor]
) -> None:
    no_downloads.mkdir(parents=True)
    torch.save(state, no_downloads / "squeezenet1_1-b8a52dc0.pth")
    assert SMALL in available()
    assert load(SMALL).key == source.key


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(reachable, "ANSWER_WITHIN", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.perf_counter()
        assert not reachable.is_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/w.pth")
        assert time.perf_counter() - start < 2


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    handler: type[BaseHTTPRequestHandler] = partial(Quiet, directory=str(folder))  # type: ignore[assignment]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_downloads_are_checked_and_kept_whole(
    server: str, tmp_path: Path, no_downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = reachable.is_reachable
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    assert answers is not reachable.is_reachable
    data = b"weights" * 1000
    good, bad = f"w-{io.sha256(data)[:8]}.pth", "w-00000000.pth"
    for name in (good, bad):
        (tmp_path / "served" / name).write_bytes(data)
    facts = BACKBONES[SMALL]
    assert weights.download(replace(facts, url=server + good)).read_bytes() == data
    with pytest.raises(WeightsUnavailable, match="does not match the digest"):
        weights.download(replace(facts, url=server + bad))
    with pytest.raises(WeightsUnavailable, match="could not be downloaded"):
        weights.download(replace(facts, url=server + "missing-00000000.pth"))
    assert [path.name for path in no_downloads.iterdir()] == [good]


# --- real photos -----------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize(("name", "right"), [("tf_efficientnet_lite0", 89), ("squeezenet1_1", 56)])
def test_pretrained_networks_know_imagenet(shared: Path, name: str, right: int) -> None:
    """Wired right: weights, mean, deviation, order of the channels and of the classes."""
    folder = shared / "data" / "imagenet-sample"
    with (folder / "labels.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    paths = [next(folder.rglob(row["file_name"])) for row in rows]
    preprocess = Preprocess(interpolation="bilinear")
    crops = np.stack([preprocess.crop(path.read_bytes()) for path in paths])
    backbone = load(name, weights_dir=shared / "weights")
    with torch.inference_mode():
        scores = ClassifierNetwork(backbone.architecture, backbone.network)(torch.from_numpy(crops))
    truth = torch.tensor([int(row["imagenet_index"]) for row in rows])
    assert abs(int((scores.argmax(1) == truth).sum()) - right) <= 1
