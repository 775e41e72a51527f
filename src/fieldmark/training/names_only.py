"""A classifier from names alone: its last layer holds the embeddings of the names.

Networks with an image and a text tower embed photos and texts so that those which belong together are close
(Radford et al., "Learning transferable visual models from natural language supervision", 2021). A class is
the mean embedding of sentences with its names; of networks trained on taxonomies (BioCLIP: Stevens et al.,
2024) the whole lineage is one of them. No photo has measured or calibrated such a classifier; `extend` does,
with the first labelled photos (`strategies.names`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fieldmark import models
from fieldmark.data.readers import tabular
from fieldmark.data.taxonomy import RANKS, Taxon, Taxonomy, name_key
from fieldmark.features.extractor import extractor_of
from fieldmark.heads.base import LinearHead
from fieldmark.inference.classifier import Classifier
from fieldmark.inference.classifier.folder import KIND, save
from fieldmark.models import Backbone, open_clip
from fieldmark.models import weights as weights_
from fieldmark.training.config import TrainConfig
from fieldmark.utils import io, publishing
from fieldmark.utils.errors import InputError
from fieldmark.utils.logging import progress_bar
from fieldmark.utils.typing import FloatArray
from fieldmark.utils.versions import versions

logger = logging.getLogger(__name__)

SAID = (
    "Made from names alone: no photo has measured it, and its confidences are not calibrated. Add labelled "
    "photos with `fieldmark grow`."
)
_USED = ("backbone", "weights", "weights_dir", "seed", "size", "crop", "tier")
_COLUMNS = ("name", "common_name", "supercategory", *RANKS)


def train_from_names(
    names: str | Path | Sequence[str | Taxon],
    config: TrainConfig,
    *,
    out: str | Path | None = None,
    command: str = "",
) -> Classifier:
    """Make a classifier from a list of species, without photos.

    Args:
        names: names or taxa; or a file: text with a line a species, `scientific name, common name`, or a
            CSV or TSV table with the column `name` and perhaps `common_name` and ranks.
        config: `backbone` must be a network of open_clip with a text tower; only the network, its weights
            and its crop are of use without photos.
        out: the folder to write the classifier to; None: it stays in memory.
        command: what was typed, for the record.

    Returns:
        A classifier whose confidences are not calibrated.

    Raises:
        InputError: fewer than two names, one that occurs twice, a network without a text tower, or a choice
            that has no effect without photos.
        WeightsUnavailable: the weights are not here and cannot be fetched.
    """
    _check(config)
    taxonomy = _taxonomy(names)
    facts = models.architecture(config.named().network)
    if facts.library != "open_clip":
        raise InputError(
            f"{facts.name} has no text tower: name a network of open_clip, such as "
            "hf-hub:imageomics/bioclip-2, with --backbone."
        )
    path = weights_.find(facts, config.weights, config.weights_dir)
    if path is None:
        raise InputError("Names alone need pretrained weights: leave --weights random out.")
    read = weights_.read(path)
    backbone = models.load(facts, weights=read, size=config.size)
    logger.info(f"Network: {backbone.summary}")
    head = _head(backbone, read, list(taxonomy))
    crop = extractor_of(config).crop_for(backbone)
    made = {
        "name": f"{len(taxonomy):,} names",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "backbone": facts.name,
        "weights": backbone.weights_info.line,
        "weights_complete": backbone.weights_info.complete,
        "licence": facts.licence,
        "transfer": "last",
        "names_only": True,
        "test": SAID,
        "versions": versions(),
        "command": command,
    }
    classifier = Classifier.alone(backbone, crop, head, taxonomy, provenance=made)
    if out is not None:
        with publishing.claimed(Path(out), KIND):
            save(classifier, Path(out))
    return classifier


def _check(config: TrainConfig) -> None:
    """Refuse what has no effect without photos."""
    usual = TrainConfig()
    for each in fields(config):
        if each.name not in _USED and getattr(config, each.name) != getattr(usual, each.name):
            raise InputError(f"{each.name} has no effect without photos: leave it out with names alone.")


def _taxonomy(names: str | Path | Sequence[str | Taxon]) -> Taxonomy:
    taxa = _read(Path(names)) if isinstance(names, str | Path) else [_taxon(each) for each in names]
    keys = [name_key(taxon.name) for taxon in taxa]
    if twice := next((taxon.name for at, taxon in enumerate(taxa) if keys[at] in keys[:at]), None):
        raise InputError(f"{twice!r} is named twice: name each species once.")
    if len(taxa) < 2:
        raise InputError("A classifier needs at least two names: one species a line.")
    return Taxonomy(taxa)


def _read(path: Path) -> list[Taxon]:
    if not path.is_file():
        raise InputError(f"{path} is not a file: name one with a species a line.")
    if path.suffix.lower() not in (".csv", ".tsv", ".xlsx"):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a text file in UTF-8: save it as one.") from error
        return [_taxon(line) for line in lines if line.strip() and not line.startswith("#")]
    rows = tabular.read_text_table(path)
    tabular.require_columns(rows, ("name",), path, "a table with a species a row")
    found = []
    for row in rows.iter_rows(named=True):
        values = {column: row[column] for column in _COLUMNS if row.get(column)}
        if "name" in values:
            found.append(tabular.taxon(values["name"], values))
    return found


def _taxon(line: str | Taxon) -> Taxon:
    """Read `scientific name, common name`."""
    if isinstance(line, Taxon):
        return line
    name, _, common = (" ".join(part.split()) for part in line.partition(","))
    values = {"name": name, "common_name": common} if common else {"name": name}
    return tabular.taxon(name, values)


def sentences(taxon: Taxon) -> list[str]:
    """Return the sentences by which a taxon is embedded."""
    named = [taxon.name]
    lineage = " ".join(taxon.lineage.get(rank, "") for rank in RANKS[:-1]).split()
    if len(lineage) > 1:
        named.append(" ".join([*lineage, taxon.name.split()[-1]]))
    if taxon.common_name:
        named += [taxon.common_name, f"{named[-1]} with common name {taxon.common_name}"]
    return [f"a photo of {each}." for each in named]


def _head(backbone: Backbone, weights: weights_.Weights, taxa: Sequence[Taxon]) -> LinearHead:
    """Return the layer of the names' embeddings, times the network's scale; cached by weights and names."""
    texts = [sentences(taxon) for taxon in taxa]
    key = io.digest([1, backbone.weights_info.digest, backbone.architecture.config, texts])
    cached = io.cache_dir() / "texts" / f"{key[:32]}.safetensors"
    if io.is_sealed(cached):
        return _from_file(cached)
    tower = open_clip.TextTower(backbone.architecture, weights.state)
    mean_CD = np.zeros((len(taxa), backbone.architecture.feature_dim), np.float32)
    with progress_bar("embedding names", len(taxa), unit="names") as stage:
        for number, each in enumerate(texts):
            mean_CD[number] = tower.embed(each).mean(0).numpy()
            stage.advance()
    weight_DC: FloatArray = tower.scale * (mean_CD / np.linalg.norm(mean_CD, axis=1, keepdims=True)).T
    head = LinearHead(np.ascontiguousarray(weight_DC, np.float32), np.zeros(len(taxa), np.float32))
    _to_file(head, cached)
    return head


def _from_file(path: Path) -> LinearHead:
    from safetensors.numpy import load_file

    return LinearHead.from_tensors(load_file(path))


def _to_file(head: LinearHead, path: Path) -> None:
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    io.write_bytes(path, save(head.tensors()), seal=True)
