"""Classifiers in a zip file and on the Hugging Face hub."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fieldmark.utils import io
from fieldmark.utils.errors import ClassifierError, InputError


def from_zip(path: Path, limits: Mapping[str, int]) -> Path:
    """Unpack the files of a zip that `limits` names, with the bytes that each may have, into the cache.

    Raises ClassifierError if it is not a zip of a classifier, or a hostile one.
    """
    if not zipfile.is_zipfile(path):
        raise ClassifierError(
            f"{path} is not a folder or a zip: name one that `fieldmark train --out` wrote."
        )
    try:
        folder = io.unzip(path, limits)
    except InputError as error:
        raise ClassifierError(f"{error} Copy or download it again.") from error
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
    """Download a classifier's files, or find those that were downloaded before; returns their folder."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = [*limits, "README.md"]
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ClassifierError(
            f"hf://{name} could not be fetched ({_first_line(error)}): look at the name and the "
            "connection, or name a folder."
        ) from error


def upload(
    folder: str, name: str, private: bool, revision: str | None, message: str, token: str | None
) -> str:
    """Upload a folder; see `Classifier.push_to_hub`."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name!r} is not a name on the hub: write it as OWNER/NAME.")
    api = HfApi(token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=name, revision=revision, commit_message=message)
    except (httpx2.HTTPError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise InputError(
            f"hf://{name} could not be uploaded ({_first_line(error)}): look at the name, the "
            "connection and your token (`hf auth login`)."
        ) from error
    return f"{api.endpoint}/{name}" + (f"/tree/{revision}" if revision else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
