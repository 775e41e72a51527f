"""`fieldmark serve`: serve a classifier over HTTP."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, Model, config_from, use_cache
from fieldmark.utils.errors import InputError

_KEY_LENGTH = 16  # shorter ones can be guessed

in_access = partial(typer.Option, rich_help_panel="Access")
in_limits = partial(typer.Option, rich_help_panel="Limits")


def serve(
    model: Model,
    host: Annotated[
        str, in_access(help="The address to listen on; 0.0.0.0 is every address of this computer.")
    ] = "127.0.0.1",
    port: Annotated[int, in_access(help="The port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        in_access(help="A text file with one API key a line: refuse requests without a key."),
    ] = None,
    queue: Annotated[
        int, in_limits(help="The number of photos in the queue; more are refused with 503.")
    ] = 128,
    batch: Annotated[int, in_limits(help="The batch size of the network.")] = 16,
    max_pixels: Annotated[int, in_limits(help="Refuse photos with more pixels.")] = 50_000_000,
    max_bytes: Annotated[int, in_limits(help="Refuse requests with more bytes.")] = 33_554_432,
    cache: Cache = None,
) -> None:
    """Serve a classifier over HTTP: a web page and an API."""
    options = locals()
    use_cache(cache)
    from fieldmark.serving.config import ServeConfig

    config = config_from(ServeConfig, options, keys=read_keys(api_key_file) if api_key_file else ())
    try:
        from fieldmark.serving.server import run
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: run `pip install 'fieldmark[serve]'`."
        ) from error
    from fieldmark.inference.classifier import Classifier

    run(Classifier.load(model), config)


def read_keys(path: Path) -> tuple[str, ...]:
    """Read API keys: one a line, without empty lines and lines that begin with #.

    Raises:
        InputError: the file cannot be read, has no key, or one that is too short.
    """
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
