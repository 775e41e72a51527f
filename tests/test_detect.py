"""`fieldmark detect`: ONNX detectors whose boxes are known, MegaDetector's package, resuming, bad photos."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fieldmark.data.readers.box_files import read_boxes
from fieldmark.models.detectors import load
from fieldmark.models.detectors.onnx import categories, layout, suppressed
from fieldmark.utils.errors import InputError

NAMES = {0: "animal", 1: "person", 2: "vehicle"}
COLOURS = {"1": (255, 255, 255), "2": (255, 0, 0), "3": (0, 0, 255)}  # white: an animal; red: a person
SCORES = (0.9, 0.8, 0.7)
SIZE = (96, 128)  # height, width of the networks' input


class Graph:
    """An ONNX graph that is written node by node."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value: Any, kind: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def box(self, mask: str, size: tuple[int, int], score: float, shift: float) -> list[str]:
        """Left, top, right, bottom and score, each (1, 1), of the pixels of a mask, float (1, 1, H, W)."""
        sides = []
        for axis, length in ((3, size[1]), (2, size[0])):
            index = np.arange(length, dtype=np.float32).reshape([1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1])
            chosen = self.op("Cast", mask, to=TensorProto.BOOL)
            low = self.op("Where", chosen, self.const(index), self.const(1e4))
            high = self.op("Where", chosen, self.const(index + 1), self.const(0))
            low = self.op("ReduceMin", low, keepdims=0)
            high = self.op("ReduceMax", high, keepdims=0)
            sides.append([self.op("Add", each, self.const(shift)) for each in (low, high)])
        seen = self.op("Mul", self.op("ReduceMax", mask, keepdims=0), self.const(score))
        flat = (sides[0][0], sides[1][0], sides[0][1], sides[1][1], seen)
        return [self.op("Reshape", each, self.const([1, 1], np.int64)) for each in flat]

    def masks(self, photo: str) -> list[str]:
        """Where it is white, red and blue: float (1, 1, H, W)."""
        parts = self.const([1, 1, 1], np.int64)
        red, green, blue = (f"{photo}_{each}" for each in "rgb")
        self.nodes.append(helper.make_node("Split", [photo, parts], [red, green, blue], axis=1))

        def all_of(*which: tuple[str, str]) -> str:
            found = [
                self.op("Greater", each, self.const(0.75))
                if how == "+"
                else self.op("Less", each, self.const(0.25))
                for each, how in which
            ]
            whole = self.op("And", self.op("And", found[0], found[1]), found[2])
            return self.op("Cast", whole, to=TensorProto.FLOAT)

        return [
            all_of((red, "+"), (green, "+"), (blue, "+")),
            all_of((red, "+"), (green, "-"), (blue, "-")),
            all_of((red, "-"), (green, "-"), (blue, "+")),
        ]


def detector(
    path: Path,
    form: str = "yolov5",
    *,
    size: tuple[int, int] = SIZE,
    names: Mapping[int, str] | None = NAMES,
    half: bool = False,
    dynamic: bool = False,
    shares: bool = False,
    twice: bool = True,
    **metadata: str,
) -> Path:
    """Write a detector: white is class 0, red 1, blue 2; `twice`: each box again, a bit to the side."""
    graph = Graph()
    photo = graph.op("Cast", "images", to=TensorProto.FLOAT)
    rows = []
    for number, mask in enumerate(graph.masks(photo)):
        for shift, less in ((0.0, 1.0), (0.5, 0.6))[: 1 + (twice and form != "end-to-end")]:
            left, top, right, bottom, score = graph.box(mask, size, SCORES[number] * less, shift)
            if form == "end-to-end":
                sides = [left, top, right, bottom]
                if shares:
                    scale = [graph.const([[each]]) for each in (size[1], size[0]) * 2]
                    sides = [graph.op("Div", *pair) for pair in zip(sides, scale, strict=True)]
                rows.append(graph.op("Concat", *sides, score, graph.const([[number]]), axis=1))
                continue
            two = graph.const([[2]])
            wide, high = graph.op("Sub", right, left), graph.op("Sub", bottom, top)
            middle = [graph.op("Div", graph.op("Add", *pair), two) for pair in ((left, right), (top, bottom))]
            one_hot = graph.const([np.eye(3)[number]])
            scores = [score, one_hot] if form == "yolov5" else [graph.op("Mul", score, one_hot)]
            rows.append(graph.op("Concat", *middle, wide, high, *scores, axis=1))
    rows.append(graph.const(np.zeros((14, 6 if form == "end-to-end" else 8 if form == "yolov5" else 7))))
    found = graph.op("Unsqueeze", graph.op("Concat", *rows, axis=0), graph.const([0], np.int64))
    if form == "yolov8":
        found = graph.op("Transpose", found, perm=[0, 2, 1])
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    found = graph.op("Cast", found, to=kind)
    shape: Sequence[int | str] = (1, 3, "height", "width") if dynamic else (1, 3, *size)
    whole = helper.make_graph(
        graph.nodes,
        "detector",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(found, kind, [1, None, None])],
        graph.constants,
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = {**({"names": str(dict(names))} if names else {}), **metadata}
    helper.set_model_props(model, told)
    onnx.save(model, path)
    return path


def photo(
    path: Path,
    size: tuple[int, int],
    boxes: Mapping[str, tuple[float, float, float, float]],
    *,
    mode: str = "RGB",
    orientation: int = 1,
    taken: str = "",
) -> Path:
    """Draw a photo, (width, height) as it is shown, with rectangles at shares of it, by their category."""
    width, height = size
    pixels = np.full((height, width, 3), 60, np.uint8)
    for category, (left, top, wide, high) in boxes.items():
        rows = slice(round(top * height), round((top + high) * height))
        pixels[rows, round(left * width) : round((left + wide) * width)] = COLOURS[category]
    shown = Image.fromarray(pixels)
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation in turns:
        shown = shown.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    shown.convert(mode).save(path, quality=97, subsampling=0, exif=exif)
    return path


def boxes_in(path: Path) -> dict[str, list[dict[str, Any]] | None]:
    return {Path(each["file"]).name: each["detections"] for each in json.loads(path.read_text())["images"]}


def close(found: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= tolerance)


THREE = {"1": (0.25, 0.5, 0.25, 0.25), "2": (0.0, 0.0, 0.2, 0.3), "3": (0.7, 0.1, 0.3, 0.4)}
FORMS: dict[str, dict[str, Any]] = {
    "yolov5": {"form": "yolov5"},
    "yolov8": {"form": "yolov8"},
    "end-to-end": {"form": "end-to-end"},
    "shares": {"form": "end-to-end", "shares": True},
    "half": {"form": "yolov8", "half": True},
    "dynamic": {"form": "yolov5", "dynamic": True, "imgsz": "[96, 128]"},
}


@pytest.mark.parametrize("form", FORMS)
def test_all_layouts_give_the_boxes_of_all_photos(run, tmp_path: Path, form: str) -> None:
    """Wide, high, odd, tiny and large photos, in three colours: each box once, in its place."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for size in ((640, 480), (301, 997), (3000, 411), (53, 41)):
        photo(folder / f"{size[0]}.jpg", size, THREE, taken="2024:06:30 05:06:07")
    photo(folder / "empty.png", (200, 100), {})
    network = detector(tmp_path / "net.onnx", **FORMS[form])
    out = tmp_path / "boxes.json"
    done = run("detect", folder, "--model", network, "--out", out)
    assert done.code == 0, done.err
    found = boxes_in(out)
    assert found.pop("empty.png") == []
    for name, boxes in found.items():
        width = int(name.partition(".")[0])
        height = {640: 480, 301: 997, 3000: 411, 53: 41}[width]
        cell = 1.6 * max(width / SIZE[1], height / SIZE[0], 1)  # a pixel of the network's input, and the blur
        assert boxes is not None
        assert [each["category"] for each in boxes] == ["1", "2", "3"], name
        for each in boxes:
            expected = THREE[each["category"]]
            tolerance = cell / min(width, height) + 0.02
            assert close(each["bbox"], expected, tolerance), (name, each)
        assert np.allclose([each["conf"] for each in boxes], SCORES, atol=2e-3)
    document = json.loads(out.read_text())
    assert document["info"]["format_version"] == "1.5"
    assert document["info"]["detector"] == "net.onnx"
    assert document["info"]["custom_metadata"]["threshold"] == 0.1
    assert document["images"][0]["datetime"] == "2024:06:30 05:06:07"
    read = read_boxes(out)
    assert [len(boxes) for boxes in read.of_file.values()] == [3, 3, 3, 3, 0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_of_the_photo_as_it_is_shown(run, tmp_path: Path, orientation: int) -> None:
    """As MegaDetector's, and as `--boxes` reads them: the crop of the box is white."""
    from fieldmark.data import images
    from fieldmark.data.storage.places import Boxed

    path = photo(tmp_path / "a.jpg", (400, 240), {"1": (0.6, 0.2, 0.3, 0.5)}, orientation=orientation)
    out = tmp_path / "boxes.json"
    assert run("detect", path, "--model", detector(tmp_path / "net.onnx"), "--out", out).code == 0
    [[found]] = boxes_in(out).values()
    assert close(found["bbox"], (0.6, 0.2, 0.3, 0.5), 0.02)
    [[read]] = read_boxes(out).of_file.values()
    crop = images.decode(images.read_bytes(Boxed(path, read.box)))
    assert crop[crop.shape[0] // 2, crop.shape[1] // 2].min() > 240


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_photos_without_three_colours(run, tmp_path: Path, mode: str) -> None:
    path = photo(tmp_path / "a.jpg", (400, 300), {"1": (0.5, 0.5, 0.25, 0.25)}, mode=mode)
    out = tmp_path / "boxes.json"
    assert run("detect", path, "--model", detector(tmp_path / "net.onnx"), "--out", out).code == 0
    [[found]] = boxes_in(out).values()
    assert close(found["bbox"], (0.5, 0.5, 0.25, 0.25), 0.02)


def test_openvino_gives_the_same_boxes(run, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = photo(tmp_path / "a.jpg", (640, 480), THREE)
    network = detector(tmp_path / "net.onnx")
    for engine in ("onnxruntime", "openvino"):
        out = tmp_path / f"{engine}.json"
        assert run("detect", path, "--model", network, "--engine", engine, "--out", out).code == 0
    assert boxes_in(tmp_path / "onnxruntime.json") == boxes_in(tmp_path / "openvino.json")


def test_classes_are_mapped_by_name_by_place_or_not_at_all(run, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", (640, 480), THREE)
    general = detector(tmp_path / "general.onnx", names={0: "Elephant", 1: "chair", 2: "truck"})
    own = detector(tmp_path / "own.onnx", names={0: "deer", 1: "hiker", 2: "jeep"})
    bare = detector(tmp_path / "bare.onnx", names=None)

    def categories_of(network: Path, *more: str) -> list[str]:
        out = tmp_path / f"{network.stem}{len(more)}{'-'.join(more)[-12:]}.json"
        done = run("detect", path, "--model", network, "--out", out, *more)
        assert done.code == 0, done.err
        return [each["category"] for each in boxes_in(out)["a.jpg"] or ()]

    assert categories_of(general) == ["1", "3"]
    assert categories_of(own, "--classes", "hiker=person, deer=animal") == ["1", "2"]
    assert categories_of(own, "--classes", "vehicle,animal,person") == ["3", "1", "2"]
    assert categories_of(bare, "--classes", "animal,-,vehicle") == ["1", "3"]
    for network, more, said in (
        (own, (), "deer, hiker, jeep"),
        (bare, (), "--classes"),
        (own, ("--classes", "moose=animal"), "no class 'moose'"),
        (own, ("--classes", "deer=ghost"), "no category"),
        (own, ("--classes", "animal,animal,animal,animal"), "3 classes"),
    ):
        done = run("detect", path, "--model", network, "--out", tmp_path / "no.json", *more)
        assert done.code == 2
        assert said in done.err
        assert not list(tmp_path.glob("no.json*"))


def test_a_layout_that_is_none_and_files_that_are_no_detectors_are_refused(run, tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", (64, 48), {})
    (tmp_path / "text.onnx").write_text("no graph")
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [one], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    ])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "relu.onnx")
    sized = detector(tmp_path / "sized.onnx", dynamic=True, imgsz="'large'")
    odd = detector(tmp_path / "odd.onnx", dynamic=True, imgsz="[320, 320]")  # its own size is another
    for network, more, said in (
        ("gone.onnx", (), "not a file"),
        ("text.onnx", (), "not an ONNX file"),
        ("relu.onnx", ("--classes", "animal"), "expected is one of"),
        (sized.name, (), "imgsz"),
        (odd.name, (), "cannot be run"),
    ):
        out = tmp_path / "no.json"
        done = run("detect", path, "--model", tmp_path / network, "--out", out, *more)
        assert done.code == 2, network
        assert said in done.err, done.err
        assert done.err.count("\n") == 1
        assert not list(tmp_path.glob("no.json*"))
    network = detector(tmp_path / "net.onnx")
    assert "runs no ONNX" in run("detect", path, "--model", network, "--engine", "cuda").err
    assert ".json" in run("detect", path, "--model", network, "--out", tmp_path / "a.csv").err


def test_layouts_are_told_by_shape_and_classes() -> None:
    sides, path = (640, 640), Path("net.onnx")
    assert layout((1, 25200, 85), 80, sides, path) == "yolov5"
    assert layout((1, 102000, 8), 3, (1280, 1280), path) == "yolov5"  # MegaDetector 5
    assert layout((1, 84, 8400), 80, sides, path) == "yolov8"
    assert layout((1, 5, 8400), 1, sides, path) == "yolov8"
    assert layout((1, 6, 8400), 2, sides, path) == "yolov8"
    assert layout((1, 300, 6), 3, sides, path) == "end-to-end"
    # Six columns with one class: of YOLOv5 it has three boxes for each cell of its grids.
    assert layout((1, 25200, 6), 1, sides, path) == "yolov5"
    assert layout((1, 300, 6), 1, sides, path) == "end-to-end"
    for shape in ((1, 84, 8400), (300, 6), (2, 300, 6), (1, 3, 80, 80, 85)):
        with pytest.raises(InputError, match="expected is one of"):
            layout(shape, 3, sides, path)


def test_of_boxes_that_overlap_the_most_confident_stays() -> None:
    """Against a plain implementation, box by box."""
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 40, 200):
        low = rng.uniform(0, 80, (count, 2))
        corners = np.concatenate([low, low + rng.uniform(5, 40, (count, 2))], axis=1).astype(np.float32)
        score, number = rng.random(count).astype(np.float32), rng.integers(0, 2, count)

        def overlap(a: Any, b: Any) -> float:
            wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (a, b)]
            return float(wide * high / (sum(areas) - wide * high))

        kept: list[int] = []
        for each in sorted(range(count), key=lambda n: -score[n]):
            if all(number[n] != number[each] or overlap(corners[n], corners[each]) <= 0.45 for n in kept):
                kept.append(each)
        assert suppressed(corners, score, number) == kept
        assert count < 40 or len(kept) < count


def test_the_threshold_and_the_classes_of_general_detectors(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", (640, 480), THREE)
    network = str(detector(tmp_path / "net.onnx"))
    pixels = np.asarray(Image.open(path))
    for threshold, many in ((0.1, 3), (0.75, 2), (0.95, 0)):
        found = load(network, threshold=threshold)
        [boxes] = found.detect([found.prepare(pixels)])
        assert not isinstance(boxes, InputError)
        assert len(boxes) == many
    assert categories({7: "Zebra", 8: "sofa", 9: "Boat"}, None, path) == {7: "animal", 9: "vehicle"}


def test_unreadable_photos_are_rows_with_a_reason(run, tmp_path: Path, shared: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    bad = sorted(
        path for path in (shared / "bad-images").rglob("*.*") if path.suffix in (".jpg", ".png", ".gif")
    )
    for number, path in enumerate(bad[:: max(1, len(bad) // 40)]):
        shutil.copy(path, folder / f"{number:03}{path.suffix}")
    photo(folder / "good.jpg", (640, 480), THREE)
    out = tmp_path / "boxes.json"
    done = run("detect", folder, "--model", detector(tmp_path / "net.onnx"), "--out", out)
    document = json.loads(out.read_text())
    failed = [each for each in document["images"] if each.get("failure")]
    assert len(document["images"]) == len([*folder.iterdir()])
    assert failed
    assert done.code == 2
    assert f"{len(failed)} of {len(document['images'])} photos could not be used" in done.err
    assert all(each["detections"] is None for each in failed)
    assert all(each["failure"].startswith("Failure image access: ") for each in failed)
    assert len(boxes_in(out)["good.jpg"] or ()) == 3
    assert len(read_boxes(out).of_file) == len(document["images"]) - len(failed)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """30 photos in two folders, one of which is broken."""
    for number in range(30):
        folder = tmp_path / "photos" / f"site{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        side = {"1": (0.02 * number, 0.3, 0.3, 0.3)}
        photo(folder / f"{number:02}.jpg", (160 + number, 120), side)
    (tmp_path / "photos" / "site1" / "05.jpg").write_bytes(b"")
    return tmp_path / "photos"


COMMAND = """
import os, signal, sys
from fieldmark.inference import journal
add, left = journal.Journal.add, int(sys.argv.pop(1))
def counted(self, lines):
    global left
    left -= 1
    if left < 0:
        if left % 2:
            with self.path.open("a") as handle:  # the kill tears a line
                handle.write(lines[0][:50])
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, lines)
journal.Journal.add = counted
from fieldmark.cli import main
main()
"""


def test_a_killed_run_goes_on_and_gives_the_same_bytes(run, tmp_path: Path, many: Path) -> None:
    network = detector(tmp_path / "net.onnx")
    whole = tmp_path / "whole.json"
    assert run("detect", many, "--model", network, "--out", whole).code == 2
    out = tmp_path / "boxes.json"
    words = ["detect", str(many), "--model", str(network), "--out", str(out)]
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", COMMAND, "1", *words], check=False, env=dict(os.environ))
        assert done.returncode == -signal.SIGKILL
        assert not out.exists()
    done = run(*words)
    assert "Going on: " in done.err
    assert done.code == 2
    assert out.read_bytes() == whole.read_bytes()
    again = run(*words)  # once it is finished nothing is lost either
    assert again.code == 2
    assert out.read_bytes() == whole.read_bytes()


def test_other_photos_options_and_files(run, tmp_path: Path, many: Path) -> None:
    """A photo that changed is seen again, another threshold begins anew, and a file of others stays."""
    network = detector(tmp_path / "net.onnx")
    out = tmp_path / "boxes.json"
    run("detect", many, "--model", network, "--out", out)
    photo(many / "site1" / "05.jpg", (160, 120), THREE)
    photo(many / "site0" / "00.jpg", (160, 120), THREE)
    assert run("detect", many, "--model", network, "--out", out).code == 0
    assert [len(boxes_in(out)[name] or ()) for name in ("05.jpg", "00.jpg")] == [3, 3]
    assert run("detect", many, "--model", network, "--out", out, "--threshold", "0.85").code == 0
    assert len(boxes_in(out)["00.jpg"] or ()) == 1
    one = run("detect", many / "site0" / "02.jpg", "--model", network, "--out", out, "--threshold", "0.85")
    assert one.code == 0
    assert [*boxes_in(out)] == ["02.jpg"]
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}")
    done = run("detect", many, "--model", network, "--out", foreign)
    assert done.code == 2
    assert "exists" in done.err
    assert foreign.read_text() == "{}"


def test_boxes_that_were_detected_train_and_predict(run, tmp_path: Path, many: Path, model: Path) -> None:
    out, answers = tmp_path / "boxes.json", tmp_path / "answers.jsonl"
    network = detector(tmp_path / "net.onnx")
    run("detect", many, "--model", network, "--out", out)
    done = run("predict", model, many, "--boxes", out, "--out", answers)
    assert "are not in the file of boxes" in done.err  # the broken one
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(rows) == 30
    assert sum("detection" in row for row in rows) == 29


STAND_IN = '''
"""A stand-in for megadetector.detection.run_detector of megadetector 10.0.28: the same names and results."""
import pathlib

known_models = {"v5a.0.1": {"typical_detection_threshold": 0.2, "md5": ""}}
model_string_to_model_version = {"mdv5a": "v5a.0.1", "mdv5b": "v5b.0.1"}


def get_detector_version_from_model_file(detector_filename, verbose=False):
    print("the package prints much")
    return "v5a.0.1"


def get_detector_metadata_from_version_string(detector_version):
    return known_models[detector_version] | {"megadetector_version": detector_version}


def try_download_known_detector(detector_file, force_download=False, verbose=False):
    raise OSError("no network")


def load_detector(
    model_file, force_cpu=False, force_model_download=False, detector_options=None, verbose=False
):
    print("Loading PT detector with compatibility mode classic")
    if pathlib.Path(model_file).read_bytes() != b"weights":
        raise ValueError("Invalid magic number")
    return PTDetector()


class PTDetector:
    def preprocess_image(self, img_original, image_id="unknown", image_size=None, verbose=False):
        return {"file": image_id, "img_processed": img_original, "img_original": img_original}

    def generate_detections_one_batch(
        self,
        img_original,
        image_id=None,
        detection_threshold=0.00001,
        image_size=None,
        augment=False,
        verbose=False,
    ):
        return [self._one(each["img_processed"], detection_threshold, each["file"]) for each in img_original]

    def _one(self, pixels, threshold, name):
        if pixels.shape[1] == 66:
            return {"file": name, "detections": None, "failure": "inference failure"}
        white = (pixels > 200).all(axis=2)
        rows, columns = white.any(axis=1).nonzero()[0], white.any(axis=0).nonzero()[0]
        found = []
        if len(rows):
            height, width = white.shape
            box = [columns[0] / width, rows[0] / height, len(columns) / width, len(rows) / height]
            found = [
                {"category": "2", "conf": threshold, "bbox": [0, 0, 0.1, 0.1]},
                {"category": "1", "conf": 0.93, "bbox": [float(round(each, 4)) for each in box]},
            ]
        return {"file": name, "detections": found, "max_detection_conf": 0.93}
'''


@pytest.fixture
def megadetector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in of MegaDetector's package in place."""
    package = tmp_path / "own" / "megadetector" / "detection"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "run_detector.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    for name in [each for each in sys.modules if each.split(".")[0] == "megadetector"]:
        monkeypatch.delitem(sys.modules, name)


def test_megadetector_by_its_own_package(run, tmp_path: Path, megadetector: None) -> None:
    (tmp_path / "md_v5a.0.0.pt").write_bytes(b"weights")
    folder = tmp_path / "photos"
    folder.mkdir()
    box = {"1": (0.25, 0.25, 0.5, 0.5)}
    for orientation in (1, 6):
        photo(folder / f"{orientation}.png", (80, 40), box, orientation=orientation)
    photo(folder / "fails.jpg", (66, 40), box)
    (folder / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "boxes.json"
    done = run("detect", folder, "--model", tmp_path / "md_v5a.0.0.pt", "--out", out)
    assert done.code == 2
    assert "2 of 4 photos could not be used" in done.err
    assert "prints" not in done.out + done.err
    document = json.loads(out.read_text())
    assert document["info"]["detector"] == "md_v5a.0.0.pt"
    about = {"megadetector_version": "v5a.0.1", "typical_detection_threshold": 0.2}
    assert document["info"]["detector_metadata"] == about
    failures = {Path(each["file"]).name: each.get("failure", "") for each in document["images"]}
    assert "inference failure" in failures["fails.jpg"]
    assert "not-an-image" in failures["broken.jpg"]
    found = boxes_in(out)
    for name in ("1.png", "6.png"):
        animal, person = found[name] or ()
        assert animal == {"category": "1", "conf": 0.93, "bbox": [0.25, 0.25, 0.5, 0.5]}
        assert person == {"category": "2", "conf": 0.1, "bbox": [0, 0, 0.1, 0.1]}
    assert read_boxes(out).threshold == 0.2


def test_megadetector_that_cannot_be_loaded(run, tmp_path: Path, megadetector: None) -> None:
    path = photo(tmp_path / "a.jpg", (64, 48), {})
    (tmp_path / "text.pt").write_text("no weights")
    for model, more, said in (
        (tmp_path / "text.pt", (), "Invalid magic number"),
        (tmp_path / "gone.pt", (), "not a file"),
        ("MDV5A", (), "could not be downloaded (no network)"),
        ("MDV9", (), "no detector 'MDV9'"),
        ("MDV5A", ("--classes", "animal"), "leave --classes out"),
        ("MDV5A", ("--engine", "openvino"), "leave --engine out"),
    ):
        done = run("detect", path, "--model", model, "--out", tmp_path / "no.json", *more)
        assert done.code == 2
        assert said in done.err
        assert not list(tmp_path.glob("no.json*"))


def test_without_megadetectors_package_one_sentence_says_how(run, tmp_path: Path, monkeypatch) -> None:
    for name in ("megadetector", "megadetector.detection", "megadetector.detection.run_detector"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run("detect", photo(tmp_path / "a.jpg", (64, 48), {}), "--out", tmp_path / "no.json")
    assert done.code == 2
    assert "pip install megadetector" in done.err
    assert done.err.count("\n") == 1
