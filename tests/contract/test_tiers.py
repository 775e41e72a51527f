"""The contract of the tiers of precision, for every engine: near to float32, another key, or refused."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from fieldmark.models import Backbone, load
from fieldmark.models.runtime import (
    CONVERTED,
    ENGINES,
    HALF,
    Tier,
    base,
    cuda,
    engine,
    graphs,
    openvino,
    quantise,
    quantised_engine,
    relative_error,
)
from fieldmark.utils import io
from fieldmark.utils.errors import InputError
from fieldmark.utils.random import generator

HAS_NNCF = openvino.installed() and find_spec("nncf") is not None
THERE = {"torch": True, "onnxruntime": True, "openvino": openvino.installed()}
THERE |= {"cuda": cuda.available(), "mps": cuda.available("mps")}
HERE = [name for name in ENGINES if THERE[name]]
MADE_FOR = [name for name in CONVERTED if name != "openvino" or HAS_NNCF]
LARGEST = 0.25
"""The largest distance of an int8 vector of this network from the float32 one, relative to its length."""


@pytest.fixture(scope="module")
def small() -> Backbone:
    return load("squeezenet1_1", weights="random")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Crops with structure of 16 pixels, nearer to photos than noise is."""
    coarse = generator(4, "int8").integers(0, 256, (20, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


@pytest.mark.parametrize("name", MADE_FOR)
def test_int8_is_near_float32_and_has_a_key_of_its_own(
    small: Backbone, crops: np.ndarray, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = quantise.quantised(small, crops[:10], name)
    assert "quantised to int8" in capsys.readouterr().err  # and no bar or advice of the tools
    exact = engine(small, "onnxruntime")(crops)
    for other in [each for each in CONVERTED if THERE[each]]:  # made for one, run by any
        run = engine(found, other)
        assert run.name == other
        features = run(crops)
        assert features.dtype == np.float32
        assert 1e-3 < relative_error(features, exact) < LARGEST, other
    assert engine(found).name == name
    assert len({found.key, small.key, small.computed(HALF).key}) == 3
    others = quantise.quantised(small, crops[:8], name)
    assert others.key != found.key  # the ranges of other photos are other features
    again = quantise.quantised(small, crops[:10], name)
    assert (again.key, again.tier) == (found.key, found.tier)
    assert capsys.readouterr().err.count("quantised to int8") == 1  # of the other photos only
    assert found.exact.key == small.key


@pytest.mark.parametrize("name", sorted(set(HERE) - set(CONVERTED)))
def test_engines_without_int8_refuse_it(small: Backbone, crops: np.ndarray, name: str) -> None:
    with pytest.raises(InputError, match=rf"the engine {name} cannot compute int8: use --engine openvino"):
        quantise.quantised(small, crops, name)
    found = quantise.quantised(small, crops[:8], "onnxruntime")
    with pytest.raises(InputError, match=rf"the engine {name} cannot compute int8"):
        engine(found, name)


def test_int8_in_openvino_needs_nncf(
    small: Backbone, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'fieldmark\[int8\]', or use --engine onnxruntime"):
        quantise.quantised(small, crops, "openvino")
    assert quantise.engine_for("auto") == "onnxruntime"


@pytest.mark.usefixtures("own_graphs")
def test_int8_needs_photos_and_a_network_that_can_be_quantised(
    small: Backbone, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="by 8 photos or more"):
        quantise.quantised(small, crops[:7])

    def fails(*_: object) -> object:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(quantise, "_by_onnxruntime", fails)
    with pytest.raises(InputError, match=r"cannot be quantised \(no such operator\): use --compute exact"):
        quantise.quantised(small, crops, "onnxruntime")
    assert not list((io.cache_dir() / "graphs").glob("*int8*"))  # nothing half made is left


def test_a_graph_goes_along_to_another_process(small: Backbone, crops: np.ndarray) -> None:
    import pickle

    tier = quantise.quantised(small, crops[:8], "onnxruntime").tier
    sent = pickle.dumps(tier)
    assert tier.graph is not None
    tier.graph.unlink()
    received = pickle.loads(sent)  # noqa: S301  # as for a cluster
    assert received.key_of(small.key) == tier.key_of(small.key)
    assert quantised_engine(received)(crops[:2]).shape == (2, 512)
    assert io.file_digest(received.graph) == tier.digest


# Half


@pytest.mark.parametrize("name", HERE)
def test_half_is_near_float32_or_refused_in_one_sentence(
    small: Backbone, crops: np.ndarray, name: str
) -> None:
    has = {"openvino": openvino.installed() and openvino.half() is not None, "torch": base.torch_has_half()}
    half = small.computed(HALF)
    if has.get(name, name in ("cuda", "mps")):
        run = engine(half, name)
        assert 1e-5 < relative_error(run(crops), engine(small, "torch")(crops)) < run.tolerance  # type: ignore[attr-defined]
        return
    with pytest.raises(InputError, match=rf"the engine {name} cannot compute half here \(.*\): use --comp"):
        engine(half, name)


def test_devices_without_the_capability_refuse_half(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8", "BIN", "EXPORT_IMPORT"]

    half = small.computed(HALF)
    monkeypatch.setattr(cuda, "available", lambda *_: False)
    monkeypatch.setattr(base, "torch_has_half", lambda: False)
    monkeypatch.setattr("fieldmark.models.runtime.torch_has_half", lambda: False)
    if openvino.installed():
        monkeypatch.setattr(openvino, "_core", Old)
        with pytest.raises(InputError, match=r"openvino cannot compute half here \(this processor has no bf"):
            engine(half, "openvino")
    with pytest.raises(InputError, match=r"torch cannot compute half here \(this processor has no bf16\)"):
        engine(half, "torch")
    with pytest.raises(InputError, match="nothing here computes half"):
        engine(half)


@pytest.mark.skipif(not openvino.installed(), reason="OpenVINO is not installed")
@pytest.mark.parametrize(("states", "hint"), [("BF16", "bf16"), ("FP16", "f16")])
def test_openvino_takes_the_type_that_the_device_states(
    small: Backbone, monkeypatch: pytest.MonkeyPatch, states: str, hint: str
) -> None:
    """With a device that states it: what OpenVINO is asked for."""
    asked = {}

    class New:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", states]

        def compile_model(self, _path: str, _device: str, options: dict[str, object]) -> object:
            asked.update(options)
            return object()

    monkeypatch.setattr(openvino, "_core", New)
    for tier, wanted in ((HALF, hint), (Tier(), "f32")):
        engine(small.computed(tier), "openvino")
        assert asked["INFERENCE_PRECISION_HINT"] == wanted


def test_half_in_pytorch_is_bfloat16(
    small: Backbone, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any processor computes it, the older ones slowly: so it can be checked on all."""
    monkeypatch.setattr(base, "torch_has_half", lambda: True)
    run = engine(small.computed(HALF), "torch")
    assert 1e-4 < relative_error(run(crops[:3]), engine(small, "torch")(crops[:3])) < base.HALF_TOLERANCE


def test_half_of_published_weights_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained weights spread further than random ones: the default network is 4 to 8 % off in 16 bits."""
    monkeypatch.setattr(base, "torch_has_half", lambda: True)
    backbone = load("tf_efficientnet_lite0").computed(HALF)
    assert graphs.agrees(engine(backbone, "torch"), backbone)
    if openvino.installed() and openvino.half():
        assert graphs.agrees(engine(backbone, "openvino"), backbone)


def test_half_that_is_too_far_from_float32_is_refused(
    small: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldmark.models.runtime.halves", lambda: ["torch"])
    monkeypatch.setattr(base, "torch_has_half", lambda: True)
    monkeypatch.setattr(base, "HALF_TOLERANCE", 1e-9)
    with pytest.raises(InputError, match="squeezenet1_1 are too far from float32"):
        engine(small.computed(HALF))
