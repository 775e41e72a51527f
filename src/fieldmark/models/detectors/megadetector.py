"""MegaDetector, run by its own package (`pip install megadetector`, written for version 10.0).

The package turns nothing: it is given photos in EXIF orientation, as its own loader makes them. Its version 5
is loaded from a pickle, which can run any code: only files of people who are trusted should be named.
"""

from __future__ import annotations

import contextlib
import io as text_io
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from fieldmark.data.detections import NUMBERS, Detection
from fieldmark.data.storage.places import Box
from fieldmark.models.detectors.base import BOX_DIGITS, CONFIDENCE_DIGITS, Facts
from fieldmark.utils import io
from fieldmark.utils.errors import ImageRejected, InputError, RejectReason, first_line
from fieldmark.utils.typing import ByteArray

logger = logging.getLogger(__name__)

_FILES = (".pt", ".pth", ".pb")
_CATEGORIES = {number: category for category, number in NUMBERS.items()}


class MegaDetector:
    """A version of MegaDetector, from a file of weights or downloaded by its name.

    Raises:
        InputError: its package is not installed, or there is no such file or name, or it cannot be loaded.
    """

    def __init__(
        self, model: str, *, classes: str | None = None, engine: str | None = None, threshold: float = 0.1
    ) -> None:
        if classes is not None:
            raise InputError("MegaDetector has the classes animal, person and vehicle: leave --classes out.")
        if engine in ("onnxruntime", "openvino"):
            raise InputError(f"The engine {engine} runs ONNX files: name one, or leave --engine out.")
        package = _package()
        path = _weights(package, model)
        try:
            with _quiet():
                version = str(package.get_detector_version_from_model_file(str(path)) or "unknown")
                about = package.get_detector_metadata_from_version_string(version)
                self._detector = package.load_detector(str(path), force_cpu=engine == "torch")
        except Exception as error:  # of PyTorch and of the package, for a file from anywhere
            raise InputError(
                f"{path} cannot be loaded by MegaDetector's package ({first_line(error)[:200]}): name a file "
                "of its weights, such as md_v5a.0.0.pt."
            ) from error
        self._threshold = threshold
        usual = about.get("typical_detection_threshold") if isinstance(about, Mapping) else None
        self.facts = Facts(path.name, io.file_digest(path), version, usual, _licence())

    def prepare(self, pixels: ByteArray) -> Any:
        """Resize a photo, uint8 (H, W, 3), as the package does."""
        return self._detector.preprocess_image(pixels)

    def detect(self, prepared: Sequence[Any]) -> list[tuple[Detection, ...] | ImageRejected]:
        """Return the boxes in each photo; the package groups photos of one shape."""
        with _quiet():
            found = self._detector.generate_detections_one_batch(
                list(prepared), detection_threshold=self._threshold
            )
        return [_detections(each) for each in found]


def _detections(result: Mapping[str, Any]) -> tuple[Detection, ...] | ImageRejected:
    if failure := result.get("failure"):
        return ImageRejected(RejectReason.CORRUPT, str(failure))
    found = []
    for each in result["detections"]:
        box = [round(float(side), BOX_DIGITS) for side in each["bbox"]]
        if min(box[2:]) > 0:
            confidence = min(round(float(each["conf"]), CONFIDENCE_DIGITS), 1.0)
            found.append(Detection(Box(*box), _CATEGORIES[str(each["category"])], confidence))
    return tuple(sorted(found, key=lambda each: -each.confidence))


def _package() -> Any:
    try:
        return import_module("megadetector.detection.run_detector")
    except ImportError as error:
        raise InputError(
            "MegaDetector's package is not installed: run pip install megadetector, or name an ONNX file "
            "with --model (docs/camera-traps.md)."
        ) from error


def _weights(package: Any, model: str) -> Path:
    if model.lower().endswith(_FILES):
        path = Path(model)
        if not path.is_file():
            raise InputError(
                f"{model} is not a file: name MegaDetector's weights, or a version such as MDV5A."
            )
    else:
        names = (*package.model_string_to_model_version, *package.known_models)
        if model.lower() not in names:
            some = "MDV5A, MDV5B, MDV1000-redwood"
            raise InputError(f"There is no detector {model!r}: name an ONNX file, a .pt file, or {some}.")
        try:
            with _quiet():
                found = package.try_download_known_detector(model)
        except Exception as error:  # of whatever the package downloads with
            raise _not_downloaded(model, first_line(error)) from error
        if not found or not Path(found).is_file():
            raise _not_downloaded(model, "the file is damaged or missing")
        path = Path(found)
    if path.suffix.lower() == ".pb":
        raise InputError(f"{path.name} needs TensorFlow: name version 5 or a later one.")
    return path


def _not_downloaded(model: str, why: str) -> InputError:
    return InputError(
        f"{model} could not be downloaded ({why[:200]}): name a file of its weights with --model, such as "
        "md_v5a.0.0.pt."
    )


def _licence() -> str:
    """Say under which licences the package and the code that runs its networks are."""
    parts = []
    for name in ("megadetector", "ultralytics-yolov5"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            about = metadata.metadata(name)
            licence = about.get("License-Expression") or about.get("License") or "not stated"
            parts.append(f"{name} {about['Version']}: {first_line(ValueError(licence))[:60]}")
    parts.append("its weights: see docs/camera-traps.md")
    return f"Licences: {'; '.join(parts)}."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the package prints off standard output; it is logged for those who look for it."""
    said = text_io.StringIO()
    with contextlib.redirect_stdout(said):
        yield
    if said.getvalue():
        logger.debug(said.getvalue())
