"""Detectors of animals, people and vehicles: MegaDetector through its own package, or any as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from fieldmark.models.detectors import megadetector, onnx
from fieldmark.models.detectors.base import Detector, Facts

DEFAULT = "MDV5A"
"""What MegaDetector's package calls its version 5a."""

__all__ = ["DEFAULT", "Detector", "Facts", "load"]


def load(
    model: str = DEFAULT, *, classes: str | None = None, engine: str | None = None, threshold: float = 0.1
) -> Detector:
    """Load a detector.

    Args:
        model: an ONNX file, a file of MegaDetector's weights (.pt), or a name that its package knows.
        classes: what the classes of an ONNX file are, see `onnx.categories`; None: by their names.
        engine: what runs it; None: ONNX Runtime, or as MegaDetector's package chooses.
        threshold: boxes with less confidence are left out.

    Raises:
        InputError: there is no such file or name, it cannot be run, or the engine does not run it.
    """
    if model.lower().endswith(".onnx"):
        return onnx.OnnxDetector(Path(model), classes=classes, engine=engine, threshold=threshold)
    return megadetector.MegaDetector(model, classes=classes, engine=engine, threshold=threshold)
