"""Clips: frames in a stream, what is no clip, boxes in frames, one answer a clip, resuming."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

av = pytest.importorskip("av")

from fieldmark.data import videos  # noqa: E402
from fieldmark.data.locations import Locations  # noqa: E402
from fieldmark.data.readers.box_files import read_boxes  # noqa: E402
from fieldmark.data.videos import Clip, Sampling, is_video  # noqa: E402
from fieldmark.evaluation.location_prior import KernelPrior, LocationRule  # noqa: E402
from fieldmark.inference import clips, inputs  # noqa: E402
from fieldmark.inference.classifier import Classifier  # noqa: E402
from fieldmark.inference.classifier.location import LocationPrior  # noqa: E402
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason  # noqa: E402

SIZE = (64, 64)
CLASSES = ("Apis mellifera", "Bombus terrestris", "Cicindela campestris", "Danaus plexippus")


def clip_of(
    path: Path, frames: Sequence[np.ndarray[Any, Any]], rate: int = 10, codec: str = "mjpeg", **metadata: str
) -> Path:
    """Write frames, uint8 (H, W, 3), as a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def moving(count: int, side: int = 64) -> list[np.ndarray[Any, Any]]:
    """A grey scene; from the middle on a white square of 20 pixels moves through it."""
    found = []
    for number in range(count):
        pixels = np.full((side, side, 3), 60, np.uint8)
        if number >= count // 2:
            left = (number - count // 2) % (side - 20)
            pixels[10:30, left : left + 20] = 255
        found.append(pixels)
    return found


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "mjpeg"), (".mp4", "mpeg4"), (".mkv", "mpeg4")])
def test_frames_by_time_by_change_and_by_number(tmp_path: Path, suffix: str, codec: str) -> None:
    path = clip_of(tmp_path / f"a{suffix}", moving(40), codec=codec)
    taken = list(clip := Clip(path, Sampling(1.0)))
    assert clip.rate == 10
    assert [each.number for each in taken] == [0, 10, 20, 30]
    assert [each.second for each in taken] == [0, 1, 2, 3]
    assert taken[0].pixels.shape == (64, 64, 3)
    assert taken[0].pixels.max() < 80
    assert taken[2].pixels[20, 10].min() > 220
    numbers = [each.number for each in Clip(path, Sampling(0.5))]
    assert numbers == list(range(0, 40, 5))
    assert len([*Clip(path, Sampling(0.01))]) == 40
    assert [each.number for each in Clip(path, Sampling(0.5, changed=True))] == [0, 20, 25, 30, 35]
    assert [each.number for each in Clip(path, numbers={3, 31})] == [3, 31]


def test_a_change_of_the_light_alone_is_no_change(tmp_path: Path) -> None:
    frames = [np.full((64, 64, 3), 60 + 4 * number, np.uint8) for number in range(20)]
    path = clip_of(tmp_path / "a.avi", frames)
    assert [each.number for each in Clip(path, Sampling(0.5, changed=True))] == [0]


def test_frames_are_decoded_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a whole clip is in memory: a frame is decoded when it is asked for."""
    path = clip_of(tmp_path / "a.avi", moving(200))
    decoded = 0
    original = videos._decoded

    def counted(*arguments: Any) -> Any:
        nonlocal decoded
        for frame in original(*arguments):
            decoded += 1
            yield frame

    monkeypatch.setattr(videos, "_decoded", counted)
    frames = iter(Clip(path, Sampling(1.0)))
    next(frames)
    next(frames)
    assert decoded == 11


def broken(folder: Path) -> dict[str, RejectReason]:
    """Files that are no clips, and why."""
    whole = clip_of(folder / "whole.mp4", moving(20), codec="mpeg4").read_bytes()
    (folder / "whole.mp4").unlink()
    written: dict[str, tuple[bytes, RejectReason]] = {
        "cut.mp4": (whole[: len(whole) // 2], RejectReason.NOT_AN_IMAGE),
        "text.mp4": (b"hello " * 100, RejectReason.NOT_AN_IMAGE),
        "list.mp4": (b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n", RejectReason.NOT_AN_IMAGE),
        "concat.avi": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", RejectReason.NOT_AN_IMAGE),
        "empty.mov": (b"", RejectReason.EMPTY),
        "noise.mkv": (np.random.default_rng(0).bytes(5000), RejectReason.NOT_AN_IMAGE),
    }
    for name, (data, _) in written.items():
        (folder / name).write_bytes(data)
    return {name: why for name, (_, why) in written.items()}


def test_what_is_no_clip_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, why in broken(tmp_path).items():
        with pytest.raises(ImageRejected) as error:
            list(Clip(tmp_path / name))
        assert error.value.reason == why, name
    with pytest.raises(ImageRejected) as error:
        list(Clip(tmp_path / "gone.avi"))
    assert error.value.reason == RejectReason.MISSING
    sound = clip_of(tmp_path / "sound.avi", moving(60))
    monkeypatch.setattr(videos, "MAX_SECONDS", 3.0)
    with pytest.raises(ImageRejected) as error:
        list(Clip(sound))
    assert error.value.reason == RejectReason.TOO_LARGE
    monkeypatch.setattr(videos, "MAX_SECONDS", 3600.0)
    for name, codec in (("big.avi", "mjpeg"), ("big.mp4", "mpeg4")):
        large = clip_of(tmp_path / name, moving(3, 400), codec=codec)
        with monkeypatch.context() as patch:
            patch.setattr(videos, "MAX_PIXELS", 100_000)
            with pytest.raises(ImageRejected) as error:
                list(Clip(large))
        assert error.value.reason == RejectReason.TOO_LARGE
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageRejected, match=r"fieldmark\[video\]"):
        list(Clip(sound))


def test_a_clip_that_lies_about_its_length_is_read(tmp_path: Path) -> None:
    """An AVI header with 0 or a thousand million frames, of 60,000 pixels: what counts is what is there."""
    data = bytearray(clip_of(tmp_path / "a.avi", moving(30)).read_bytes())
    for count in (0, 1_000_000_000):
        data[48:52] = struct.pack("<I", count)  # of the main header
        at = data.index(b"strh") + 8 + 32
        data[at : at + 4] = struct.pack("<I", count)  # of the stream
        at = data.index(b"strf") + 8  # BITMAPINFOHEADER: size, width, height
        data[at + 4 : at + 12] = struct.pack("<ii", 60_000, 60_000)
        (tmp_path / "b.avi").write_bytes(data)
        assert [each.number for each in Clip(tmp_path / "b.avi")] == [0, 10, 20]


def test_a_clip_that_was_cut_or_damaged_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    data = clip_of(tmp_path / "a.avi", moving(60)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    assert 1 <= len([*Clip(tmp_path / "cut.avi")]) < 6
    torn = bytearray(data)
    torn[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    (tmp_path / "torn.avi").write_bytes(torn)
    assert 3 <= len([*Clip(tmp_path / "torn.avi")]) <= 6


def test_real_clips_of_camera_traps_are_read(shared: Path) -> None:
    """AVI (MPEG-4), MP4 (H.264) and ASF (MS-MPEG4): a frame a second, up to the end."""
    found = sorted((shared / "camera-traps" / "zamba" / "videos").iterdir())
    assert {path.suffix.lower() for path in found} == {".avi", ".mp4", ".asf"}
    for path in found:
        frames = list(Clip(path))
        assert 5 <= frames[-1].second <= 61
        assert len(frames) >= frames[-1].second
        assert all(before.second < after.second for before, after in pairwise(frames))


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[int, int], bytes]) -> Path:
    """Three clips: an Apis, a Danaus behind an empty scene, one without an end; and a photo."""
    import io

    folder = tmp_path_factory.mktemp("traps") / "traps"
    animals = [np.asarray(Image.open(io.BytesIO(draw(label, 3)))) for label in range(4)]
    clip_of(
        folder / "site1" / "apis.mp4", [animals[0]] * 30, codec="mpeg4", creation_time="2024-06-30T05:00:00Z"
    )
    clip_of(folder / "site2" / "danaus.avi", [animals[1]] * 10 + [animals[3]] * 30)
    (folder / "site2" / "text.mp4").write_text("no clip")
    (folder / "photo.jpg").write_bytes(draw(0, 3))
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_answer_a_clip_with_its_times(run, tmp_path: Path, traps: Path, model: Path) -> None:
    out = tmp_path / "answers.jsonl"
    done = run("predict", model, traps, "--out", out)
    assert done.code == 2
    assert "1 of 4 photos could not be used" in done.err
    photo, apis, danaus, text = rows_of(out)
    assert text["rejected"] == "not-an-image"
    assert "clip" not in photo
    assert apis["labels"][0]["name"] == "Apis mellifera" == photo["labels"][0]["name"]
    assert apis["clip"]["seconds"] == [0, 1, 2]
    assert danaus["labels"][0]["name"] == "Danaus plexippus"
    assert danaus["clip"]["seconds"] == [1, 2, 3]
    assert [each["second"] for each in danaus["clip"]["frames"]] == [0, 1, 2, 3]
    assert danaus["clip"]["frames"][0]["labels"][0]["name"] == "Bombus terrestris"
    # The answer is that of the rule for events on the frames.
    classifier = Classifier.load(model)
    from fieldmark.inference.events import event_records, rule_of

    items = inputs.find_all([traps / "site2" / "danaus.avi"], ())
    [whole] = clips.predict(classifier, items)
    assert whole.clip is not None
    frames = [inference_record(each, len(classifier.taxa)) for each in whole.clip.frames]
    [event] = event_records([{**each, "sequence": "a"} for each in frames], classifier)
    assert event["labels"] == danaus["labels"]
    assert rule_of(classifier).way == "mean"


def inference_record(result: Any, among: int) -> Any:
    from fieldmark.inference.record import to_record

    return to_record(result, among, wide=True)


def test_rows_of_frames_and_tables(run, tmp_path: Path, traps: Path, model: Path) -> None:
    for name in ("clips.csv", "clips.parquet"):
        run("predict", model, traps, "--out", tmp_path / name, "--top", "1")
    table = pl.read_csv(tmp_path / "clips.csv")
    seconds = dict(table.drop_nulls("name").select("file", "seconds").iter_rows())
    assert {Path(name).name: each for name, each in seconds.items()} == {
        "photo.jpg": None, "apis.mp4": "0; 1; 2", "danaus.avi": "1; 2; 3",
    }  # fmt: skip
    rows = pl.read_parquet(tmp_path / "clips.parquet")  # a row a label, and one for "not sure"
    assert set(rows["seconds"]) == set(table["seconds"])
    run("predict", model, traps, "--out", tmp_path / "frames.csv", "--frames", "--every", "0.5", "--top", "1")
    frames = pl.read_csv(tmp_path / "frames.csv").filter(pl.col("file").str.ends_with("danaus.avi"))
    assert frames["seconds"].cast(pl.Float64).unique().sort().to_list() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    done = run("predict", model, traps / "site1", "--every", "0.1")
    assert "seen at 0, 0.1, 0.2" in done.out
    for more in (("--frames",), ("--frames", "--out", tmp_path / "x.csv", "--events")):
        assert run("predict", model, traps, *more).code == 2
    # A table of photos alone is as before.
    run("predict", model, traps / "photo.jpg", "--out", tmp_path / "photo.csv")
    assert "seconds" not in pl.read_csv(tmp_path / "photo.csv").columns


def test_clips_in_events_and_other_formats(run, tmp_path: Path, traps: Path, model: Path) -> None:
    run("predict", model, traps, "--events", "--out", tmp_path / "events.jsonl")
    events = rows_of(tmp_path / "events.jsonl")
    assert [len(each["event"]["photos"]) for each in events] == [1, 1, 1, 1]
    assert {each["event"]["start"] for each in events} == {"", "2024-06-30T05:00:00.000000Z"}
    for suffix in (".camtrap.csv", ".speciesnet.json", ".dwc.csv", ".megadetector.json"):
        done = run("predict", model, traps, "--out", tmp_path / f"a{suffix}")
        assert "1 of 4 photos could not be used" in done.err
    document = json.loads((tmp_path / "a.megadetector.json").read_text())
    of = {Path(each["file"]).name: each for each in document["images"]}
    assert of["danaus.avi"]["frame_rate"] == 10
    assert of["danaus.avi"]["frames_processed"] == [0, 10, 20, 30]
    assert sorted(each["frame_number"] for each in of["danaus.avi"]["detections"]) == [0, 10, 20, 30]
    assert "frame_rate" not in of["photo.jpg"]
    read = read_boxes(tmp_path / "a.megadetector.json").of_file
    [seen] = [each for name, each in read.items() if name.endswith("danaus.avi")]
    assert {(each.frame, each.second) for each in seen} == {(0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0)}


def boxes_file(path: Path, **clips: Any) -> Path:
    names = {"1": "animal", "2": "person", "3": "vehicle"}
    images = [{"file": f"site/{name}.avi", "frame_rate": 10.0, **about} for name, about in clips.items()]
    document = {"info": {"format_version": "1.5"}, "detection_categories": names, "images": images}
    path.write_text(json.dumps(document))
    return path


def test_boxes_in_frames_are_cut_out_and_classified(
    run, tmp_path: Path, model: Path, draw: Callable[[int, int], bytes]
) -> None:
    """Two animals in a corner each of a scene: the answers are those of the corners, not of the scene."""
    import io

    scene = np.full((160, 160, 3), 127, np.uint8)
    for label, corner in ((0, (0, 0)), (3, (96, 96))):
        animal = np.asarray(Image.open(io.BytesIO(draw(label, 3))))
        scene[corner[0] : corner[0] + 64, corner[1] : corner[1] + 64] = animal
    for name in ("two", "person", "none"):
        clip_of(tmp_path / "site" / f"{name}.avi", [scene] * 20)
    first, last = [0.03, 0.03, 0.34, 0.34], [0.63, 0.63, 0.34, 0.34]
    box = {"category": "1", "conf": 0.9}
    two = [box | {"bbox": first, "frame_number": n} for n in (3, 7, 12)]
    two += [box | {"bbox": last, "frame_number": 12}, box | {"bbox": last, "frame_number": 900}]
    person = [{"category": "2", "conf": 0.8, "bbox": first, "frame_number": 5}]
    file = boxes_file(
        tmp_path / "boxes.json",
        two={"detections": two},
        person={"detections": person},
        none={"detections": []},
    )
    out = tmp_path / "a.jsonl"
    done = run("predict", model, tmp_path / "site", "--boxes", file, "--out", out)
    assert done.code == 0, done.err
    rows = {Path(each["file_name"]).stem: each for each in rows_of(out)}
    assert rows["two"]["labels"][0]["name"] == "Apis mellifera"
    assert rows["two"]["clip"]["seconds"] == [0.3, 0.7, 1.2]
    answers = [(each["frame"], each["labels"][0]["name"]) for each in rows["two"]["clip"]["frames"]]
    assert answers == [(3, CLASSES[0]), (7, CLASSES[0]), (12, CLASSES[0]), (12, CLASSES[3])]
    assert rows["two"]["clip"]["count"] in (1, 2)
    assert rows["person"]["kind"] == "human"
    assert rows["person"]["clip"]["seconds"] == [0.5]
    assert rows["none"]["kind"] == "blank"
    file.write_text(file.read_text().replace("10.0", '"ten"'))
    with pytest.raises(InputError, match="frame_rate"):
        read_boxes(file)


COMMAND = """
import os, signal, sys
from fieldmark.inference import clips
original, left = clips._of_clip, 2
def counted(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
clips._of_clip = counted
from fieldmark.cli import main
main()
"""


def test_a_killed_run_goes_on(run, tmp_path: Path, traps: Path, model: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run("predict", model, traps, "--out", whole)
    words = ["predict", str(model), str(traps), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", COMMAND, *words], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    again = run(*words)
    assert "Going on: 3 photos" in again.err
    assert out.read_bytes() == whole.read_bytes()
    other = run(*words, "--every", "0.5")  # other frames: begun anew
    assert "of other options" in other.err
    assert out.read_bytes() != whole.read_bytes()


def test_names_of_clips_and_a_folder_of_clips_and_photos(tmp_path: Path, traps: Path) -> None:
    assert is_video("a/B.AVI")
    assert not is_video("a/b.jpg")
    found = inputs.find_all([traps], (), Sampling(2.0))
    assert [(Path(each.name).name, each.sampling) for each in found] == [
        ("photo.jpg", None),
        ("apis.mp4", Sampling(2.0)),
        ("danaus.avi", Sampling(2.0)),
        ("text.mp4", Sampling(2.0)),
    ]
    shutil.copy(traps / "site1" / "apis.mp4", tmp_path)
    [alone] = inputs.find_photos([tmp_path])
    assert alone.sampling is None


def test_the_prior_counts_once_for_each_frame_as_for_a_photo(classifier: Classifier, tmp_path: Path) -> None:
    """A classifier that is `at` one place stays there; the prior of a clip's own place is computed once."""
    here, there = (47.0, 8.0), (52.0, 13.5)
    rows = np.repeat([[*here, 100], [*there, 100]], 50, axis=0)
    kernel = KernelPrior(Locations.of(rows), np.repeat([0, 1], 50), len(classifier.taxa))
    soft = replace(classifier, temperature=30.0, thresholds={}, ood=None)
    placed = replace(soft, prior=LocationPrior(kernel, LocationRule(1.0)))
    [item] = inputs.find_all([clip_of(tmp_path / "a.avi", moving(20))], [], Sampling())
    taken = replace(item, latitude=here[0], longitude=here[1], taken="2023-04-10T12:00:00Z")

    def scores(by: Classifier, clip: Any) -> Any:
        [found] = clips.predict(by, [clip])
        return found.scores

    np.testing.assert_allclose(scores(placed, taken), scores(placed.at(*here, 100), item), atol=1e-6)
    away = placed.at(*there, 100)
    np.testing.assert_allclose(scores(away, taken), scores(away, item), atol=1e-6)
    assert not np.allclose(scores(placed, taken), scores(placed, item), atol=1e-3)
