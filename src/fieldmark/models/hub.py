"""Networks of the Hugging Face hub, `hf-hub:OWNER/NAME`, and of a folder with its files, `local-dir:PATH`.

The configuration says which library the network is of: `open_clip_config.json` open_clip; `config.json` with
`architecture` timm, with `model_type` transformers. No code of a repository is run: configurations are data,
and weights are safetensors, or a state dict of tensors alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fieldmark.models import reachable
from fieldmark.models.architecture import HUB, HUB_FILES, Architecture
from fieldmark.utils import io
from fieldmark.utils.errors import InputError, WeightsUnavailable, first_line

FOLDER = "local-dir:"
CONFIGURATIONS = ("open_clip_config.json", "config.json")
_HUB = re.compile(r"(?:hf-hub:|hf://)([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
INDEX = ".index.json"  # behind the name of weights that are in several files
_PART = re.compile(r"[\w-][\w.-]*\.(?:safetensors|bin)")
_ANSWER_WITHIN = 10.0  # seconds

NOT_CACHED = "not in the cache of the hub, and HF_HUB_OFFLINE is set, so that nothing else is asked"

logger = logging.getLogger(__name__)

Describe = Callable[..., Architecture]
"""Describes a network by its name, configuration, licence and address."""


@dataclass(frozen=True)
class Repository:
    """Where the files of a network are.

    Attributes:
        name: of the network, as users write it.
        at: `OWNER/NAME`, or the path of a folder.
        revision: a branch, tag or commit of the hub; None: the newest.
        folder: whether it is a folder.
    """

    name: str
    at: str
    revision: str | None = None
    folder: bool = False

    @classmethod
    def of(cls, name: str) -> Repository | None:
        """Read the name of a network; None if it is not of the hub or of a folder.

        Raises:
            InputError: it begins like one, but is none.
        """
        if name.startswith(FOLDER):
            path = Path(name.removeprefix(FOLDER))
            if not path.is_dir():
                raise InputError(f"{path} is not a folder: name one with a network's configuration.")
            return cls(f"{FOLDER}{path.absolute().name}", str(path), folder=True)
        if not name.startswith(("hf-hub:", "hf://")):
            return None
        if not (found := _HUB.fullmatch(name)):
            raise InputError(f"{name!r} is not a network of the hub: write it as hf-hub:OWNER/NAME.")
        return cls(f"hf-hub:{found[1]}", found[1], found[2])

    @classmethod
    def named(cls, at: str) -> Repository:
        """Return the repository `OWNER/NAME` of the hub."""
        return cls(f"hf-hub:{at}", at)

    @property
    def url(self) -> str:
        """Return the address of its files, without their names."""
        return self.at if self.folder else f"{HUB}/{self.at}/resolve/{self.revision or 'main'}"

    def file(self, name: str, *, here: bool = False) -> Path | None:
        """Return a file, downloaded if need be; None if there is none, or HF_HUB_OFFLINE is set and it is
        not in the cache.

        Args:
            name: of the file.
            here: whether to look on this machine alone.

        Raises:
            WeightsUnavailable: the hub does not answer, or the download is interrupted or damaged.
        """
        if self.folder:
            path = Path(self.at) / name
            return path if path.is_file() else None
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.at, name, revision=self.revision)
        if isinstance(found, str) or here or reachable.is_offline():
            return Path(found) if isinstance(found, str) else None
        # Anything but None: the hub said that it has no such file. That holds for what was usable then.
        missing = found is not None and any(self.file(each, here=True) for each in CONFIGURATIONS)
        return None if missing else self._downloaded(name)

    def _downloaded(self, name: str) -> Path | None:
        import httpx2
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

        # The library would try for half a minute, and tell of each try.
        if not reachable.is_reachable(constants.ENDPOINT):
            raise WeightsUnavailable(
                f"{self.name} is not on this machine and {constants.ENDPOINT} does not answer: look at the "
                f"connection, or copy the files of the repository into a folder and name it as {FOLDER}PATH."
            )
        try:
            path = Path(hf_hub_download(self.at, name, revision=self.revision, etag_timeout=_ANSWER_WITHIN))
        except RemoteEntryNotFoundError:
            return None
        except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
            raise WeightsUnavailable(
                f"{self.name} could not be fetched from the hub ({first_line(error).rstrip('.')[:200]}): "
                "look at the name, the connection and, for a network with conditions, your token "
                "(`hf auth login`)."
            ) from error
        # The hub keeps large files under their SHA-256, and so does the cache.
        blob = path.resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name) and io.file_digest(blob) != blob.name:
            blob.unlink()
            raise WeightsUnavailable(f"{name} of {self.name} does not match its digest: download it again.")
        return path

    def licence(self) -> str:
        """Return the licence on the network's page, in its words; "" if it states none."""
        from huggingface_hub import ModelCard

        path = self.file("README.md")
        if not path and not self.folder and reachable.is_offline():
            return "not known, since its page is not in the cache"
        try:
            card = ModelCard(path.read_text(), ignore_metadata_errors=True) if path else None
        except (OSError, ValueError):
            card = None
        found = card.data.get("license_name") or card.data.get("license") if card else None
        return f"{found}, as its page says" if found else ""


def architecture(repository: Repository) -> Architecture:
    """Return the architecture of a network by its configuration.

    Raises:
        InputError: it has no configuration that a library here can build.
        WeightsUnavailable: the hub does not answer.
    """
    config, describe = _configuration(repository)
    file = HUB_FILES[0] if "model_cfg" in config else HUB_FILES[1]
    facts = describe(repository.name, config, licence=repository.licence(), url=f"{repository.url}/{file}")
    return replace(facts, licence=facts.licence or "not stated on its page")


def _configuration(repository: Repository) -> tuple[Mapping[str, Any], Describe]:
    """Read the configuration, and find what describes a network by it."""
    from fieldmark.models import open_clip, timm, transformers

    for name, key, describe in (
        (CONFIGURATIONS[0], "model_cfg", open_clip.described),
        (CONFIGURATIONS[1], "architecture", timm.described),
        (CONFIGURATIONS[1], "model_type", transformers.described),
    ):
        path = repository.file(name)
        config = io.read_json(path) if path else None
        if isinstance(config, dict) and key in config:
            if key == "model_type" and (pixels := repository.file("preprocessor_config.json")):
                return config, partial(transformers.described, pixels=io.read_json(pixels))
            if key == "model_type" and not repository.folder and reachable.is_offline():
                logger.warning(
                    f"Warning: preprocessor_config.json of {repository.name} is {NOT_CACHED}: its pixels are "
                    "taken to have mean and deviation 0.5."
                )
            return config, describe
    if not repository.folder and reachable.is_offline():
        raise WeightsUnavailable(f"{repository.name} is {NOT_CACHED}.")
    raise InputError(
        f"{repository.name} is no network of timm, open_clip or transformers: it has neither "
        "open_clip_config.json nor a config.json with `architecture` or `model_type`."
    )


def weights(facts: Architecture, *, here: bool = False) -> Path | None:
    """Return the file of a network's weights, downloaded if need be; safetensors are preferred.

    Of weights in several files it is their index, see `parts`, and they are beside it.

    Args:
        facts: of a network of the hub or a folder.
        here: whether to look on this machine alone.

    Raises:
        InputError: an index is damaged, or names a file that is not there.
        WeightsUnavailable: the hub does not answer.
    """
    place, _, _ = facts.url.rpartition("/")
    if place.startswith(f"{HUB}/"):
        owner, name, _, revision = place.removeprefix(f"{HUB}/").split("/", 3)
        repository = Repository(facts.name, f"{owner}/{name}", None if revision == "main" else revision)
    else:
        repository = Repository(facts.name, place, folder=True)
    clip = facts.library == "open_clip"
    for file in (each for each in HUB_FILES if each.startswith("open_clip") == clip):
        if path := repository.file(file, here=here):
            return path
        if not (index := repository.file(f"{file}{INDEX}", here=here)):
            continue
        missing = [each for each in parts(index) if not repository.file(each, here=here)]
        if not missing:
            return index
        if not here:
            raise InputError(f"{facts.name} has no file {missing[0]}, which its {index.name} names.")
    return None


def parts(index: Path) -> list[str]:
    """Return the names of the files beside an index that hold the weights.

    Raises:
        InputError: it is not an index in the hub's layout, with the name of a file for each tensor.
    """
    found = io.read_json(index)
    files = found.get("weight_map") if isinstance(found, dict) else None
    names = list(files.values()) if isinstance(files, dict) else []
    if not names or not all(isinstance(each, str) and _PART.fullmatch(each) for each in names):
        raise InputError(
            f"{index} is not an index of weights: `weight_map` must name the safetensors file, or .bin, of "
            "each tensor."
        )
    return sorted(set(names))
