"""ONNX graphs: tracing a PyTorch network, and names that do not clash where graphs are joined."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

OPSET = 17  # of every graph; ONNX Runtime from 1.12 on


def trace(module: nn.Module, example: torch.Tensor, to: Path) -> None:
    """Write a network in evaluation mode as a graph from `crops` to `features`, for any number of crops.

    PyTorch's newer exporter needs onnxscript and takes ten times as long. The older one traces, which is
    exact for such a network. It may raise anything.

    Args:
        module: the network.
        example: what it is traced with; a batch of two, so that its number is no constant.
        to: the file.
    """
    import torch
    from torch.onnx.utils import register_custom_op_symbolic

    register_custom_op_symbolic("aten::rms_norm", _rms_norm, OPSET)
    with warnings.catch_warnings():
        # The deprecation of the exporter, and warnings of the tracer about constant conditions.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            to,
            dynamo=False,
            opset_version=OPSET,
            input_names=["crops"],
            output_names=["features"],
            dynamic_axes={"crops": {0: "n"}, "features": {0: "n"}},
        )


def _rms_norm(g: Any, x: Any, shape: Any, weight: Any, epsilon: Any) -> Any:
    """Write root mean square normalisation (Zhang and Sennrich, 2019), for which the exporter has no rule."""
    import torch
    from torch.onnx import symbolic_helper

    helper: Any = symbolic_helper
    axes = [-1 - axis for axis in range(len(helper._get_const(shape, "is", "shape")))]
    small = helper._get_const(epsilon, "f", "epsilon")
    small = torch.finfo(torch.float32).eps if small is None else small
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes_i=axes)
    root = g.op("Sqrt", g.op("Add", mean, g.op("Constant", value_t=torch.tensor(small))))
    normalised = g.op("Div", x, root)
    given = not helper._is_none(weight)
    return g.op("Mul", normalised, weight) if given else normalised


def prefixed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """Return a copy with a prefix before every name, also in the graphs that its nodes hold.

    `onnx.compose.add_prefix` leaves out what such a graph (a branch of an `If`) takes from the one around it.
    """
    graph = copy.deepcopy(graph)
    _rename(graph, prefix)
    return graph


def _rename(graph: onnx.GraphProto, prefix: str) -> None:
    for tensor in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        tensor.name = prefix + tensor.name
    for node in graph.node:
        node.name = node.name and prefix + node.name
        node.input[:] = [name and prefix + name for name in node.input]
        node.output[:] = [name and prefix + name for name in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, prefix)
