"""Output folders under kills, full disks and two writers: always all of the old or all of the new."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tests.conftest import write_about

from fieldmark.curation import CheckConfig, check, runner
from fieldmark.curation.runner import KIND as CHECK
from fieldmark.data import readers
from fieldmark.data.download.archives import KIND as PHOTOS
from fieldmark.experiments.study.writing import KIND as STUDY
from fieldmark.inference import neighbours
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.folder import KIND as CLASSIFIER
from fieldmark.training import TrainConfig, train
from fieldmark.training.run import Trained
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import ClassifierError, FieldmarkError, InputError, StoreError
from fieldmark.utils.publishing import Kind, claimed

KIND = Kind("thing", "thing.json", owned=("part-*.bin",))

# Real kills of a small writer: each process forks from one that has imported it.

WRITER = """
import os, signal, sys
import filelock  # once for all
from pathlib import Path
from fieldmark.utils import io, publishing
from fieldmark.utils.publishing import Kind

CALLS = ("fsync", "replace", "rename", "link", "mkdir", "rmdir", "unlink", "open", "chmod")

def write(out, word):
    with publishing.publishing(out, Kind("thing", "thing.json", owned=("part-*.bin",))) as staging:
        for number in range(3):
            io.write_text(staging / f"part-{number}.bin", word)
        io.write_json(staging / "thing.json", {"word": word, "files": publishing.digests(staging)})

def counted(of, left):
    def call(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return of(*arguments, **options)
    return call

def kill_at(step, out, word):
    left = [step]
    os.fsync = lambda handle: None  # no power is cut here
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), left))
    publishing._exchange = counted(exchange, left)
    write(out, word)

exchange = publishing._exchange
for line in sys.stdin:
    step, exchanges, word, out = line.rstrip("\\n").split(" ", 3)
    exchange = publishing._exchange if exchanges == "1" else lambda one, other: False
    child = os.fork()
    if not child:
        kill_at(int(step), Path(out), word)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def writer() -> Iterator[Callable[..., int]]:
    """Write a folder in a process that kills itself before its n-th call; gives how that ended."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def write(out: Path, word: str, step: int = 10_000, *, exchange: bool = True) -> int:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{step} {int(exchange)} {word} {out}\n")
            child.stdin.flush()
            return int(child.stdout.readline())

        yield write
        child.stdin.close()


def word_of(out: Path) -> str | None:
    """What is written in a folder, all of which must be of one writer; None where it is not there."""
    publishing.restore(out)
    if not out.exists():
        return None
    about = json.loads((out / "thing.json").read_text())
    for name, digest in about["files"].items():
        assert io.file_digest(out / name) == digest
    assert {(out / f"part-{number}.bin").read_text() for number in range(3)} == {about["word"]}
    return str(about["word"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_and_the_next_one_succeeds(
    writer: Callable[..., int], tmp_path: Path, old: bool, exchange: bool
) -> None:
    step, seen = 0, set()
    while True:
        out = tmp_path / f"{step}" / "out"
        if old:
            assert writer(out, "old") == 0
            (out / "notes").mkdir()
            (out / "notes" / "mine.txt").write_text("mine")
        code = writer(out, "new", step, exchange=exchange)
        seen.add(word_of(out))
        assert seen <= {"old" if old else None, "new"}
        assert not old or (out / "notes" / "mine.txt").read_text() == "mine"
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert writer(out, "next", exchange=exchange) == 0
        assert word_of(out) == "next"
        assert not old or (out / "notes" / "mine.txt").read_text() == "mine"
        assert names(out.parent) == ["out"]
        step += 1
    assert step > 30
    assert len(seen) == 2


# A classifier: the kill is a disk that takes nothing more from some call on.


class Killed(BaseException):
    """Stands for the end of the process."""


CALLS = ("fsync", "replace", "rename", "link", "mkdir", "rmdir", "unlink", "open", "chmod")


@contextmanager
def stopping_at(step: int, error: Callable[[], BaseException], *, for_good: bool) -> Iterator[list]:
    """Raise an error in the n-th call that changes the disk; `for_good`: in all later ones, too."""
    left = [step]

    def counted(of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == -1 or (for_good and left[0] < 0):
                raise error()
            return of(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # no power is cut here
        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(publishing, "_exchange", counted(publishing._exchange))
        yield left


@dataclass
class Pair:
    """Two trained classifiers of the same network."""

    one: Trained
    other: Trained

    def which(self, folder: Path) -> str:
        """Which of the two lies in a folder; its neighbours and its measures must be its own."""
        found = Classifier.load(folder)
        kept = neighbours.load_index(found)
        assert kept is not None
        summary = json.loads((folder / "evaluation.json").read_text())
        for name, trained in (("one", self.one), ("other", self.other)):
            if found.digest == trained.classifier.digest:
                assert summary["top1_error"] == trained.summary["top1_error"]
                assert len(kept) == len(trained.outcome.splits.train.ids)
                assert publishing.digests(folder).items() >= found.files.items()
                return name
        raise AssertionError("neither")


@pytest.fixture(scope="module")
def pair(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both from one cache; the pages are left out, for time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("pair")))
        patch.setattr("fieldmark.training.run.classifier_page", lambda *_, **__: "page")
        config = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch")
        one = train(insects, replace(config, epochs=2))
        other = train(insects, replace(config, epochs=2, val=0.2))
        yield Pair(one, other)


def test_a_retrain_killed_at_any_step_leaves_one_whole_classifier(pair: Pair, tmp_path: Path) -> None:
    """Each step tries the next one from what the last kill left, so that leftovers add up."""
    out = tmp_path / "model"
    pair.one.save(out)
    (out / "notes.txt").write_text("mine")
    step, seen, finished = 0, [], False
    while not finished:
        with stopping_at(step, Killed, for_good=True):
            try:
                pair.other.save(out)
                finished = True
            except Killed:
                pass
        seen.append(pair.which(out))
        assert (out / "notes.txt").read_text() == "mine"
        if seen[-1] == "other" and not finished:
            pair.one.save(out)
            assert pair.which(out) == "one"
            assert names(tmp_path) == ["model"]
        step += 1
    assert step > 50
    assert {"one", "other"} == set(seen)


def test_a_check_killed_at_the_exchange_is_run_again(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results" / "out"
    config = CheckConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch")
    found = runner._check(insects, config, readers.read)
    monkeypatch.setattr(runner, "_check", lambda *_: found)
    for exchanged in (False, True):
        with killed_at_exchange(exchanged=exchanged), pytest.raises(Killed):
            check(insects, out, config)
        assert (out / "findings.json").exists() == exchanged
    check(insects, out, config)
    assert names(out.parent) == ["out"]


@contextmanager
def killed_at_exchange(*, exchanged: bool) -> Iterator[None]:
    """End what is done in the block before the new folder is in its place, or right after that."""
    swap = publishing._swap

    def killed(staging: Path, place: Path) -> NoReturn:
        if exchanged:
            swap(staging, place)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "_swap", killed)
        patch.setattr(publishing, "_discard", lambda *_: None)
        yield


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_at_any_step_is_one_sentence_and_leaves_the_old_classifier(
    pair: Pair, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    pair.one.save(out)
    step, finished, sentences = 0, False, list[str]()
    while not finished:
        with stopping_at(step, full, for_good=False) as left:
            try:
                pair.other.save(out)
            except InputError as error:
                sentences.append(str(error))
        finished = left[0] >= 0
        if pair.which(out) == "other":
            pair.one.save(out)
        assert names(tmp_path) == ["model"]
        step += 1
    assert len(sentences) > 30
    assert all("No space left on device" in each for each in sentences)
    assert all(".staging-" not in each for each in sentences)


@pytest.mark.parametrize("size", [1_000, 5_000, 100_000])
def test_a_disk_that_is_full_for_safetensors_is_one_sentence(pair: Pair, tmp_path: Path, size: int) -> None:
    """It writes by itself and has an exception of its own."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(InputError, match=r"model.* could not be written"):
            pair.one.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_ctrl_c_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    out = write(tmp_path / "out", "old")

    def interrupted() -> NoReturn:
        with publishing.publishing(out, KIND) as staging:
            io.write_text(staging / "part-0.bin", "new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert word_of(out) == "old"
    assert names(tmp_path) == ["out"]


def write(out: Path, word: str) -> Path:
    with publishing.publishing(out, KIND) as staging:
        for number in range(3):
            io.write_text(staging / f"part-{number}.bin", word)
        io.write_json(staging / "thing.json", {"word": word, "files": publishing.digests(staging)})
    return out


# What belongs to a classifier


def test_neighbours_of_another_classifier_are_refused(pair: Pair, tmp_path: Path) -> None:
    pair.one.save(tmp_path / "one")
    pair.other.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / neighbours.FILE, tmp_path / "one")
    with pytest.raises(ClassifierError, match="not written with this classifier"):
        neighbours.load_index(Classifier.load(tmp_path / "one"))
    bare = pair.one.classifier
    bare.save(tmp_path / "bare")
    assert neighbours.load_index(Classifier.load(tmp_path / "bare")) is None
    shutil.copy(tmp_path / "one" / neighbours.FILE, tmp_path / "bare")
    with pytest.raises(ClassifierError, match="not written with this classifier"):
        neighbours.load_index(Classifier.load(tmp_path / "bare"))


def test_a_server_that_reads_neighbours_after_a_retrain_refuses_the_new_ones(
    pair: Pair, tmp_path: Path
) -> None:
    pair.one.save(tmp_path / "model")
    loaded = Classifier.load(tmp_path / "model")
    pair.other.save(tmp_path / "model")
    with pytest.raises(ClassifierError, match="not written with this classifier"):
        neighbours.load_index(loaded)


def test_a_classifier_of_the_version_before_loads_with_its_neighbours(pair: Pair, tmp_path: Path) -> None:
    """It has digests of its heads and backbones alone."""
    pair.one.save(tmp_path / "model")
    about = json.loads((tmp_path / "model" / "classifier.json").read_text())
    before = {name: about["files"][name] for name in ("head.safetensors", "backbone.safetensors")}
    write_about(tmp_path / "model", {**about, "files": before, "known_from": None, "ood": None})
    assert neighbours.load_index(Classifier.load(tmp_path / "model")) is not None


def test_a_classifier_that_is_saved_where_it_was_loaded_keeps_what_belongs_to_it(
    pair: Pair, tmp_path: Path
) -> None:
    pair.one.save(tmp_path / "model")
    there = names(tmp_path / "model")
    loaded = Classifier.load(tmp_path / "model")
    replace(loaded, provenance={"name": "renamed"}).save(tmp_path / "model")
    assert names(tmp_path / "model") == there
    assert pair.which(tmp_path / "model") == "one"


# Two writers

HOLD = """
import sys, time
from pathlib import Path
from fieldmark.utils.publishing import Kind, claimed
with claimed(Path(sys.argv[1]), Kind("thing", "thing.json", in_place=sys.argv[2] == "1")):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_second_writer_is_told_who_the_first_one_is_until_that_one_is_dead(
    tmp_path: Path, in_place: bool, end: signal.Signals
) -> None:
    out, kind = tmp_path / "out", replace(KIND, in_place=in_place)
    command = [sys.executable, "-c", HOLD, str(out), str(int(in_place))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with (
            pytest.raises(StoreError, match=rf"out is in use by .*process {child.pid} on .*-c"),
            claimed(out, kind),
        ):
            pass
        child.send_signal(end)
    with claimed(out, kind):
        pass
    assert names(tmp_path) == ["out"] * in_place


def test_a_second_thread_is_refused_and_a_block_inside_is_not(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with claimed(tmp_path / "out", KIND), ThreadPoolExecutor(1) as other:
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"):
            other.submit(write, tmp_path / "out", "theirs").result()
        write(tmp_path / "out", "mine")
    assert word_of(tmp_path / "out") == "mine"


def test_a_second_training_is_refused_before_it_reads_a_photo(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        done = run("train", tmp_path / "no photos", "--out", tmp_path / "out")
        child.kill()
    assert done.code == 2
    assert f"process {child.pid} on" in done.err


# Where a folder may go


def test_links_modes_and_files_of_the_user_stay(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "real" / "mine").symlink_to("nowhere")
    (tmp_path / "real").chmod(0o750)
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert word_of(tmp_path / "real") == "new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "real" / "mine").readlink() == Path("nowhere")


def test_what_safetensors_was_writing_when_it_was_killed_is_not_taken_for_the_users(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    killed = tmp_path / ".out.staging-01234567"
    killed.mkdir()
    (killed / ".tmpNHtsNy").touch()
    write(tmp_path / "out", "new")
    assert ".tmpNHtsNy" not in names(tmp_path / "out")


def test_the_folder_of_the_process_itself_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    monkeypatch.chdir(tmp_path / "out")
    write(Path(), "new")
    assert word_of(Path()) == "new"
    assert word_of(tmp_path / "out") == "new"


def test_a_name_that_leaves_no_room_for_the_staging_folder_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 237), "new")
    with pytest.raises(InputError, match="too long"), claimed(tmp_path / ("n" * 238), KIND):
        pass


def test_a_killed_export_leaves_nothing_for_long(tmp_path: Path) -> None:
    (tmp_path / ".model.onnx.12345678.part").touch()
    (tmp_path / ".other.onnx.12345678.part").touch()
    with publishing.writing_file(tmp_path / "model.onnx", "--onnx"):
        io.write_text(tmp_path / "model.onnx", "graph")
    assert names(tmp_path) == [".other.onnx.12345678.part", "model.onnx"]


def test_a_mount_point_is_refused_at_once() -> None:
    with (
        pytest.raises(InputError, match="is a mount point: name a folder in it"),
        claimed(Path("/proc"), KIND),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        (CLASSIFIER, ("README.md", "backbone.safetensors", "photos.parquet", "report.html")),
        (CHECK, ("checked.parquet", ".findings.parquet.12345678.part")),
        (STUDY, ("scores",)),
        (PHOTOS, (".lock",)),
        (PHOTOS, (".writable",)),
    ],
)
def test_what_a_killed_run_of_the_version_before_left_is_written_to(
    tmp_path: Path, kind: Kind, there: tuple[str, ...]
) -> None:
    for name in there:
        (tmp_path / name).touch()
    with claimed(tmp_path, kind):
        pass


@pytest.mark.parametrize("kind", [CLASSIFIER, CHECK, STUDY, PHOTOS])
def test_a_table_of_photos_alone_is_nobodys_leftover(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "photos.parquet").touch()
    with pytest.raises(InputError, match="holds other files"), claimed(tmp_path, kind):
        pass
    assert names(tmp_path) == ["photos.parquet"]


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ((), True),
        (("thing.json", "years of work"), True),
        (("part-0.bin",), True),
        ((".part-0.bin.12345678.part",), True),
        (("part-0.bin", "years of work"), False),
        (("years of work",), False),
    ],
)
def test_what_a_kill_left_is_written_to_and_what_others_made_is_not(
    tmp_path: Path, there: tuple[str, ...], taken: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in there:
        (out / name).touch()
    if taken:
        write(out, "new")
        assert word_of(out) == "new"
        assert (out / "years of work").exists() == ("years of work" in there)
    else:
        with pytest.raises(FieldmarkError, match="holds other files"):
            write(out, "new")
        assert names(out) == sorted(there)
