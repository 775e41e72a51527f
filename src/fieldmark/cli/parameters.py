"""The parameters of a command: types from its signature, texts from the docstring of its module.

What the docstring lists under `Arguments` is an argument, all else an option of its name. `Annotated` gives
what the type alone does not say: a range (`click.IntRange`), or another name (`"--list"`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import click

from fieldmark.cli import options

_TYPES: dict[Any, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.INT,
    float: options.Number(),
    Path: options.NonEmptyPath(path_type=Path),
}


class Option(click.Option):
    """An option that `--help` lists in a group."""

    group = "Options"


def summary(doc: str) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join(doc.partition("\n\n")[0].split())


def parameters(command: Callable[..., None], doc: str) -> Iterator[click.Parameter]:
    """Yield the parameters of a command whose module has the docstring `doc`.

    A switch that is off by default has no `--no-` form.
    """
    texts = _sections(options.__doc__ or "") | _sections(doc)
    hints = get_type_hints(command, include_extras=True)
    for name, each in inspect.signature(command).parameters.items():
        group, text = texts[name]
        annotated = get_origin(hints[name]) is Annotated
        hint, *extras = get_args(hints[name]) if annotated else [hints[name]]
        kind = next((extra for extra in extras if isinstance(extra, click.ParamType)), None) or _type(hint)
        several = get_origin(hint) is tuple
        given: dict[str, Any] = {"type": kind, "help": text, "required": each.default is each.empty}
        given |= {} if given["required"] else {"default": each.default}
        if group == "Arguments":
            yield click.Argument([name], nargs=-1 if several else 1, **given)
            continue
        names = [extra for extra in extras if isinstance(extra, str)] or [_option(name, each.default)]
        given |= {"is_flag": True} if kind is None else {"multiple": several}
        option = Option([*names, name], **given)
        option.group = group
        yield option


def _type(hint: Any) -> click.ParamType[Any] | None:
    """Return what reads the values of a parameter with this type; None for a switch."""
    if hint is bool:
        return None
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    if hint in _TYPES:
        return _TYPES[hint]
    [inner] = (each for each in get_args(hint) if each not in (type(None), ...))  # X | None, tuple[X, ...]
    return _type(inner)


def _option(name: str, default: Any) -> str:
    """Return the name of an option on the command line."""
    word = name.replace("_", "-")
    return f"--{word}/--no-{word}" if default is True else f"--{word}"


def _sections(text: str) -> dict[str, tuple[str, str]]:
    """Read the sections of a docstring: the group and text of each parameter."""
    found = {}
    for group, section in re.findall(r"^(\S.*):\n((?: {4}.*\n)+)", text, re.M):
        for name, about in re.findall(r"^ {4}(\w+): ((?:.|\n {5})+)", section, re.M):
            found[name] = (group, " ".join(about.split()))
    return found
