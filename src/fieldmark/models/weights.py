"""Find, download and read weights safely, and load them into a network.

Weights are searched in the user's folder, the Python package with EfficientNet-Lite0, the download
caches of torchvision and timm, and then on the internet, with a short time-out for machines without it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldmark.models import hub, libraries, onnx_graph, reachable, timm
from fieldmark.models.architecture import HUB, HUB_FILES, Architecture, WeightsInfo
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, WeightsUnavailable, first_line
from fieldmark.utils.logging import progress_bar

if TYPE_CHECKING:
    import torch
    from torch import nn

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_STALLED_AFTER = 30.0  # seconds without a byte until a download fails
_COUNTER = "num_batches_tracked"  # BatchNorm's count of batches: unused, and often not in files
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


def find(facts: Architecture, weights: str | Path, weights_dir: Path | str | None) -> Path | None:
    """Return the file of weights; None for random weights.

    `weights` is "pretrained", "random", or the path of a file; `weights_dir` is searched first.

    Raises:
        InputError: the file or folder does not exist, or two files in it match.
        WeightsUnavailable: pretrained weights are not on this machine and cannot be downloaded.
    """
    if weights == "random":
        if facts.library == "onnx":
            raise InputError(f"{facts.name} has its weights in its file: leave --weights random out.")
        return None
    if weights != "pretrained":
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"{path} is not a file of weights: give a path to one, 'pretrained' or 'random'."
            )
        return path
    return find_local(facts, weights_dir) or download(facts)


def find_local(facts: Architecture, weights_dir: Path | str | None = None) -> Path | None:
    """Return the local file of pretrained weights, or None."""
    if facts.library == "onnx":
        return Path(facts.url)
    if weights_dir is not None and (path := _in_folder(facts, Path(weights_dir))):
        return path
    if path := timm.packaged_weights(facts.name):
        return path
    if facts.url.endswith(HUB_FILES):
        return hub.weights(facts, here=True)
    cached = _downloads() / facts.file_name
    return cached if facts.url and cached.is_file() else None


def _in_folder(facts: Architecture, folder: Path) -> Path | None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one that holds files of weights.")
    here = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    for found in (
        [path for path in here if path.stem == facts.stem],
        [path for path in here if path.name == facts.file_name],
        [path for path in here if re.match(re.escape(facts.stem) + r"[-_.]", path.name)],
    ):
        if len(found) > 1:
            raise InputError(
                f"{folder} holds {' and '.join(path.name for path in found)}, which could each be the "
                f"weights of {facts.name}: leave one of them there, or name it as the file of weights."
            )
        if found:
            return found[0]
    return None


def _downloads() -> Path:
    """Return PyTorch's download cache (`torch.hub`) without importing PyTorch."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or caches / "torch") / "hub" / "checkpoints"


def download(facts: Architecture) -> Path:
    """Download the published weights into PyTorch's download cache.

    Raises:
        WeightsUnavailable: the server does not answer, the download is interrupted or has a wrong digest.
    """
    if not facts.url:
        raise _unavailable(facts, "have no URL")
    if facts.url.endswith(HUB_FILES):
        if path := hub.weights(facts):
            return path
        offline = facts.url.startswith(HUB) and reachable.is_offline()
        raise _unavailable(facts, f"are {hub.NOT_CACHED}" if offline else f"are not at {facts.url}")
    if not reachable.is_reachable(facts.url):
        raise _unavailable(facts, f"could not be downloaded from {facts.url}")
    from fieldmark.data.download.http import Downloads, RetryPolicy, WrongContent

    path, digest = _downloads() / facts.file_name, _DIGEST_IN_NAME.search(facts.file_name)

    def check(part: Path) -> None:
        if digest and not io.sha256(part.read_bytes()).startswith(digest[1]):
            raise WrongContent("it does not match the digest in its name")

    policy = RetryPolicy(tries=2, timeout=_STALLED_AFTER)
    try:
        with progress_bar(f"weights of {facts.name}", unit="B") as bar, Downloads(policy) as server:
            server.save(facts.url, path, check, bar.at)
    except InputError as error:
        reason = f"could not be downloaded from {facts.url} ({error.__cause__ or error})"
        raise _unavailable(facts, reason) from error
    return path


def _unavailable(facts: Architecture, reason: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"the weights of {facts.name} are not on this machine and {reason}: put the file "
        f"{facts.file_name or facts.stem + '.safetensors'} into a folder and name the folder with "
        "--weights-dir, or use random weights or another network."
    )


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights: its name, its SHA-256, and its tensors by name."""

    source: str
    digest: str
    state: dict[str, torch.Tensor]


def read(path: Path) -> Weights:
    """Read a safetensors file or a state dict, without running code in it.

    A state dict may be under "state_dict", "model_state_dict" or "model" in a checkpoint, and its names
    may begin with "module." (from parallel training). Of an index in the hub's layout, the files that it
    names are read.

    Raises:
        InputError: it cannot be read, has other values than tensors, or would run code.
    """
    if path.name.endswith(hub.INDEX):
        parts = [read(path.parent / each) for each in hub.parts(path)]
        state = {name: tensor for part in parts for name, tensor in part.state.items()}
        return Weights(path.name, io.digest([part.digest for part in parts]), state)
    try:
        data = path.read_bytes()
        if path.suffix == ".onnx":
            import torch

            graph = onnx_graph.read(path).SerializeToString(deterministic=True)
            value: Any = {onnx_graph.TENSOR: torch.frombuffer(bytearray(graph), dtype=torch.uint8)}
        elif path.suffix == ".safetensors":
            import safetensors.torch

            value = safetensors.torch.load(data)
        else:
            import torch

            value = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file may raise anything in a parser
        raise InputError(
            f"{path} cannot be read as weights ({first_line(error).rstrip('.')[:200]}): it must be a "
            "safetensors file or a state dict of tensors alone."
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
    return Weights(path.name, io.sha256(data), _tensors(value, path))


def _tensors(value: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{path} has no tensors by name: it must be a state dict.")
    state: dict[str, torch.Tensor] = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise InputError(f"{path}: {str(name)!r} is not a tensor: it must be a state dict.")
        # A single infinity is no damage: it is a limit that is never reached (Gemma 4's clamps).
        wrong = tensor.isnan() if tensor.numel() == 1 else ~tensor.isfinite()
        if tensor.is_floating_point() and bool(wrong.any()):
            raise InputError(f"{path}: {name!r} has values that are not finite: download it again.")
        state[name.removeprefix("module.")] = tensor
    return state


def fill(facts: Architecture, network: nn.Module, weights: Weights) -> WeightsInfo:
    """Load the tensors of a file into a network, in place, and return what was filled.

    A last layer of another size (for other classes) is skipped.

    Raises:
        InputError: the file fills nothing of the trunk, or a tensor has another shape.
    """
    ours = network.state_dict()
    state = libraries.of(facts).renamed(facts, network, weights.state)
    fits: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if (wanted := ours.get(name)) is None:
            continue
        if value.shape == wanted.shape and value.is_floating_point() == wanted.is_floating_point():
            fits[name] = value
        elif not name.startswith(f"{facts.last_layer_path}."):
            raise InputError(
                f"{weights.source} does not fit {facts.name}: {name!r} is {_form(value)} there and "
                f"{_form(wanted)} in the network; name the network that these weights are of."
            )
    trunk = _counted(ours, facts.last_layer_path)
    random = tuple(name for name in trunk if name not in fits)
    if len(random) == len(trunk):
        raise InputError(
            f"{weights.source} fills nothing of {facts.name}: its first tensor is "
            f"{next(iter(weights.state))!r}, the network's is {trunk[0]!r}; name the network that "
            "these weights are of."
        )
    network.load_state_dict(fits, strict=False)
    ignored = tuple(name for name in state if name not in fits)
    filled = len(trunk) - len(random)
    return WeightsInfo(weights.source, weights.digest, filled, len(trunk), random, ignored)


def random_weights_info(facts: Architecture, network: nn.Module, seed: int) -> WeightsInfo:
    """Return the info of a network with random weights."""
    trunk = _counted(network.state_dict(), facts.last_layer_path)
    return WeightsInfo(f"random (seed {seed})", None, 0, len(trunk), trunk)


def trunk_names(state: Mapping[str, torch.Tensor], last_layer_path: str) -> list[str]:
    """Return the names of all tensors that do not belong to the last layer."""
    return [name for name in state if not name.startswith(last_layer_path + ".")]


def _counted(state: Mapping[str, torch.Tensor], last_layer_path: str) -> tuple[str, ...]:
    return tuple(name for name in trunk_names(state, last_layer_path) if _COUNTER not in name)


def _form(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def digest_of_values(network: nn.Module, last_layer_path: str) -> str:
    """Return a SHA-256 of the names, shapes and bytes of the trunk's tensors."""
    state = network.state_dict()
    hasher = hashlib.sha256()
    for name in _counted(state, last_layer_path):
        value = state[name].detach().cpu().contiguous()
        hasher.update(f"{name}{_form(value)}".encode())
        hasher.update(value.numpy().data)
    return hasher.hexdigest()
