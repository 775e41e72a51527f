"""Serve a classifier over HTTP: a web page and an API.

Access:
    host: The address to listen on; 0.0.0.0 is every address of this computer.
    port: The port; 0 takes a free one.
    allow_origin: A site whose pages may use the API from a browser, such as https://app.example; repeat
        it for several.
    api_key_file: A text file with one API key a line: refuse requests without one of them.
Species:
    prior: A list of species, of a country or a park, as for predict: other labels count less for all photos,
        and none becomes impossible. [default: that of the classifier, if it has one]
    checklist: A Darwin Core Archive or ColDP that names of the list are looked up in: GBIF's backbone, say.
Limits:
    queue: The number of photos in the queue; more are refused with status 503.
    batch: The batch size of the network.
    max_pixels: Refuse photos with more pixels.
    max_bytes: Refuse requests with more bytes.
Computing:
    engine: What runs the network; auto measures which is fastest. [default: onnxruntime, or torch where
        the network cannot be converted]
"""

from __future__ import annotations

from pathlib import Path

from fieldmark.cli import options as opt
from fieldmark.utils.choices import Compute, EngineName
from fieldmark.utils.errors import InputError

_KEY_LENGTH = 16  # shorter ones can be guessed


def serve(
    model: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_origin: tuple[str, ...] = (),
    api_key_file: Path | None = None,
    prior: Path | None = None,
    checklist: Path | None = None,
    queue: int = 128,
    batch: int = 16,
    max_pixels: int = 50_000_000,
    max_bytes: int = 33_554_432,
    engine: EngineName | None = None,
    compute: Compute | None = None,
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark.serving.config import ServeConfig

    keys = read_keys(api_key_file) if api_key_file else ()
    config = opt.config_from(ServeConfig, options, keys=keys, origins=allow_origin)
    try:
        from fieldmark.serving.server import run
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: run `pip install 'fieldmark[serve]'`.") from error
    from fieldmark.inference.classifier import Classifier

    classifier = Classifier.load(model, engine=engine, compute=compute)
    run(opt.of_lists(classifier, None, prior, checklist), config)


def read_keys(path: Path) -> tuple[str, ...]:
    """Read API keys: one a line, without empty lines and lines that begin with #."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: give a text file with one key a line.") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys or min(map(len, keys)) < _KEY_LENGTH:
        raise InputError(
            f"{path} must hold at least one key, each of {_KEY_LENGTH} characters or more, one a line."
        )
    return keys
