"""Classifiers that are not a folder on this machine yet: a zip, or a name on the hub."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError, InputError


def from_zip(path: Path, limits: Mapping[str, int]) -> Path:
    """The folder into which a zip was unpacked; `limits`: the files that are taken, and their bytes.

    Raises:
        ClassifierError: it is no zip of a classifier, or a hostile one.
    """
    if not zipfile.is_zipfile(path):
        raise ClassifierError(
            f"{path} is not a folder or a zip: name one that `fieldmark train --out` wrote."
        )
    try:
        folder = io.unzip(path, limits)
    except InputError as error:
        raise ClassifierError(f"{error} Take it anew from where it was made.") from error
    if not (folder / "classifier.json").exists():
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith((".pkl", ".pickle"))]
        what = f"a pickle ({pickles[0]}), which can run code," if pickles else "other files"
        raise ClassifierError(
            f"{path} holds {what} and no classifier.json: name a zip of a folder that "
            "`fieldmark train --out` wrote."
        )
    return folder


def from_hub(name: str, revision: str | None, limits: Mapping[str, int]) -> Path:
    """The folder of the files that the hub has, or had when they were fetched before.

    Raises:
        ClassifierError: they cannot be fetched.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[*limits, "README.md"]
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClassifierError(
            f"hf://{name} could not be fetched ({why.rstrip('.')}): look at the name and the "
            "connection, or name a folder."
        ) from error
