"""Networks of one's own as ONNX files, `onnx:PATH`: traced by PyTorch, or exported by any other library.

Input: normalised crops, float32 (N, 3, H, W). Output: features (N, D), or a feature map (N, D, h, w), whose
mean they are. The file's metadata, or settings behind the path, say what the file does not:
`onnx:net.onnx,size=224,mean=0.5/0.5/0.5,std=0.5/0.5/0.5,name=mine,licence=MIT`. The graph is the only tensor
of the network, so that a classifier's folder holds it, and needs neither the file nor the code behind it.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.data.transforms import MAX_SIZE
from fieldmark.models.architecture import IMAGENET_MEAN, IMAGENET_STD, LAST, Architecture, triple
from fieldmark.models.tracing import OPSET, prefixed, trace
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, first_line

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from fieldmark.models.backbone import Backbone

PREFIX = "onnx:"
TENSOR = "network.graph"
"""The name of the graph among the tensors of a network: the bytes of the file."""

_SIZE = 224
_SETTINGS = ("name", "size", "mean", "std", "licence")


def architecture(name: str) -> Architecture:
    """Return the architecture of the network in an ONNX file, `onnx:PATH` with settings behind commas.

    Raises:
        InputError: there is no such file, it gives no features of crops, or a setting cannot be.
    """
    path, *given = name.removeprefix(PREFIX).split(",")
    model = read(Path(path))
    own = {each.key: each.value for each in model.metadata_props if each.key in _SETTINGS}
    for each in given:
        key, _, own[key] = each.partition("=")
    if unknown := [key for key in own if key not in _SETTINGS]:
        raise InputError(f"{name} has a setting {unknown[0]!r}: choose {', '.join(_SETTINGS)}.")
    side = _side(model, own.get("size"), path)
    mean, std = (
        _three(own.get(key, usual), key, path)
        for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    data = model.SerializeToString(deterministic=True)
    features = _tried(data, side, path)
    return Architecture(
        name=PREFIX + own.get("name", Path(path).stem),
        library="onnx",
        feature_dim=features,
        input_size=side,
        mean=mean,
        std=std,
        last_layer="None of its own; the features are the output of the graph, the mean of a map.",
        last_layer_path=LAST,
        giga_macs=_giga_macs(model, side),
        licence=own.get("licence", "not stated in its file"),
        url=str(Path(path).absolute()),
        config=json.dumps({"bytes": len(data)}),
    )


def read(path: Path) -> onnx.ModelProto:
    """Read a file as a graph of the opset of exports, for any number of crops.

    Raises:
        InputError: it is not an ONNX file, or not one of a network as this module says.
    """
    import onnx
    from onnx import inliner, version_converter

    if not path.is_file():
        raise InputError(f"{path} is not a file: name an ONNX file as {PREFIX}PATH.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        if opset != OPSET:
            model = version_converter.convert_version(model, OPSET)
    except Exception as error:  # of a parser or converter, for a file from anywhere
        raise InputError(
            f"{path} is not an ONNX graph that can be used ({first_line(error)[:200]}): export it with "
            f"opset_version={OPSET}."
        ) from error
    model = inliner.inline_local_functions(model)
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    shapes = [[each.dim_value for each in put.type.tensor_type.shape.dim] for put in inputs]
    is_float = [put.type.tensor_type.elem_type for put in inputs] == [onnx.TensorProto.FLOAT]
    if not is_float or len(shapes[0]) != 4 or shapes[0][1] != 3 or len(model.graph.output) != 1:
        raise InputError(
            f"{path} cannot be a backbone: it must have one input, float32 (N, 3, H, W), and one output."
        )
    for put in (inputs[0], model.graph.output[0]):
        if put.type.tensor_type.shape.dim:
            put.type.tensor_type.shape.dim[0].dim_param = "n"
    del model.graph.value_info[:]
    return model


def write(
    module: nn.Module,
    path: Path,
    *,
    size: int = _SIZE,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    name: str = "",
    licence: str = "",
) -> Path:
    """Trace a PyTorch network of one's own as an ONNX file with its settings; for `onnx:PATH`.

    Args:
        module: normalised crops, float32 (N, 3, S, S), to features (N, D) or a feature map (N, D, h, w).
        path: the file.
        size: the side S of its crops, in pixels.
        mean, std: of pixels in [0, 1], for R, G and B.
        name, licence: of the network and its weights; empty: the file's name, and not stated.

    Raises:
        InputError: PyTorch cannot trace it.
    """
    import onnx
    import torch

    own = copy.deepcopy(module).cpu().eval()
    told = {"size": str(size), "mean": _text(mean), "std": _text(std), "name": name, "licence": licence}
    with io.replacing(path) as temporary:
        try:
            trace(own, torch.zeros(2, 3, size, size), temporary)
        except Exception as error:  # the tracer runs code of others
            raise InputError(
                f"{type(module).__name__} cannot be traced as an ONNX graph of crops of {size} pixels "
                f"({first_line(error)[:200]}): export it yourself, and name it as {PREFIX}PATH."
            ) from error
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, {key: value for key, value in told.items() if value})
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return path


def traced(network: nn.Module | Backbone, size: int | None) -> str:
    """Trace a network of one's own into the cache; return its name, `onnx:PATH`. See `write`."""
    from torch import nn

    folder = io.cache_dir() / "own"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{os.getpid()}-{id(network)}.onnx"
    if isinstance(network, nn.Module):
        write(network, made, size=size or _SIZE, name=type(network).__name__)
    else:
        write_trunk(network.at(size) if size else network, made)
    named = folder / f"{io.file_digest(made)[:32]}.onnx"
    return PREFIX + str(made.replace(named))


def write_trunk(backbone: Backbone, path: Path) -> Path:
    """Trace the layers of a backbone but its last as an ONNX file, for crops of its size. See `write`."""
    facts = backbone.architecture
    about: dict[str, Any] = {"size": facts.input_size, "mean": facts.mean, "std": facts.std}
    return write(backbone.trunk.features, path, **about, name=facts.stem, licence=facts.licence)


def compose(facts: Architecture, network: nn.Module) -> onnx.ModelProto:
    """Return the graph from crops to features: uint8 (N, S, S, 3) to float32 (N, D)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(_bytes(network.get_submodule("network").graph))  # type: ignore[arg-type]
    graph = prefixed(model.graph, "own_")
    side, names = facts.input_size, {each.name for each in graph.initializer}
    [source] = [each.name for each in graph.input if each.name not in names]
    constants = {
        "divisor": np.array(255, np.float32),
        **{
            key: np.array(value, np.float32).reshape(1, 3, 1, 1)
            for key, value in (("mean", facts.mean), ("std", facts.std))
        },
    }
    before = [
        helper.make_node("Transpose", ["crops"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["values", "divisor"], ["shares"]),
        helper.make_node("Sub", ["shares", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], [source]),
    ]
    pooled, result = graph.output[0].name, "features"
    rank = len(graph.output[0].type.tensor_type.shape.dim)
    after = [helper.make_node("Flatten", [pooled], [result])]
    if rank == 4:
        after = [
            helper.make_node("GlobalAveragePool", [pooled], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], [result]),
        ]
    value = helper.make_tensor_value_info
    whole = helper.make_graph(
        [*before, *graph.node, *after],
        "fieldmark",
        [value("crops", TensorProto.UINT8, ["n", side, side, 3])],
        [value(result, TensorProto.FLOAT, ["n", facts.feature_dim])],
        [*(numpy_helper.from_array(each, key) for key, each in constants.items()), *graph.initializer],
    )
    return helper.make_model(
        whole, ir_version=max(8, model.ir_version), opset_imports=list(model.opset_import)
    )


def build(facts: Architecture) -> nn.Module:
    """Build the network without its graph, before a linear last layer."""
    from fieldmark.models.network import GraphNetwork, with_last

    return with_last(GraphNetwork(int(json.loads(facts.config)["bytes"])), facts.feature_dim)


def renamed(
    _facts: Architecture, _network: nn.Module, state: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Return the tensors as they are: they are named by `weights.read`."""
    return state


def _bytes(graph: torch.Tensor) -> bytes:
    return graph.detach().cpu().numpy().tobytes()


def _side(model: onnx.ModelProto, given: str | None, path: str) -> int:
    height, width = (each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim[2:])
    wanted = int(given) if given and given.isdecimal() else None
    side = wanted or height or _SIZE
    if (given and not wanted) or height != width or side not in (height or side, width or side):
        raise InputError(f"{path} takes crops of {height} x {width} pixels: size={given} cannot be.")
    if side > MAX_SIZE:
        raise InputError(f"{path} takes crops of {side} pixels: at most {MAX_SIZE} are possible.")
    return side


def _three(value: object, key: str, path: str) -> tuple[float, float, float]:
    try:
        three = triple(value.split("/") if isinstance(value, str) else value)
    except ValueError:
        three = (np.nan, np.nan, np.nan)
    if not np.isfinite(three).all() or (key == "std" and min(three) <= 0):
        raise InputError(f"{path}: {key}={value} must be three numbers, such as 0.5/0.5/0.5.")
    return three


def _text(three: tuple[float, float, float]) -> str:
    return "/".join(map(repr, three))


def _tried(data: bytes, side: int, path: str) -> int:
    """Run a graph on one and on three crops; return D, the length of a feature vector."""
    crops = np.random.default_rng(0).standard_normal((3, 3, side, side), dtype=np.float32)
    from fieldmark.models.network import session

    try:
        run = session(data)
        name = run.get_inputs()[0].name
        found = [run.run(None, {name: part})[0] for part in (crops, crops[:1])]
    except Exception as error:  # ONNX Runtime's errors have no common root but this
        raise InputError(
            f"{path} cannot be run on crops of {side} pixels, one or several at a time "
            f"({first_line(error)[:200]}): export it with a dynamic batch axis, or give its size."
        ) from error
    shape = found[0].shape
    if len(shape) not in (2, 4) or found[0].dtype != np.float32 or [len(each) for each in found] != [3, 1]:
        raise InputError(
            f"{path} gives {found[0].dtype} {shape}: features are float32 (N, D) or (N, D, h, w)."
        )
    if not np.allclose(found[0][:1], found[1], rtol=1e-3, atol=1e-3 * np.abs(found[1]).max()):
        raise InputError(f"{path} gives other features for a crop among others than for the crop alone.")
    return int(shape[1])


def _giga_macs(model: onnx.ModelProto, side: int) -> float:
    """Count the multiply-adds of convolutions and matrix products for one crop; 0.001 where unknown."""
    import onnx

    model = copy.deepcopy(model)
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, side, side), strict=True):
        dim.dim_value = value
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {each.name: list(each.dims) for each in graph.initializer}
    for each in (*graph.value_info, *graph.output, *graph.input):
        shapes[each.name] = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        out = int(np.prod(shapes.get(node.output[0], [0])))
        if node.op_type == "Conv":  # weights (outputs, inputs of a group, kernel)
            total += out * int(np.prod(shapes.get(node.input[1], [0])[1:]))
        elif node.op_type in ("MatMul", "Gemm"):
            last = -2 if any(each.name == "transA" and each.i for each in node.attribute) else -1
            total += out * (shapes.get(node.input[0]) or [0])[last]
    return max(0.001, round(total / 1e9, 3))
