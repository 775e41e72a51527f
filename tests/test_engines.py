"""Engines: they agree, they are chosen by measurement, and they run without PyTorch."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark.data.transforms import Preprocess
from fieldmark.models import Backbone, load, runtime, tracing
from fieldmark.models.runtime import (
    ENGINES,
    HALF,
    cached_graph,
    cuda,
    engine,
    graphs,
    onnx_engine_from_file,
    relative_error,
    selection,
)
from fieldmark.models.runtime.base import torch_has_half
from fieldmark.models.runtime.openvino import installed
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, StoreError
from fieldmark.utils.random import generator

SMALL = "squeezenet1_1"
THERE = {"torch": True, "onnxruntime": True, "openvino": installed(), "cuda": cuda.available()}
THERE["mps"] = cuda.available("mps")
OTHERS = [name for name in ENGINES if name != "torch" and THERE[name]]
needs_gpu = pytest.mark.skipif(not cuda.available(), reason="there is no GPU that PyTorch can use")

# A GPU computes convolutions in TF32: see `cuda`.
TOLERANCE = dict.fromkeys(ENGINES, 1e-3) | {"cuda": cuda.TOLERANCE, "mps": cuda.TOLERANCE}


@pytest.fixture(scope="module")
def small() -> Backbone:
    return load(SMALL, weights="random")


def crops_of(side: int, count: int) -> np.ndarray:
    """Smooth random crops, nearer to photos than noise is."""
    coarse = generator(2, "engines").integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    return coarse.repeat(side // 7, axis=1).repeat(side // 7, axis=2)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("tf_efficientnet_lite0", "pretrained"), ("shufflenet_v2_x0_5", "random"), (SMALL, "random")],
)
def test_engines_agree(name: str, weights: str) -> None:
    backbone = load(name, weights=weights)
    crops = crops_of(backbone.architecture.input_size, 5)
    reference = engine(backbone, "torch", batch=2)(crops)
    assert reference.shape == (5, backbone.architecture.feature_dim)
    assert reference.dtype == np.float32
    for other in OTHERS:
        features = engine(backbone, other, batch=2)(crops)
        assert features.dtype == np.float32
        assert relative_error(features, reference) < TOLERANCE[other], other


@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_any_number_of_crops(small: Backbone, name: str) -> None:
    crops = crops_of(224, 5)
    run = engine(small, name, batch=3)
    whole = run(crops)
    assert run(crops[:0]).shape == (0, 512)
    read_only = crops[4:]
    read_only.flags.writeable = False
    assert relative_error(run(read_only), whole[4:]) < 1e-5
    assert relative_error(run(crops[::-1]), whole[::-1]) < 1e-5  # not contiguous
    with pytest.raises(TypeError, match="uint8"):
        run(crops.astype(np.float32))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_get_crops_of_their_own(small: Backbone, name: str) -> None:
    """Whatever the pieces, each crop's features are its own and in its place."""
    if name not in OTHERS:
        pytest.skip(f"{name} is not installed")
    crops = crops_of(224, 11)
    whole = engine(small, "torch")(crops)
    for batch in (1, 2, 4, 32):
        assert relative_error(engine(small, name, batch=batch)(crops), whole) < 1e-3
    threads = onnx_engine_from_file(graphs.graph(small), threads=5)
    assert relative_error(threads(crops), whole) < 1e-3


@pytest.mark.usefixtures("own_graphs")
def test_auto_measures_once_and_keeps_its_choice(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SECONDS", 0.05)
    assert selection.cached_choice(small.architecture, 4) is None
    first = engine(small, batch=4)
    assert first.name == selection.cached_choice(small.architecture, 4)
    (record,) = [io.read_json(path) for path in (io.cache_dir() / "graphs").glob("*.json")]
    assert set(record["crops_per_second"]) == set(OTHERS)  # PyTorch is not worth the time
    best = max(record["crops_per_second"], key=record["crops_per_second"].get)
    assert record["engine"] == first.name == best

    def never(*args: object) -> None:
        raise AssertionError("measured or converted again")

    monkeypatch.setattr(selection, "measure", never)
    other = load(SMALL, weights="random", seed=1)  # its weights do not change how fast it is
    assert engine(other, batch=4).name == first.name
    monkeypatch.setattr(graphs, "_convert", never)
    assert engine(small, batch=4).name == first.name
    assert selection.cached_choice(small.architecture, 8) is None  # another batch is another question


class Wrong:
    """Gives the right features for some weights, it may be, but not for these."""

    name = "openvino"

    def __call__(self, crops_NSS3: np.ndarray) -> np.ndarray:
        return np.ones((len(crops_NSS3), 512), np.float32)


@pytest.mark.usefixtures("own_graphs")
def test_an_engine_that_computes_something_else_is_not_chosen(
    small: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    make = {"torch": lambda: engine(small, "torch"), "wrong": Wrong}
    found = selection.measure(small, 2, make)
    assert found is not None
    assert found.name == "torch"
    assert selection.measure(small, 2, {"wrong": Wrong}) is None


@pytest.mark.usefixtures("own_graphs")
def test_a_lone_engine_is_not_timed(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr(selection, "rate", never)
    found = selection.measure(small, 2, {"wrong": Wrong, "onnxruntime": lambda: engine(small, "onnxruntime")})
    assert found is not None
    assert found.name == selection.cached_choice(small.architecture, 2) == "onnxruntime"


@pytest.mark.usefixtures("own_graphs")
@pytest.mark.skipif(not torch_has_half(), reason="PyTorch does not compute bfloat16 on this processor")
def test_half_falls_back_to_pytorch(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldmark.models.runtime.halves", lambda: ["openvino", "torch"])
    monkeypatch.setattr("fieldmark.models.runtime.installed", lambda: True)
    monkeypatch.setitem(ENGINES, "openvino", lambda backbone, batch: Wrong())
    half = small.computed(HALF)
    assert engine(half, batch=2).name == "torch"
    assert selection.cached_choice(small.architecture, 2, "half") is None  # it depends on the weights
    monkeypatch.setattr("fieldmark.models.runtime.torch_has_half", lambda: False)
    with pytest.raises(InputError, match="too far from float32"):
        engine(half, batch=2)


@pytest.mark.usefixtures("own_graphs")
def test_a_choice_made_for_other_weights_is_checked(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    monkeypatch.setattr("fieldmark.models.runtime.installed", lambda: True)
    monkeypatch.setitem(ENGINES, "openvino", lambda backbone, batch: Wrong())
    monkeypatch.setattr(selection, "cached_choice", lambda *_: "openvino")
    assert engine(small, batch=2).name == "onnxruntime"


@pytest.mark.usefixtures("own_graphs")
def test_what_engines_are_checked_with_is_made_anew_when_it_is_damaged(small: Backbone) -> None:
    graphs.graph(small)
    (kept,) = (io.cache_dir() / "graphs").glob("*.npy")
    good = kept.read_bytes()
    for damaged in (b"", good[:40], good[:-1]):
        kept.write_bytes(damaged)
        assert graphs.agrees(engine(small, "torch"), small)
        assert kept.read_bytes() == good


@pytest.mark.usefixtures("own_graphs")
def test_damage_in_the_cache_is_repaired(small: Backbone) -> None:
    path = graphs.graph(small)
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    with pytest.raises(StoreError, match="delete the file"):
        onnx_engine_from_file(path)
    for name in OTHERS:
        path.write_bytes(good[:1000])
        assert engine(small, name)(crops_of(224, 1)).shape == (1, 512)
    record = selection._path(selection.conditions(small.architecture, 2))
    record.write_text("{")
    assert selection.cached_choice(small.architecture, 2) is None


@pytest.mark.usefixtures("own_graphs")
def test_a_graph_that_differs_is_not_kept(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    other = load(SMALL, weights="random", seed=1)
    convert = graphs._convert
    monkeypatch.setattr(graphs, "_convert", lambda backbone, to: convert(other, to))
    with pytest.raises(InputError, match="other features when converted"):
        graphs.graph(small)
    assert cached_graph(small.key) is None
    assert list((io.cache_dir() / "graphs").glob("*.onnx*")) == []


@pytest.mark.usefixtures("own_graphs")
def test_a_network_that_cannot_be_converted_still_runs(
    small: Backbone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("torch.onnx.export", fails)
    with pytest.raises(InputError, match=r"cannot be converted .* such operator"):
        engine(small, "onnxruntime")
    assert engine(small).name == "torch"
    assert "no such operator" in capsys.readouterr().err


def test_an_unknown_engine_is_refused(small: Backbone) -> None:
    with pytest.raises(InputError, match="name auto, torch, onnxruntime, openvino"):
        engine(small, "tensorflow")


def test_a_missing_engine_says_how_to_get_it(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldmark.models.runtime.openvino.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fieldmark\[openvino\]'"):
        engine(small, "openvino")


def test_a_converted_graph_runs_without_pytorch(small: Backbone, tmp_path: Path) -> None:
    crops = crops_of(224, 2)
    np.save(tmp_path / "crops.npy", crops)
    graphs.graph(small)
    code = (
        "import sys, numpy as np\n"
        "from fieldmark.models.runtime import cached_graph, onnx_engine_from_file\n"
        "key, folder = sys.argv[1:]\n"
        "path = cached_graph(key)\n"
        "assert path is not None and cached_graph('0' * 64) is None\n"
        "features = onnx_engine_from_file(path)(np.load(folder + '/crops.npy'))\n"
        "np.save(folder + '/features.npy', features)\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    command = [sys.executable, "-c", code, small.key, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    features = np.load(tmp_path / "features.npy")
    assert relative_error(features, engine(small, "torch")(crops)) < 1e-3


@pytest.mark.skipif(not installed(), reason="OpenVINO is not installed")
def test_a_signal_is_heard_after_openvino_engines_are_gone(small: Backbone) -> None:
    """OpenVINO moves the stack of signal handlers, which has to outlive the engines."""
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from fieldmark.models.runtime.openvino import OpenVinoEngine\n"
        "first, second = (OpenVinoEngine(Path(sys.argv[1])) for _ in range(2))\n"
        "del first\n"
        "del second\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard'))\n"
        "signal.raise_signal(signal.SIGUSR1)"
    )
    command = [sys.executable, "-c", code, str(graphs.graph(small))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_the_gpu_engine_fills_up_its_batches(small: Backbone) -> None:
    """All of it but streams, pinned memory and the captured graph, for which it takes a GPU."""
    crops = crops_of(224, 7)
    whole = engine(small, "torch")(crops)
    for backbone, compute_dtype in ((small, "float32"), (small.computed(HALF), "float16")):
        run = cuda.CudaEngine(backbone, batch=3, device="cpu")
        assert run.compute_dtype == compute_dtype
        for count in (7, 6, 1):
            features = run(crops[:count])
            assert features.dtype == np.float32
            error = relative_error(features, whole[:count])
            assert error < (1e-5 if compute_dtype == "float32" else cuda.TOLERANCE)
    assert run(crops[:0]).shape == (0, 512)
    with pytest.raises(TypeError, match="uint8"):
        run(crops.astype(np.float32))


def test_the_gpu_engine_refuses_half_where_it_is_too_far_off(
    small: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda.CudaEngine, "tolerance", 1e-9)
    with pytest.raises(InputError, match=r"cannot compute half here \(the network is beyond what float16"):
        cuda.CudaEngine(small.computed(HALF), batch=3, device="cpu")


def test_without_a_gpu_one_is_told(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "available", lambda *_: False)
    for name in ("cuda", "mps"):
        with pytest.raises(InputError, match=f"the engine {name} needs a GPU"):
            engine(small, name)
    monkeypatch.setattr(selection, "cached_choice", lambda *_: "cuda")  # it was there when measured
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    assert engine(small, batch=2).name != "cuda"


@pytest.mark.usefixtures("own_graphs")
def test_auto_takes_the_gpu_where_it_is_fastest(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in: what `auto` does once PyTorch finds a GPU."""
    monkeypatch.setattr(selection, "SECONDS", 0.01)
    monkeypatch.setattr(cuda, "available", lambda *_: True)
    real = engine(small, "torch")

    class Quick:
        name = "cuda"
        tolerance = cuda.TOLERANCE
        preferred = 64
        seen: list[int] = []  # noqa: RUF012  # of the one class in this test

        def __call__(self, crops_NSS3: np.ndarray) -> np.ndarray:
            self.seen.append(len(crops_NSS3))
            if len(crops_NSS3) > 3:  # nothing is computed: no other engine is as quick
                return np.zeros((len(crops_NSS3), 512), np.float32)
            return np.asarray(real(crops_NSS3) * np.float32(1.003))

    monkeypatch.setitem(ENGINES, "cuda", lambda backbone, batch: Quick())
    assert engine(small, batch=2).name == "cuda"
    assert set(Quick.seen) == {3, 64}


@needs_gpu
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "densenet121", "resnext50_32x4d"])
def test_a_gpu_gives_the_same_features(name: str) -> None:
    backbone = load(name, weights="random")
    crops = crops_of(224, 9)
    whole = engine(backbone, "torch")(crops)
    run = cuda.CudaEngine(backbone, batch=2)  # five batches: both slots, more than once
    for _ in range(2):
        assert relative_error(run(crops), whole) < cuda.TOLERANCE


@pytest.mark.shared
@pytest.mark.parametrize("name", [SMALL, "tf_efficientnet_lite0"])
def test_engines_give_the_same_answer_on_real_photos(shared: Path, name: str) -> None:
    """By the networks' own last layers, with the weights that they were published with."""
    folder = shared / "data" / "imagenet-sample"
    crop = Preprocess()
    crops = np.stack([crop.crop(path.read_bytes()) for path in sorted(folder.glob("*.JPEG"))])
    assert len(crops) == 100
    backbone = load(name, weights_dir=shared / "weights")
    state = backbone.network.state_dict()
    path = backbone.architecture.last_layer_path
    weight = state[f"{path}.weight"].flatten(1).numpy()
    bias = state[f"{path}.bias"].numpy()

    def answers(engine_name: str) -> np.ndarray:
        answer: np.ndarray = (engine(backbone, engine_name)(crops) @ weight.T + bias).argmax(1)
        return answer

    reference = answers("torch")
    assert len(set(reference)) > 30  # it does tell them apart
    for other in OTHERS:
        assert (answers(other) == reference).mean() >= 0.999, other


@pytest.mark.usefixtures("own_graphs")
def test_a_full_disk_is_no_fault_of_the_network(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tracing, "trace", full)
    with pytest.raises(InputError, match=r"could not be written \(No space left on device\): free some"):
        runtime.graph(small)
