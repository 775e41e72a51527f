"""The Python library: public names, the whole loop, callbacks, configurations, examples, documents."""

from __future__ import annotations

import base64
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
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fieldmark
from fieldmark import Callback, Classifier, InputError, TrainConfig
from fieldmark.inference.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]
TINY = ("test_resnet", "test_efficientnet")
COMMIT = "a" * 40


# A local stand-in of the hub


class Hub(BaseHTTPRequestHandler):
    """As much of the API of the Hugging Face hub as an upload and a download need."""

    files: dict[str, bytes]
    asked: list[tuple[str, Any]]

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, value: Any, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self._body()
        page = f"http://127.0.0.1:{self.server.server_address[1]}/someone/insects"
        if "denied" in str(body) + self.path:
            self._answer({"error": "You are not allowed to do this"}, 403)
        elif "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for each in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for entry in map(json.loads, body.splitlines()):
                self.asked.append((self.path, entry))
                if entry["key"] == "file":
                    data = base64.b64decode(entry["value"]["content"])
                    self.files[entry["value"]["path"]] = data
            self._answer({"success": True, "commitOid": COMMIT, "commitUrl": f"{page}/commit/{COMMIT}"})
        else:
            self.asked.append((self.path, json.loads(body) if body else None))
            self._answer({"url": page, "id": "1", "name": "someone/insects"})

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if "/tree/" in self.path:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self._answer(entries)
        elif "/resolve/" in self.path and name in self.files:
            data = self.files[name]
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            self._answer(data, ETag=tag, X_Repo_Commit=COMMIT)
        elif self.path.startswith("/api/models/someone/insects"):
            siblings = [{"rfilename": name} for name in self.files]
            self._answer({"id": "someone/insects", "sha": COMMIT, "siblings": siblings})
        else:
            self._answer({"error": "not found"}, 404)

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    handler = type("OneHub", (Hub,), {"files": {}, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield handler
        server.shutdown()


def python(code: str, *arguments: object, where: Path, **environment: str) -> str:
    """Run a program in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=where,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache that the programs share, so that a network is converted once."""
    return str(tmp_path_factory.mktemp("kept"))


# The whole loop


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights of two tiny networks, so that the loop is quick."""
    from safetensors.torch import save_file

    from fieldmark import models

    folder = tmp_path_factory.mktemp("weights")
    for name in TINY:
        state = models.load(name, weights="random").network.state_dict()
        tensors = {key: tensor.contiguous() for key, tensor in state.items()}
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


LOOP = """
import json, sys
import numpy as np
from PIL import Image
from fieldmark.utils import memory
from fieldmark import Classifier, TrainConfig, evaluate, load_dataset, train

photos, weights_dir, first, second, count = sys.argv[1:]
dataset = load_dataset(photos, test=0.25)
one = train(dataset, TrainConfig(backbone=first, weights_dir=weights_dir, engine="torch"))
both = dict(backbone=first, also=(second,), weights_dir=weights_dir, engine="torch")
together = train(dataset, TrainConfig(**both))
best = train(dataset, TrainConfig(quality="best", budget=2, **both))
classifier = one.classifier
measured = evaluate(classifier, dataset).summary()

path = next(iter(dataset.test.files)).path
by_path = classifier.predict(path)
by_image = classifier.predict(Image.open(path))

def frames():
    for number in range(int(count)):
        if number == 500:
            marks.append(memory.peak())
        yield np.full((64, 64, 3), number % 256, np.uint8)

marks = []
answered = sum(1 for _ in classifier.predict(frames(), top=1))
marks.append(memory.peak())

one.save("model")
loaded = Classifier.load("model")
same = np.abs(loaded.predict_proba([path]) - classifier.predict_proba([path])).max()
page = loaded.push_to_hub("someone/insects", private=True, revision="v2", message="First")
back = Classifier.load("hf://someone/insects@v2")
print(json.dumps({
    "errors": [one.summary["top1_error"], measured["top1_error"]],
    "losses": [one.summary["log_loss"], measured["log_loss"]],
    "members": [len(one.classifier.members), len(together.classifier.members)],
    "best": best.summary["photos"],
    "same photo": [by_path.best.taxon.id == by_image.best.taxon.id, float(same)],
    "answered": answered,
    "grown": (marks[1] - marks[0]) / 2**20,
    "features": list(loaded.embed([path, path]).shape),
    "page": page,
    "digests": [classifier.digest, back.digest],
}))
"""


def test_one_script_of_public_names_does_the_whole_loop(
    insects: Path, weights: Path, hub: Any, tmp_path: Path
) -> None:
    found = json.loads(
        python(
            LOOP,
            *(insects, weights, *TINY, 3_000),
            where=tmp_path,
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "hub"),
            HF_TOKEN="secret",
        ).splitlines()[-1]
    )
    assert found["errors"][0] == pytest.approx(found["errors"][1], abs=0.07)
    assert found["losses"][0] == pytest.approx(found["losses"][1], abs=0.02)
    assert found["members"] == [1, 2]
    assert found["best"] > 0
    assert found["same photo"][0]
    assert found["same photo"][1] < 1e-3
    assert found["answered"] == 3_000
    assert found["grown"] < 40  # MiB; the crops of 2,500 photos are 183
    assert found["features"][0] == 2
    assert found["page"] == f"{hub.url}/someone/insects/tree/v2"
    assert found["digests"][0] == found["digests"][1]
    create = next(value for path, value in hub.asked if path.endswith("/repos/create"))
    assert (create["organization"], create["name"]) == ("someone", "insects")
    assert create.get("private") is True or create.get("visibility") == "private"
    header = next(value for path, value in hub.asked if path.endswith("/commit/v2"))
    assert header["value"]["summary"] == "First"
    assert set(hub.files) >= {"classifier.json", "head.safetensors", "README.md"}
    assert not set(hub.files) & {"photos.parquet", "split.parquet", "neighbours.safetensors"}


def test_a_hub_that_refuses_is_one_sentence(
    classifier: Classifier, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    with pytest.raises(InputError, match=r"hf://someone/denied could not be uploaded") as caught:
        classifier.push_to_hub("someone/denied", token="secret")
    assert "\n" not in str(caught.value)
    for name in ("denied", "a/b/c", "someone/", ""):
        with pytest.raises(InputError, match="OWNER/NAME"):
            classifier.push_to_hub(name)


# Pickles, processes and threads


def test_a_classifier_can_be_pickled_before_and_after_its_first_prediction(
    model: Path, draw: Any, tmp_path: Path
) -> None:
    photo = draw(0, 3)
    fresh = Classifier.load(model)
    early = pickle.dumps(fresh)
    expected = fresh.predict(photo)
    late = pickle.loads(pickle.dumps(fresh))  # noqa: S301  # made here
    assert late.predict(photo) == expected
    again = pickle.loads(pickle.dumps(late))  # noqa: S301
    assert again.digest == fresh.digest
    (tmp_path / "early").write_bytes(early)
    (tmp_path / "photo").write_bytes(photo)
    code = (
        "import pickle, sys; from pathlib import Path\n"
        "found = pickle.loads(Path('early').read_bytes())\n"
        "print(found.predict('photo').best.taxon.id)\n"
    )
    assert python(code, where=tmp_path).strip() == expected.best.taxon.id


def test_a_pickle_needs_no_folder(model: Path, draw: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    data = pickle.dumps(Classifier.load(copy))
    shutil.rmtree(copy)
    found = pickle.loads(data)  # noqa: S301
    assert found.predict(draw(1, 0)).answers


def test_joblib_and_ray_take_a_classifier_that_was_used(classifier: Classifier, draw: Any) -> None:
    joblib = pytest.importorskip("joblib")
    photos = [draw(label, 5) for label in range(4)]
    expected = [each.best.taxon.id for each in classifier.predict(photos)]
    calls = (joblib.delayed(classifier.predict)(photo) for photo in photos)
    found = joblib.Parallel(n_jobs=2)(calls)
    assert [each.best.taxon.id for each in found] == expected
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    again = cloudpickle.loads(cloudpickle.dumps(classifier))
    assert again.predict(photos[0]).best.taxon.id == expected[0]


def test_several_threads_load_a_network_once_and_give_the_same(model: Path, draw: Any) -> None:
    loaded, photos = Classifier.load(model), [draw(0, 1), draw(1, 2)]
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: id(loaded.lead.network.engine), range(4)))
        found = list(pool.map(lambda _: loaded.predict_proba(photos), range(8)))
    assert len(set(engines)) == 1
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], atol=1e-6)


# Evaluation


def test_photos_of_labels_that_the_classifier_does_not_know_count_as_errors(
    classifier: Classifier, insects: Path, draw: Any, tmp_path: Path
) -> None:
    for name in ("Apis mellifera", "Vanessa atalanta"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.jpg").write_bytes(draw(0, number + 50))
    summary = evaluate(classifier, tmp_path).summary()
    assert (summary["photos"], summary["photos_kept"]) == (6, 3)
    assert summary["top1_error_all_classes"] >= 0.5
    rows = [(str(path), path.parent.name) for path in sorted(tmp_path.rglob("*.jpg"))]
    frame = pl.DataFrame(rows, schema=["file_name", "label"], orient="row")
    assert evaluate(classifier, frame).summary()["photos_kept"] == 3
    with pytest.raises(InputError, match="not divided"):
        evaluate(classifier, frame, part="test")
    dataset = fieldmark.load_dataset(insects)
    sizes = {part: len(evaluate(classifier, dataset, part)) for part in ("train", "val", "all")}
    assert sizes["all"] == 64
    assert sizes["train"] == len(dataset.train)


# Data


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_data_frame_is_a_dataset(
    insects: Path, library: str, absolute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pytest.importorskip(library)
    monkeypatch.chdir(insects)
    paths = [path for path in sorted(insects.rglob("*.jpg")) if path.name != "broken.jpg"]
    names = [str(path if absolute else path.relative_to(insects)) for path in paths]
    frame = frames.DataFrame({"file_name": names, "label": [path.parent.name for path in paths]})
    dataset = fieldmark.load_dataset(frame, test=0.25)
    assert len(dataset) == 64
    assert len(dataset.classes) == 4
    assert len(dataset.test) == 16
    assert dataset.name == "data frame"


def test_a_torch_dataset_works_with_workers(insects: Path) -> None:
    from torch.utils.data import DataLoader

    dataset = fieldmark.load_dataset(insects)
    alone = dataset.to_torch("val")
    loader = DataLoader(alone, batch_size=3, num_workers=2)
    crops, labels = zip(*loader, strict=True)
    assert crops[0].shape[1:] == (3, 224, 224)
    assert str(crops[0].dtype) == "torch.uint8"
    assert [int(each) for batch in labels for each in batch] == [y for _, y in alone]
    with pytest.raises(InputError, match="choose train, val or test"):
        dataset.to_torch("every")  # type: ignore[arg-type]


@pytest.mark.parametrize("photos", [17, None, ["a.jpg"], {"file_name": []}])
def test_what_is_no_data_set_is_one_sentence(photos: Any) -> None:
    with pytest.raises(InputError, match="Photos are a path, a data frame or a PhotoTable"):
        fieldmark.load_dataset(photos)


# Configurations


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("transfer", value) for value in ("most", None, 3)),
        *(("engine", "gpu"), ("tier", "quick"), ("head", "svm"), ("quality", "better")),
        *(("split", "half"), ("ensemble", "sum")),
        *(("precision", value) for value in (-0.1, 1.5, float("nan"), "0.9", True)),
        *(("epochs", value) for value in (0, -1, 2.5, "5", True)),
        *(("limit", 0), ("seed", 1.5), ("budget", 0), ("budget", "30m"), ("rare", 1)),
        *(("val", -0.1), ("test", 1.1), ("val", 0.95)),
        *(("weights_dir", 3), ("names", b"x"), ("also", "alexnet"), ("also", (3,))),
        *(("backbone", 3), ("weights", None)),
    ],
)
def test_values_that_cannot_be_are_refused_when_the_configuration_is_made(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name) as caught:
        TrainConfig(**{name: value})
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_configuration_is_json_and_comes_back() -> None:
    config = TrainConfig(weights_dir="weights", names="names.csv", also=["a", "b"], epochs=3)  # type: ignore[arg-type]
    assert config.weights_dir == Path("weights")
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainConfig.from_dict({}) == TrainConfig()
    with pytest.raises(InputError, match="no field 'epoch'"):
        TrainConfig.from_dict({"epoch": 3})


def test_a_divided_data_set_refuses_another_division(insects: Path) -> None:
    dataset = fieldmark.load_dataset(insects)
    with pytest.raises(InputError, match=r"divided already, so limit=9"):
        fieldmark.train(dataset, TrainConfig(limit=9))


# Callbacks


def tiny() -> TrainConfig:
    return TrainConfig(backbone=TINY[0], weights="random", engine="torch", epochs=3)


class Recorder(Callback):
    def __init__(self) -> None:
        self.stages: set[str] = set()
        self.epochs: list[int] = []
        self.summary: Any = None

    def on_progress(self, stage: str, done: int, total: int | None) -> None:
        assert total is None or done <= total
        self.stages.add(stage)

    def on_epoch(self, epoch: Any) -> None:
        self.epochs.append(epoch.epoch)

    def on_end(self, summary: Any) -> None:
        self.summary = summary


def test_callbacks_for_tensorboard_and_mlflow(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the only store of mlflow-skinny
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mlflow = pytest.importorskip("mlflow")
    recorder = Recorder()
    mlflow.set_tracking_uri((tmp_path / "mlflow").as_uri())
    with mlflow.start_run() as run:
        both = [fieldmark.TensorBoardCallback(tmp_path / "runs"), fieldmark.MLflowCallback()]
        trained = fieldmark.train(insects, tiny(), callbacks=[recorder, *both])
    assert recorder.epochs[-1] == 3
    assert recorder.stages
    assert recorder.summary["top1_error"] == trained.summary["top1_error"]
    read = events.EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    assert {"train_loss", "val_loss", "val_error", "test/top1_error"} <= set(read.Tags()["scalars"])
    assert [each.step for each in read.Scalars("val_loss")][-1] == 3
    logged = mlflow.get_run(run.info.run_id).data.metrics
    assert logged["test_top1_error"] == pytest.approx(trained.summary["top1_error"])
    assert "val_loss" in logged


def test_what_a_callback_raises_reaches_the_caller(insects: Path) -> None:
    class Stop(Callback):
        def on_epoch(self, epoch: Any) -> None:
            raise ZeroDivisionError(str(epoch.epoch))

    with pytest.raises(ZeroDivisionError):
        fieldmark.train(insects, tiny(), callbacks=[Stop()])


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("mlflow", "MLflowCallback()", "mlflow"),
        ("torch.utils.tensorboard", "TensorBoardCallback('x')", "tensorboard"),
        ("sklearn.base", "FeatureClassifier", "sklearn"),
    ],
)
def test_an_extra_that_is_missing_is_one_sentence(
    missing: str, name: str, extra: str, tmp_path: Path
) -> None:
    code = f"""
import sys, fieldmark
sys.modules[{missing!r}] = None
try:
    fieldmark.{name}
except fieldmark.InputError as error:
    print(error)
"""
    assert f"pip install 'fieldmark[{extra}]'" in python(code, where=tmp_path)


# scikit-learn


def test_the_estimator_keeps_the_conventions_of_scikit_learn() -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks.check_estimator(fieldmark.FeatureClassifier(epochs=20), on_skip=None)


def test_the_estimator_learns_features_of_a_classifier(classifier: Classifier, draw: Any) -> None:
    y = [label for label in range(4) for _ in range(8)]
    x_ND = classifier.embed(draw(label, number % 8) for number, label in enumerate(y))
    found = fieldmark.FeatureClassifier(seed=3).fit(x_ND, [f"class {label}" for label in y])
    assert found.predict(x_ND[:1])[0] == "class 0"
    assert found.predict_proba(x_ND).sum(1) == pytest.approx(1)
    assert found.score(x_ND, [f"class {label}" for label in y]) > 0.8
    for wrong in ({"validation_fraction": 1.0}, {"validation_fraction": -0.1}):
        with pytest.raises(ValueError, match="validation_fraction"):
            fieldmark.FeatureClassifier(**wrong).fit(x_ND, y)


# Public names, documents and examples


def test_the_public_names_are_few_and_load_when_they_are_used(tmp_path: Path) -> None:
    assert len(fieldmark.__all__) <= 25
    for name in fieldmark.__all__:
        assert getattr(fieldmark, name).__doc__, name
        assert name in dir(fieldmark)
    code = "import sys, fieldmark; print(sorted({'torch', 'polars', 'numpy'} & set(sys.modules)))"
    assert python(code, where=tmp_path).strip() == "[]"


def test_a_deprecated_name_works_and_says_where_it_is_now() -> None:
    with pytest.warns(DeprecationWarning, match=r"import it from fieldmark\.data\.split"):
        from fieldmark import Split  # type: ignore[attr-defined]
    assert Split.__name__ == "Split"


def test_the_examples_of_the_document_run(
    insects: Path, draw: Any, tmp_path: Path, run_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shutil.copytree(insects, tmp_path / "photos")
    for name in ("Apis mellifera", "Vanessa atalanta"):
        (tmp_path / "more-photos" / name).mkdir(parents=True)
        for number in range(12):
            data = draw(0 if name.startswith("Apis") else 5, number + 60)
            (tmp_path / "more-photos" / name / f"{number}.jpg").write_bytes(data)
    (tmp_path / "photo.jpg").write_bytes(draw(1, 70))
    used = set(re.findall(r"\b\w+\b", " ".join(blocks)))
    assert set(fieldmark.__all__) <= used
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlflow"))
    run_here("\n".join(blocks))


@pytest.fixture
def run_here(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a program in this process, in a folder of its own, and return what it prints."""

    def run(code: str, *arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FIELDMARK_CACHE", kept)
        monkeypatch.setattr(sys, "argv", ["example.py", *map(str, arguments)])
        exec(code, {"__name__": "__main__"})
        return capsys.readouterr().out

    return run


def example(name: str) -> str:
    return (ROOT / "examples" / name).read_text(encoding="utf-8")


def test_the_example_scripts_run(insects: Path, model: Path, tmp_path: Path, run_here: Any) -> None:
    photo, broken = insects / "Apis mellifera" / "03.jpg", insects / "Apis mellifera" / "broken.jpg"
    out = run_here(example("train_and_predict.py"), insects, "model", photo, broken)
    assert "top-1 error" in out
    assert "truncated" in out
    assert "accuracy" in run_here(example("sklearn_head.py"), insects, model)
    rows = [f"{path},{path.parent.name}" for path in sorted(insects.rglob("0*.jpg"))]
    (tmp_path / "table.csv").write_text("\n".join(["file_name,label", *rows]))
    out = run_here(example("photos_in_a_data_frame.py"), model, "table.csv")
    assert "on 40 photos" in out


def test_the_example_of_an_ensemble_runs(photos: Path, run_here: Any) -> None:
    names = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
    out = run_here(example("ensemble.py"), photos, *names)
    assert out.count("  weight ") in (1, 2)


def test_the_notebook_runs(run_here: Any) -> None:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [each for each in notebook["cells"] if each["cell_type"] == "code"]
    assert all(not each["outputs"] for each in cells)
    run_here("\n".join("".join(each["source"]) for each in cells))
