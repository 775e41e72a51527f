"""The command line as a user meets it: outputs, exit codes, one sentence for anything bad."""

from __future__ import annotations

import csv
import errno
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from fieldmark import __version__, cli
from fieldmark.cli.check import check
from fieldmark.cli.grow import grow
from fieldmark.cli.rank import rank
from fieldmark.cli.serve import serve
from fieldmark.cli.study import study
from fieldmark.cli.train import train
from fieldmark.curation import CheckConfig
from fieldmark.data.download import CHALLENGES
from fieldmark.data.photos import PhotoTable
from fieldmark.data.split import Split
from fieldmark.evaluation import ensemble
from fieldmark.experiments.model_ranking import RankConfig
from fieldmark.experiments.study import StudyConfig
from fieldmark.inference.formats import WRITERS
from fieldmark.models import runtime
from fieldmark.serving.config import ServeConfig
from fieldmark.training import ExtendConfig, TrainConfig
from fieldmark.utils import choices

SCRIPT = Path(sys.executable).with_name("fieldmark")
NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--weights", "random", "--engine", "torch")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, insects: Path, model: Path) -> Path:
    """A folder to work in, with photos, a model and things that are of no use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "insects").symlink_to(insects)
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "notes.txt").write_text("no photo")
    (tmp_path / "pretenders" / "a").mkdir(parents=True)
    (tmp_path / "pretenders" / "a" / "notes.jpg").write_text("no photo")
    shutil.copytree(insects / "Apis mellifera", tmp_path / "one" / "Apis")
    (tmp_path / "broken.json").write_text('{"images": [')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train2019.json").write_text('{"images": [')
    (tmp_path / "file").write_text("hello")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    (tmp_path / "lacking.csv").write_text("where,label\na.jpg,b\n")
    (tmp_path / "no_function.py").write_text("x = 1\n")
    (tmp_path / "raises.py").write_text("def recipe(options):\n    return 1 / 0\n")
    (tmp_path / "not_python.py").write_text("def (\n")
    (tmp_path / "no_recipe.py").write_text("def recipe(options):\n    return 3\n")
    return tmp_path


def program(run: Callable[[], None]) -> click.Command:
    """A command line that runs a function, whatever it is given."""
    return click.Command("fieldmark", callback=run, context_settings={"allow_extra_args": True})


def test_the_version_and_the_help(run) -> None:
    assert run("--version").out == f"fieldmark {__version__}\n"
    everything = run("--help")
    assert everything.code == 0
    for command in ("index", "stats", "split", "train", "predict", "study", "demo"):
        assert command in everything.out
        assert run(command, "--help").code == 0


@pytest.mark.parametrize("verb", [name for names in cli.COMMANDS.values() for name in names])
def test_an_option_needs_a_value_and_refuses_one_that_is_none(run, verb: str) -> None:
    """`nan` is no number, and an empty path is that of a shell variable that is not set."""
    options = [each for each in cli.app.commands[verb].params if isinstance(each, click.Option)]
    for option in (each for each in options if not each.is_flag):
        name = option.opts[0]
        done = run(verb, name)
        assert (done.code, f"Option '{name}' requires an argument" in done.err) == (2, True), name
        if isinstance(option.type, click.FloatRange | click.Path):
            done = run(verb, name, "nan" if isinstance(option.type, click.FloatRange) else "")
            assert (done.code, f"Invalid value for '{name}'" in done.err) == (2, True), name


def test_a_name_that_is_too_long_for_a_file_is_one_sentence(run) -> None:
    done = run("stats", "x" * 5000)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "is too long for a file: shorten it" in done.err


def test_a_python_that_runs_a_command_goes_on_as_before(run) -> None:
    mine = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, mine), sys.unraisablehook, sys.stdout
    try:
        assert run("--version").code == 0
        assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook, sys.stdout) == (mine, *before[1:])
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_a_disk_that_refuses_is_one_sentence_wherever_it_is_met(run, monkeypatch) -> None:
    def refused() -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/photos/x.part")

    monkeypatch.setattr("fieldmark.cli.command_line", lambda _: program(refused))
    done = run("index")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("fieldmark: /photos/x.part could not be written (Read-only file system)")


def test_the_script_is_installed_and_answers_at_once() -> None:
    """Nothing heavy is imported before a command is chosen."""
    heavy = "{'torch', 'polars', 'numpy'}"
    code = f"import sys; from fieldmark import cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fieldmark {__version__}\n"
    module = [sys.executable, "-m", "fieldmark", "--version"]
    assert subprocess.run(module, capture_output=True, text=True, check=True).stdout == done.stdout


def test_the_values_of_options_are_those_of_the_library() -> None:
    assert get_args(choices.EngineName) == ("auto", *runtime.ENGINES)
    assert get_args(choices.Weighting) == tuple(ensemble.WEIGHTINGS)
    assert {f"inat{year}" for year in CHALLENGES} | {"open-data"} == {*get_args(choices.PublishedSet)}
    assert {*get_args(choices.OutputFormat)} - {"text"} < WRITERS.keys()


SERVER_ONLY = (
    *("max_photos", "decoders", "decode_seconds", "body_seconds", "held_bytes", "drain_seconds"),
    *("head_seconds", "connections", "client_connections"),
)


@pytest.mark.parametrize(
    ("command", "config", "not_options"),
    [
        (train, TrainConfig, {"also", "also_sizes", "val", "test"}),
        (grow, ExtendConfig, set()),
        (check, CheckConfig, {"folds"}),
        (study, StudyConfig, {"options", "val", "precision", "bands"}),
        (rank, RankConfig, {"networks"}),
        (serve, ServeConfig, {"keys", "origins", *SERVER_ONLY}),
    ],
)
def test_options_have_the_names_and_defaults_of_the_configuration(
    command: Callable[..., None], config: Any, not_options: set[str]
) -> None:
    """A command builds its configuration from the options by name."""
    parameters = inspect.signature(command).parameters
    given = {each.name: each.default for each in fields(config)}
    assert {*given} - {*parameters} == not_options
    for name in given.keys() & parameters.keys():
        assert (parameters[name].default or None) == (given[name] or None), name


def test_index_adds_up_and_names_the_reasons(run, here: Path) -> None:
    done = run("index", "insects", "--out", "deep/photos.parquet")
    assert done.code == 0
    assert "65 photos found = 64 kept + 1 rejected" in done.out
    assert "1 truncated" in done.out
    table = PhotoTable.read(here / "deep" / "photos.parquet")
    assert (len(table), table.kept.height) == (65, 64)
    columns = {"path", "sha256", "width", "height", "taxon_id", "group", "split", "status", "reason"}
    assert columns <= set(table.frame.columns)


def test_stats_in_words_and_as_json(run, here: Path) -> None:
    found = json.loads(run("stats", "insects", "--json").out)
    assert {"classes", "photos", "groups", "parts"} <= set(found)
    keys = {"photos", "max", "min", "median", "mean", "sd", "classes_below_100"}
    for part in ("train", "val", "all"):
        assert keys | {"photos_in_classes_below_100"} <= set(found["parts"][part])
    assert found["classes"] == 4
    plain = run("stats", "insects")
    assert plain.code == 0
    assert "median" in plain.out.lower()


def test_split_is_a_function_of_the_seed(run, here: Path) -> None:
    run("index", "insects", "--out", "photos.parquet")
    first = run("split", "photos.parquet", "--val", "0.2", "--test", "0.1", "--out", "split.parquet")
    assert first.code == 0  # also where pruning at 100 would leave nothing
    again = run("split", "photos.parquet", "--val", "0.2", "--test", "0.1")
    other = run("split", "photos.parquet", "--val", "0.2", "--test", "0.1", "--seed", "1")
    digests = [re.search(r"digest (\S+)", each.out)[1] for each in (first, again, other)]  # type: ignore[index]
    assert digests[0] == digests[1] != digests[2]
    drawn = Split.read(here / "split.parquet")
    assert drawn.digest == digests[0]
    assert sum(len(drawn.ids(part)) for part in ("train", "val", "test")) == 64
    pruned = run("split", "photos.parquet", "--prune-below", "2")
    assert "pruned below 2: 0 classes with 0 train photos" in pruned.out


def test_train_reports_its_error_and_predict_uses_the_classifier(run, here: Path) -> None:
    done = run("train", "insects", "--out", "new", *NETWORK, "--epochs", "3", "--seed", "2")
    assert done.code == 0
    assert re.search(r"Top-1 error [\d.]+ % on \d+ test photos \(95 % CI [\d.]+-[\d.]+ %\)", done.out)
    assert "random" in done.err  # what the weights are
    assert "65 photos found, 64 kept, 1 rejected (1 truncated)" in done.err
    names = {path.name for path in (here / "new").iterdir()}
    assert {"classifier.json", "report.html", "evaluation.json", "photos.parquet"} <= names
    assert not [name for name in names if name.endswith(".part")]
    page = (here / "new" / "report.html").read_text()
    assert "fieldmark train insects --out new" in page
    named = run("predict", "new", "insects/Apis mellifera/00.jpg")
    assert named.code == 0
    assert "00.jpg" in named.out
    again = run("train", "insects", "--out", "new", *NETWORK, "--limit", "40")
    assert again.code == 0  # an older classifier may be replaced


def test_training_twice_gives_the_same_classifier(run, here: Path) -> None:
    for name in ("a", "b"):
        assert run("train", "insects", "--out", name, *NETWORK).code == 0
    heads = [(here / name / "head.safetensors").read_bytes() for name in ("a", "b")]
    assert heads[0] == heads[1]


def test_a_photo_that_changed_since_it_was_indexed_stops_nothing(run, here: Path) -> None:
    shutil.copytree(here / "insects", here / "mine")
    run("index", "mine", "--out", "photos.parquet")
    (here / "mine" / "Danaus plexippus" / "03.jpg").write_bytes(b"gone bad")
    shutil.copy(here / "mine" / "Apis mellifera" / "01.jpg", here / "mine" / "Danaus plexippus" / "04.jpg")
    done = run("train", "photos.parquet", "--out", "new", *NETWORK)
    assert done.code == 0, done.err
    assert "2 changed" in done.err or "1 changed" in done.err


def test_predict_prints_text_csv_and_json_lines(run, here: Path) -> None:
    folder = "insects/Danaus plexippus"
    text = run("predict", "model", folder)
    assert text.code == 0
    assert text.out.count(".jpg") == 16
    rows = list(
        csv.DictReader(run("predict", "model", folder, "--format", "csv", "--candidates").out.splitlines())
    )
    answers = [row for row in rows if row["source"] != "candidate"]
    assert len(answers) == 16
    labels = [row for row in rows if row["taxon_id"]]
    assert len(labels) == 16 * 4
    for start in range(0, 64, 4):
        scores = [float(row["score"]) for row in labels[start : start + 4]]
        assert scores == sorted(scores, reverse=True)
    lines = run("predict", "model", folder, "--format", "jsonl", "--top", "1").out.splitlines()
    assert [len(json.loads(line)["labels"]) for line in lines] == [1] * 16


def test_a_rejected_photo_is_reported_and_shows_in_the_exit_code(run, here: Path) -> None:
    done = run("predict", "model", "insects/Apis mellifera", "--format", "jsonl")
    assert done.code == 2
    assert len(done.out.splitlines()) == 17
    assert json.loads(done.out.splitlines()[-1])["rejected"] == "truncated"
    assert "1 of 17 photos" in done.err


def test_a_submission(run, here: Path) -> None:
    images = [
        {"id": 5, "file_name": "insects/Apis mellifera/00.jpg"},
        {"id": 3, "file_name": "insects/Apis mellifera/broken.jpg"},
        {"id": 8, "file_name": "nowhere.jpg"},
    ]
    (here / "test2019.json").write_text(json.dumps({"images": images}))
    done = run("predict", "model", "test2019.json", "--submission", "sub/mission.csv")
    assert done.code == 0
    lines = (here / "sub" / "mission.csv").read_text().splitlines()
    assert lines[0] == "id,predicted"
    assert [line.split(",")[0] for line in lines[1:]] == ["5", "3", "8"]


BAD = {
    "no photos": ("train", "nowhere", "--out", "new", *NETWORK),
    "empty folder": ("train", "empty", "--out", "new", *NETWORK),
    "text files": ("train", "texts", "--out", "new", *NETWORK),
    "texts called photos": ("train", "pretenders", "--out", "new", *NETWORK),
    "one class": ("train", "one", "--out", "new", *NETWORK),
    "a file that is no list": ("train", "file", "--out", "new", *NETWORK),
    "broken JSON": ("train", "broken.json", "--out", "new", *NETWORK),
    "broken annotations": ("train", "broken", "--out", "new", *NETWORK),
    "a table without columns": ("train", "lacking.csv", "--out", "new", *NETWORK),
    "unknown network": ("train", "insects", "--out", "new", "--backbone", "no_such_network"),
    "no weights folder": (
        *("train", "insects", "--out", "new", "--backbone", "squeezenet1_1"),
        *("--weights-dir", "nowhere"),
    ),
    "no weights file": ("train", "insects", "--out", "new", "--weights", "nowhere.safetensors"),
    "weights of text": ("train", "insects", "--out", "new", "--weights", "file"),
    "out is a file": ("train", "insects", "--out", "file", *NETWORK),
    "out is below a file": ("train", "insects", "--out", "file/below", *NETWORK),
    "out is foreign": ("train", "insects", "--out", "foreign", *NETWORK),
    "no limit": ("train", "insects", "--out", "new", "--limit", "0", *NETWORK),
    "limit of one": ("train", "insects", "--out", "new", "--limit", "1", *NETWORK),
    "limit no number": ("train", "insects", "--out", "new", "--limit", "many", *NETWORK),
    "no epochs": ("train", "insects", "--out", "new", "--epochs", "0", *NETWORK),
    "precision above one": ("train", "insects", "--out", "new", "--precision", "7", *NETWORK),
    "unknown engine": ("train", "insects", "--out", "new", "--engine", "steam"),
    "cache is a file": ("train", "insects", "--out", "new", *NETWORK, "--cache", "file"),
    "official split": ("train", "insects", "--out", "new", *NETWORK, "--split", "official"),
    "no model": ("predict", "nowhere", "insects"),
    "model is a file": ("predict", "file", "insects"),
    "model is something else": ("predict", "foreign", "insects"),
    "no photo": ("predict", "model", "nowhere.jpg"),
    "photo is text": ("predict", "model", "file"),
    "no photo in it": ("predict", "model", "empty"),
    "list is broken": ("predict", "model", "broken.json"),
    "no photo at all": ("predict", "model"),
    "list that is not there": ("predict", "model", "--list", "nowhere.txt"),
    "species nobody knows": ("predict", "model", "insects", "--only", "file"),
    "output of no known form": ("predict", "model", "insects", "--out", "new.docx"),
    "output that is something else": ("predict", "model", "insects", "--out", "lacking.csv"),
    "wide text": ("predict", "model", "insects", "--wide"),
    "no top": ("predict", "model", "insects", "--top", "0"),
    "submission of a folder": ("predict", "model", "insects", "--submission", "new"),
    "index of nothing": ("index", "nowhere", "--out", "new"),
    "index of an empty folder": ("index", "empty", "--out", "new"),
    "index into a folder": ("index", "insects", "--out", "foreign"),
    "index below a file": ("index", "insects", "--out", "file/photos.parquet"),
    "unknown source": ("index", "insects", "--source", "guess", "--out", "new"),
    "stats of nothing": ("stats", "nowhere"),
    "stats of text": ("stats", "file"),
    "shares above one": ("split", "insects", "--val", "2", "--out", "new"),
    "share below zero": ("split", "insects", "--val", "-1", "--out", "new"),
    "share of nan": ("split", "insects", "--val", "nan", "--out", "new"),
    "unknown recipe": ("study", "guess", "insects", "--out", "new"),
    "recipe without function": ("study", "no_function.py", "insects", "--out", "new"),
    "recipe that raises": ("study", "raises.py", "insects", "--out", "new"),
    "recipe that is no Python": ("study", "not_python.py", "insects", "--out", "new"),
    "recipe that gives none": ("study", "no_recipe.py", "insects", "--out", "new"),
    "unknown table": ("study", "paper", "insects", "--out", "new", "--only", "table9"),
    "half unknown table": (
        *("study", "paper", "insects", "--out", "new", "--only", "table3", "--only", "table9"),
    ),
    "table made from none": ("study", "paper", "insects", "--out", "new", "--only", "test"),
    "study out is a file": ("study", "paper", "insects", "--out", "file"),
    "study out is foreign": ("study", "paper", "insects", "--out", "foreign"),
    "demo out is foreign": ("demo", "--out", "file"),
    "demo too small": ("demo", "--out", "new", "--species", "50", "--photos", "41"),
    "demo of two sets": ("demo", "--out", "new", "--stations", "--photos", "50"),
    "no command of that name": ("guess", "insects"),
    "an option too many": ("stats", "insects", "--fast"),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    run, here: Path, arguments: tuple[str, ...]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    done = run(*arguments)
    assert done.code == 2, done.err
    assert "Traceback" not in done.out + done.err
    last = done.err.strip().splitlines()[-1]
    assert last.startswith(("fieldmark: ", "Error: ")) or last.startswith("Try ")
    assert len(last) > 25
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert after == before


def test_missing_weights_are_reported_before_any_photo_is_read(run, here: Path) -> None:
    """No network here: the download fails at once, whatever the photos are like."""
    (here / "weights").mkdir()
    done = run("train", "nowhere", "--out", "new", "--backbone", "densenet161", "--weights-dir", "weights")
    assert done.code == 2
    assert "--weights-dir" in done.err
    assert "nowhere" not in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(run, here: Path) -> None:
    (here / "empty").chmod(0o500)
    done = run("train", "insects", "--out", "empty/new", *NETWORK)
    assert done.code == 2
    assert "empty" in done.err.splitlines()[-1]


def start(here: Path, *arguments: str) -> subprocess.Popen[str]:
    """The installed program in a process of its own."""
    return subprocess.Popen(
        [SCRIPT, *arguments], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_control_c_leaves_cleanly(here: Path) -> None:
    """While all layers are trained: one line, exit code 130, and no half-written classifier."""
    process = start(
        *(here, "train", "insects", "--out", "new", "--backbone", "shufflenet_v2_x0_5"),
        *("--weights", "random", "--transfer", "scratch", "--epochs", "500"),
    )
    assert process.stderr is not None
    said = ""
    while "test photos" not in said:  # the line before training begins
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said + rest
    assert rest.strip().splitlines()[-1].startswith("fieldmark: stopped")
    assert not (here / "new" / "classifier.json").exists()


IN_A_CALLBACK = """
import os, signal, time, weakref
import click
from fieldmark import cli

class Thing: pass

def run():
    thing = Thing()
    callback = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
    for _ in range(100):
        time.sleep(0.1)

cli.command_line = lambda _: click.Command("fieldmark", callback=run)
cli.main()
"""


def test_control_c_while_python_drops_exceptions(tmp_path: Path) -> None:
    """An interrupt in a callback of the collector or of an import is dropped by Python: it comes again."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr.startswith("fieldmark: stopped")


def test_a_reader_that_has_seen_enough(here: Path, model: Path) -> None:
    """`fieldmark predict ... | head -1`: no traceback, no complaint."""
    command = f"'{SCRIPT}' predict model insects insects --format jsonl"
    command += f" --cache '{model.parent}/cache'"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1"], cwd=here, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("kilobytes", [300_000, 900_000, 1_500_000])
def test_too_little_address_space_is_one_sentence(here: Path, kilobytes: int) -> None:
    """The libraries for tables and networks would end the process, in the middle of its work."""
    command = f"ulimit -v {kilobytes}; exec '{SCRIPT}' index insects --out photos.parquet"
    done = subprocess.run(["bash", "-c", command], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr[-2000:]
    assert "are needed, most of which is never used: raise the limit" in done.stderr
    assert not (here / "photos.parquet").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2),
        (ImportError("x.so: failed to map segment from shared object"), 2),
        (RuntimeError("something else"), None),
        (ImportError("No module named x"), None),
    ],
)
def test_memory_that_is_used_up_is_one_sentence(
    error: Exception, code: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise error

    monkeypatch.setattr(cli, "command_line", lambda _: program(run))
    with pytest.raises(type(error) if code is None else SystemExit) as raised:
        cli.main()
    if isinstance(raised.value, SystemExit):
        assert raised.value.code == code
        assert "there is not enough memory" in capsys.readouterr().err
