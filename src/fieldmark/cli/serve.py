"""`fieldmark serve`: options -> config -> one call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli.options import Cache, use_cache
from fieldmark.utils.errors import InputError

_KEY_LENGTH = 16  # shorter ones can be guessed


def serve(
    model: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is every address of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with a key a line: only who names one is let in.")
    ] = None,
    queue: Annotated[
        int, typer.Option(help="How many photos may be under way; more are told to come back.")
    ] = 128,
    batch: Annotated[int, typer.Option(help="How many photos the network is given at once.")] = 16,
    max_pixels: Annotated[
        int, typer.Option(help="A photo with more pixels is refused.")
    ] = 50_000_000,
    max_bytes: Annotated[int, typer.Option(help="A request with more bytes is refused.")] = 32
    * 1024
    * 1024,
    cache: Cache = None,
) -> None:
    """Serve a classifier: a web page for people, an HTTP API for programs."""
    use_cache(cache)
    from fieldmark.serving.config import ServeConfig

    config = ServeConfig(
        host=host,
        port=port,
        keys=read_keys(api_key_file) if api_key_file else (),
        queue=queue,
        batch=batch,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
    )
    try:
        from fieldmark.serving.server import run
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: `pip install 'fieldmark[serve]'` brings what is needed."
        ) from error
    from fieldmark.inference.classifier import Classifier

    run(Classifier.load(model), config)


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file: one a line, empty lines and lines that begin with # aside.

    Raises:
        InputError: it cannot be read, holds none, or one that is too short.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: name a text file with a key a line.") from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys or min(map(len, keys)) < _KEY_LENGTH:
        raise InputError(
            f"{path} must hold at least one key, each of {_KEY_LENGTH} characters or more, one a line."
        )
    return keys
