"""Networks of open_clip, timm and transformers in the hub's layouts, from a folder and from a server.

The weights are generated: tiny networks with the tensors' names and the configurations of published ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from fieldmark import Classifier, models
from fieldmark.models import reachable, weights
from fieldmark.utils.errors import ClassifierError, InputError

models.import_torchvision()
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY: dict[str, Any] = {**SMALL, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
WORDS: dict[str, Any] = {**SMALL, "intermediate_size": 64, "vocab_size": 50000}
CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
TIMM_TOWER: dict[str, Any] = {
    **CLIP,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}
TIMM: dict[str, Any] = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 5,
    "global_pool": "token",
    "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
    "pretrained_cfg": {
        **{"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9},
        **{"interpolation": "bicubic", "classifier": "head", "first_conv": "patch_embed.proj"},
        "license": "apache-2.0",
    },
}
PAGE = "---\nlicense: cc-by-nc-4.0\ntags:\n- biology\n---\n# A network\n"


@dataclass
class Published:
    """A folder as on the hub, and what the library computes by its own means from normalised pixels."""

    folder: Path
    own: Callable[[torch.Tensor], torch.Tensor]

    @property
    def name(self) -> str:
        return f"local-dir:{self.folder}"


def write(folder: Path, **files: object) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "README.md").write_text(PAGE)


def clip(folder: Path, config: dict[str, Any] = CLIP) -> Published:
    network = open_clip.CLIP(**config).eval()
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.1], "resize_mode": "squash"}
    write(folder, open_clip_config={"model_cfg": config, "preprocess_cfg": pixels})
    return Published(folder, lambda pixels: network.encode_image(pixels, normalize=True))


def timm(folder: Path) -> Published:
    import timm

    network: Any = timm.create_model(TIMM["architecture"], num_classes=5, **TIMM["model_args"]).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    write(folder, config=TIMM)
    return Published(
        folder, lambda pixels: network.forward_head(network.forward_features(pixels), pre_logits=True)
    )


def hugging(folder: Path, kind: str) -> Published:
    pair = {"vision_config": TINY, "text_config": WORDS}
    config, top = {
        "dinov2": (transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8), None),
        "dinov3": (transformers.DINOv3ViTConfig(**TINY), None),
        "vit": (transformers.ViTConfig(**TINY, num_labels=3), transformers.ViTForImageClassification),
        "siglip": (transformers.SiglipConfig(**pair), None),
        "clip": (transformers.CLIPConfig(**pair, projection_dim=24), None),
    }[kind]
    network = (top(config) if top else transformers.AutoModel.from_config(config)).eval()
    network.save_pretrained(folder)
    write(folder, preprocessor_config={"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3]})

    def own(pixels: torch.Tensor) -> torch.Tensor:
        if kind in ("siglip", "clip"):
            return normalize(network.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        if kind == "vit":  # what its last layer reads
            return network.vit(pixels).last_hidden_state[:, 0]
        return network(pixel_values=pixels).pooler_output

    return Published(folder, own)


KINDS: dict[str, Callable[[Path], Published]] = {
    "open_clip": clip,
    "open_clip-timm": lambda folder: clip(folder, TIMM_TOWER),
    "timm": timm,
    **{
        kind: lambda folder, kind=kind: hugging(folder, kind)  # type: ignore[misc]
        for kind in ("dinov2", "dinov3", "vit", "siglip", "clip")
    },
}
ONE_OF_EACH = ("open_clip", "timm", "dinov2")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Published]:
    """A folder a kind of network. Not to be changed."""
    found = {}
    for kind, make in KINDS.items():
        folder = tmp_path_factory.mktemp("hub") / kind
        folder.mkdir()
        torch.manual_seed(len(kind))
        found[kind] = make(folder)
    return found


def crops(side: int) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8))


# --- features --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_librarys_own(published: dict[str, Published], kind: str) -> None:
    found = models.load(published[kind].name)
    assert found.weights_info.complete
    assert found.architecture.licence == "cc-by-nc-4.0, as its page says"
    with torch.inference_mode():
        expected = published[kind].own(found.trunk.pixels(crops(found.architecture.input_size)))
        features = found.trunk(crops(found.architecture.input_size))
    assert features.shape == (2, found.architecture.feature_dim)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_pixels_and_licence_are_those_of_the_files(published: dict[str, Published], tmp_path: Path) -> None:
    assert models.architecture(published["open_clip"].name).mean == (0.4, 0.5, 0.6)
    assert models.architecture(published["open_clip"].name).preprocess.fit == "squash"
    assert models.architecture(published["timm"].name).mean == (0.5, 0.4, 0.3)
    assert models.architecture(published["dinov2"].name).std == (0.5, 0.4, 0.3)
    for kind, licence in (("timm", "apache-2.0"), ("dinov2", "not stated on its page")):
        folder = shutil.copytree(published[kind].folder, tmp_path / kind)
        (folder / "README.md").unlink()
        assert models.architecture(f"local-dir:{folder}").licence == licence


@pytest.mark.parametrize("kind", ["open_clip", "dinov2", "dinov3", "siglip"])
def test_other_sides_work_or_are_refused(published: dict[str, Published], kind: str) -> None:
    found = models.load(published[kind].name)
    if kind in ("open_clip", "siglip"):
        with pytest.raises(InputError, match="takes crops of 32 pixels only, not of 48"):
            found.at(48)
        return
    with torch.inference_mode():
        expected = published[kind].own(found.trunk.pixels(crops(48)))
        torch.testing.assert_close(found.at(48).trunk(crops(48)), expected, rtol=1e-5, atol=1e-6)


def test_names_of_open_clip() -> None:
    found = models.architecture("open_clip:ViT-B-32.openai")
    assert json.loads(found.config)["model_cfg"]["quick_gelu"]  # which its configuration has not
    assert (found.feature_dim, found.input_size) == (512, 224)
    named = models.architecture("open_clip:MobileCLIP2-S0.dfndr2b")
    assert named.url.startswith("https://huggingface.co/")
    assert "//" not in named.url.removeprefix("https://")
    assert not models.architecture("open_clip:ViT-B-32").url
    with pytest.raises(InputError, match=r"open_clip has no network 'ViT-B-33'.*near it"):
        models.architecture("open_clip:ViT-B-33")
    with pytest.raises(InputError, match="open_clip has no weights 'nobody' of ViT-B-32"):
        models.architecture("open_clip:ViT-B-32.nobody")


# --- configurations that cannot be used ------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "file", "change", "said"),
    [
        ("open_clip", "open_clip_config", {"model_cfg": {"embed_dim": 4}}, "open_clip cannot build"),
        ("open_clip", "open_clip_config", {"model_cfg": 3}, "open_clip cannot build"),
        ("timm", "config", {"architecture": "hf-hub:someone/else"}, "timm has no network"),
        ("timm", "config", {"architecture": 7}, "cannot"),
        ("timm", "config", {"model_args": {"depth": "many"}}, "timm cannot build"),
        ("timm", "config", {"pretrained_cfg": None}, "timm cannot build"),
        ("dinov2", "config", {"model_type": "nothing"}, "transformers cannot build"),
        ("dinov2", "config", {"model_type": "timm_wrapper"}, "pass it on to timm"),
        ("dinov2", "config", {"model_type": "bert"}, "transformers cannot build"),
        ("dinov2", "config", {"image_size": [32, 64]}, "square photos"),
        ("dinov2", "config", {"model_type": 1, "architecture": None}, "cannot"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_one_sentence(
    published: dict[str, Published], tmp_path: Path, kind: str, file: str, change: dict[str, Any], said: str
) -> None:
    folder = shutil.copytree(published[kind].folder, tmp_path / kind)
    path = folder / f"{file}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=said) as caught:
        models.load(f"local-dir:{folder}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no network of timm, open_clip or transformers"):
        models.load(f"local-dir:{tmp_path}")
    with pytest.raises(InputError, match="is not a folder"):
        models.load(f"local-dir:{tmp_path / 'missing'}")
    with pytest.raises(InputError, match="write it as hf-hub:OWNER/NAME"):
        models.load("hf-hub:name")


def test_code_that_a_configuration_names_is_not_fetched(
    published: dict[str, Published], tmp_path: Path
) -> None:
    folder = shutil.copytree(published["dinov2"].folder, tmp_path / "dinov2")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "evil.Evil"}, "_attn_implementation": "someone/kernels"}
    (folder / "config.json").write_text(json.dumps(config))
    assert models.load(f"local-dir:{folder}").key == models.load(published["dinov2"].name).key
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_weights_of_another_network_are_refused(
    published: dict[str, Published], tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"visual.class_embedding": torch.zeros(3), "layer.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(InputError, match=r"does not fit|fills nothing"):
        models.load(published[kind].name, weights=other)
    short = tmp_path / "short.safetensors"
    [whole] = published[kind].folder.glob("*.safetensors")
    tensors = weights.read(whole).state
    save_file({name: value[:1].clone() if value.ndim else value for name, value in tensors.items()}, short)
    with pytest.raises(InputError, match="does not fit"):
        models.load(published[kind].name, weights=short)


def test_a_missing_extra_is_one_sentence(
    published: dict[str, Published], monkeypatch: pytest.MonkeyPatch, run: Any, tmp_path: Path
) -> None:
    for kind, package, extra in (
        ("open_clip", "open_clip", "open-clip"),
        ("dinov2", "transformers", "transformers"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            done = run("train", tmp_path, "--out", tmp_path / "m", "--backbone", published[kind].name)
        assert done.code == 2
        assert f"pip install 'fieldmark[{extra}]'" in done.err


# --- the hub ---------------------------------------------------------------------------------------

COMMIT = "c" * 40


@dataclass
class Hub:
    """A server with the addresses and headers of the Hugging Face hub.

    Attributes:
        files: the bytes by `OWNER/NAME/FILE`.
        url: the server's address.
        asked: the files that were sent.
        status: of every answer; 200: as usual.
        cut: whether weights end in the middle.
        forged: whether weights are not those of their digest.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    asked: list[str] = field(default_factory=list)
    status: int = 200
    cut: bool = False
    forged: bool = False

    def publish(self, folder: Path, at: str = "owner/net") -> str:
        self.files |= {f"{at}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        return f"hf-hub:{at}"


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool = False) -> None:
            found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", self.path)
            data = hub.files.get(f"{found[1]}/{found[3]}") if found else None
            status = hub.status if hub.status != 200 else 404 if data is None else 200
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            if status != 200:
                self.send_header(
                    "X-Error-Code", {401: "GatedRepo", 404: "EntryNotFound"}.get(status, "Other")
                )
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            assert found is not None
            assert data is not None
            large = found[3].endswith((".safetensors", ".bin"))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            if large:
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not with_body:
                return
            hub.asked.append(found[3])
            if large and hub.forged:
                data = bytes(len(data))
            self.wfile.write(data[: len(data) // 2] if large and hub.cut else data)
            self.close_connection = True

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants, file_download

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    # The library waits a second before each of five tries.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    found = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(found)) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_network_comes_from_the_hub_and_then_from_the_cache(
    published: dict[str, Published], hub: Hub, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = hub.publish(published[kind].folder)
    first = models.load(name)
    assert first.weights_info.complete
    assert models.load(published[kind].name).weights_info.digest == first.weights_info.digest
    count = len(hub.asked)
    hub.status = 503  # and now it is away
    monkeypatch.setattr(reachable, "is_reachable", lambda url: pytest.fail(f"{url} was asked"))
    again = models.load(name.replace("hf-hub:", "hf://"))
    assert (again.key, len(hub.asked)) == (first.key, count)


def test_safetensors_are_preferred_and_a_pickle_runs_nothing(
    published: dict[str, Published], hub: Hub, tmp_path: Path
) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    name = hub.publish(published["dinov2"].folder)
    hub.files["owner/net/pytorch_model.bin"] = pickle.dumps({"weight": Code()})
    assert models.load(name).weights_info.source == "model.safetensors"
    only = "hf-hub:owner/bin"
    hub.files |= {
        key.replace("/net/", "/bin/"): value for key, value in hub.files.items() if "safetensors" not in key
    }
    with pytest.raises(InputError, match="must be a safetensors file or a state dict of tensors alone"):
        models.load(only)
    assert not (tmp_path / "ran").exists()
    module = tmp_path / "module.bin"  # a whole module, as SpeciesNet is published
    torch.save(torch.nn.Linear(2, 2), module)
    hub.files["owner/bin/pytorch_model.bin"] = module.read_bytes()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match="must be a safetensors file or a state dict of tensors alone"):
        models.load(only)
    state = tmp_path / "state.bin"
    torch.save(weights.read(published["dinov2"].folder / "model.safetensors").state, state)
    hub.files["owner/good/pytorch_model.bin"] = state.read_bytes()
    hub.files["owner/good/config.json"] = hub.files["owner/net/config.json"]
    assert models.load("hf-hub:owner/good").weights_info.complete


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"cut": True}, "could not be fetched"),
        ({"forged": True}, "does not match its digest"),
        ({"status": 401}, "hf auth login"),
        ({"status": 404}, "is no network of timm"),
        ({"files": {}}, "is no network of timm"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    published: dict[str, Published], hub: Hub, run: Any, tmp_path: Path, fault: dict[str, Any], said: str
) -> None:
    name = hub.publish(published["dinov2"].folder)
    whole = dict(vars(hub))
    vars(hub).update(fault)
    done = run("train", tmp_path, "--out", tmp_path / "model", "--backbone", name)
    assert (done.code, said in " ".join(done.err.split())) == (2, True), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "model").exists()
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in left if "incomplete" in path.name or "safetensors" in path.name]
    vars(hub).update(whole)
    assert models.load(name).weights_info.complete


def test_a_hub_that_does_not_answer_is_one_sentence(
    hub: Hub, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = run("train", tmp_path, "--out", tmp_path / "model", "--backbone", "hf-hub:owner/net")
    assert done.code == 2
    assert "does not answer" in done.err
    assert "local-dir:PATH" in done.err


def test_a_revision_is_kept_apart(published: dict[str, Published], hub: Hub) -> None:
    hub.publish(published["dinov2"].folder)
    found = models.architecture("hf-hub:owner/net@v2")
    assert found.url.endswith("/owner/net/resolve/v2/model.safetensors")
    assert models.load(found).weights_info.complete


# --- weights in several files ----------------------------------------------------------------------


def in_parts(folder: Path) -> list[str]:
    """Store a folder's weights in two files with an index, as the hub has large ones; return their names."""
    tensors = weights.read(folder / "model.safetensors").state
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {name: names[number % 2] for number, name in enumerate(tensors)}
    for each in names:
        save_file({name: tensors[name] for name, file in weight_map.items() if file == each}, folder / each)
    write(folder, **{"model.safetensors.index": {"metadata": {}, "weight_map": weight_map}})
    return names


@pytest.mark.parametrize("kind", ["timm", "dinov2"])
def test_weights_in_several_files(
    published: dict[str, Published], hub: Hub, tmp_path: Path, kind: str
) -> None:
    folder = shutil.copytree(published[kind].folder, tmp_path / "net")
    names = in_parts(folder)
    whole = models.load(published[kind].name)
    found = [models.load(f"local-dir:{folder}"), models.load(hub.publish(folder))]
    found.append(models.load(f"local-dir:{folder}", weights=folder / "model.safetensors.index.json"))
    for each in found:
        torch.testing.assert_close(each.trunk(crops(32)), whole.trunk(crops(32)), rtol=0, atol=0)
        assert each.weights_info.complete
        assert each.weights_info.source == "model.safetensors.index.json"
        assert each.weights_info.digest == found[0].weights_info.digest != whole.weights_info.digest
    hub.status = 503  # the cache has all of them
    assert models.load("hf-hub:owner/net").weights_info.digest == found[0].weights_info.digest
    (folder / names[0]).unlink()
    with pytest.raises(InputError, match=f"has no file {names[0]}, which its .* names"):
        models.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    "index",
    [
        *([], {}, {"weight_map": {}}, {"weight_map": {"a": 3}}, {"weight_map": {"a": ["b"]}}),
        *({"weight_map": {"a": name}} for name in ("../a.safetensors", "/a.bin", "a.pkl", ".safetensors")),
    ],
)
def test_a_hostile_index_is_one_sentence(
    published: dict[str, Published], tmp_path: Path, index: object
) -> None:
    folder = shutil.copytree(published["dinov2"].folder, tmp_path / "net")
    in_parts(folder)
    write(folder, **{"model.safetensors.index": index})
    with pytest.raises(InputError, match="is not an index of weights"):
        models.load(f"local-dir:{folder}")


# --- HF_HUB_OFFLINE --------------------------------------------------------------------------------


def test_offline_only_the_cache_is_asked(
    published: dict[str, Published], hub: Hub, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    name = hub.publish(published["dinov2"].folder)
    online = models.load(name)
    for file in ("README.md", "preprocessor_config.json"):  # as a library may have left its files
        for path in (tmp_path / "cache").rglob(file):
            path.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(reachable, "threading", None)  # nothing is asked
    asked = len(hub.asked)
    again = models.load(name)
    assert again.weights_info.digest == online.weights_info.digest
    assert again.architecture.licence == "not known, since its page is not in the cache"
    for other in ("hf-hub:owner/other", "vit_tiny_patch16_224.nobody", "vit_tiny_patch16_224"):
        done = run("train", tmp_path, "--out", tmp_path / "model", "--backbone", other)
        assert (done.code, "HF_HUB_OFFLINE is set" in " ".join(done.err.split())) == (2, True), done.err
    assert models.named("medium") == "tf_efficientnet_lite2"
    assert len(hub.asked) == asked


def test_the_licence_is_logged_once_a_network(
    published: dict[str, Published], run: Any, photos: Path, tmp_path: Path
) -> None:
    networks = [option for kind in ("timm", "dinov2") for option in ("--backbone", published[kind].name)]
    for number, options in enumerate([networks, [*networks, "--quality", "best", "--budget", "1s"]]):
        done = run("train", photos, "--out", tmp_path / f"{number}", *options, "--groups", "none")
        assert done.code == 0, done.err
        said = " ".join(done.err.split())
        assert [said.count(f"Network: local-dir:{kind};") for kind in ("timm", "dinov2")] == [1, 1], said
        assert said.count("; licence of the weights: cc-by-nc-4.0, as its page says") == 2


# --- training --------------------------------------------------------------------------------------


PLAIN = ("--groups", "none", "--engine", "torch")


def test_a_classifier_needs_its_folder_alone(
    published: dict[str, Published], run: Any, photos: Path, tmp_path: Path, cache: Path
) -> None:
    written = []
    for kind in ONE_OF_EACH:
        folder, out = shutil.copytree(published[kind].folder, tmp_path / "net"), tmp_path / kind
        done = run("train", photos, "--out", out, "--backbone", f"local-dir:{folder}", *PLAIN)
        assert done.code == 0, done.err
        assert "licence of the weights: cc-by-nc-4.0, as its page says" in " ".join(done.err.split())
        shutil.rmtree(folder)
        shutil.rmtree(cache)
        made = json.loads((out / "classifier.json").read_text())["provenance"]
        assert made["licence"] == "cc-by-nc-4.0, as its page says"
        assert "cc-by-nc-4.0" in (out / "README.md").read_text()
        assert made["backbone"] == "local-dir:net"
        assert "safetensors sha256:" in made["weights"]
        written.append(str(out))
    photo = str(photos / "Danaus plexippus" / "03.jpg")
    load = f"print(Classifier.load(each, engine='torch').predict([{photo!r}]))"
    code = f"from fieldmark import Classifier\nfor each in {written}: {load}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("Danaus plexippus") >= len(written)
    for out in written:
        exported = run("export", out, "--onnx", tmp_path / "model.onnx")
        assert exported.code == 0, exported.err


def a_member(folder: Path, backbone: models.Backbone, side: int) -> Classifier:
    """Write a classifier with a head of zeros, and return it."""
    from fieldmark.data.taxonomy import Taxonomy
    from fieldmark.heads.base import LinearHead
    from fieldmark.inference.classifier.ensemble_member import Member, Network

    facts = backbone.architecture
    head = LinearHead(np.zeros((facts.feature_dim, 2), np.float32), np.zeros(2, np.float32))
    member = Member(Network.of(backbone), facts.preprocess, head)
    taxonomy = Taxonomy.from_json([{"id": name, "name": name} for name in ("a", "b")])
    Classifier((member,), taxonomy).save(folder)
    return Classifier.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        7,
        {"library": "pickle"},
        {"library": 3},
        {"library": "timm"},
        {"library": "torchvision"},
        {"feature_dim": "32"},
        {"feature_dim": 31},
        {"input_size": -4},
        {"input_size": 10**9},
        {"mean": [0.5]},
        {"std": [0.0, 1.0, 1.0]},
        {"last_layer_path": "not.there"},
        {"last_layer_path": ""},
        {"last_layer_path": "network"},
        {"config": ""},
        {"config": "{"},
        {"config": "[]"},
        {"config": "{}"},
        {"config": '{"model_type": "dinov2", "hidden_size": "x"}'},
        {"config": '{"model_type": "dinov2", "hidden_size": 8}'},
        {"config": None},
        {"preprocess": []},
    ],
)
def test_a_hostile_network_in_a_classifier_is_one_sentence(
    published: dict[str, Published], tmp_path: Path, change: Any
) -> None:
    a_member(tmp_path / "model", models.load(published["dinov2"].name), 32)
    path = tmp_path / "model" / "classifier.json"
    about = json.loads(path.read_text())
    entry = about["members"][0]
    entry["network"] = entry["network"] | change if isinstance(change, dict) else change
    path.write_text(json.dumps(about))
    with pytest.raises(ClassifierError) as caught:
        Classifier.load(tmp_path / "model").networks[0].backbone.trunk(crops(32))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "transfer"), [("open_clip", "all"), ("open_clip", "low-rank"), ("dinov2", "low-rank")]
)
def test_the_network_itself_is_trained(
    published: dict[str, Published], kind: str, transfer: str, run: Any, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    options = ["--transfer", transfer, "--epochs", 1, *PLAIN]
    done = run("train", photos, "--out", out, "--backbone", published[kind].name, *options)
    assert done.code == 0, done.err
    found = Classifier.load(out)
    assert found.networks[0].backbone.key != models.load(published[kind].name).key
    assert len(found.predict([photos / "Apis mellifera" / "01.jpg"])) == 1


def test_a_classifier_on_crops_of_another_side(
    published: dict[str, Published], run: Any, photos: Path, tmp_path: Path
) -> None:
    out, size = tmp_path / "model", ("--size", 48, *PLAIN)
    done = run("train", photos, "--out", out, "--backbone", published["dinov2"].name, *size)
    assert done.code == 0, done.err
    assert len(Classifier.load(out).predict([photos / "Apis mellifera" / "01.jpg"])) == 1
    done = run("train", photos, "--out", out, "--backbone", published["open_clip"].name, *size)
    assert (done.code, "takes crops of 32 pixels only" in done.err) == (2, True)
