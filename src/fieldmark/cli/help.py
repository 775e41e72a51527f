"""The texts of `--help`: from the docstring of each command's module.

It has the sections that `--help` lists: `Arguments`, `Options`, and further groups of options. Options that
several commands share are described in the docstring of `options`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from copy import copy
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from fieldmark.cli import options
from fieldmark.utils import collector

_GROUPED_FROM = 8
"""A command with fewer options lists them in one group."""


def describe(command: Callable[..., None], doc: str) -> str:
    """Give the parameters of a command their texts and groups from `doc`, and return its summary.

    A switch that is off by default has no `--no-` form.
    """
    texts = _sections(options.__doc__ or "") | _sections(doc)
    hints = get_type_hints(command, include_extras=True)
    for name in hints.keys() & texts.keys():
        group, text = texts[name]
        kind, *given = get_args(hints[name]) if hasattr(hints[name], "__metadata__") else [hints[name]]
        if group == "Arguments":
            about: Any = typer.Argument(help=text)
        else:
            about = copy(given[0]) if given else typer.Option()
            about.help = text
            about.rich_help_panel = None if group == "Options" else group
            if inspect.signature(command).parameters[name].default is False:
                about.param_decls = ("--" + name.replace("_", "-"),)
        hints[name] = Annotated[kind, about]
    command.__annotations__ = hints
    return " ".join(doc.partition("\n\n")[0].split())


def _sections(text: str) -> dict[str, tuple[str, str]]:
    """Read the sections of a docstring: the group and text of each parameter."""
    found = {}
    for group, section in re.findall(r"^(\S.*):\n((?: {4}.*\n)+)", text, re.M):
        for name, about in re.findall(r"^ {4}(\w+): ((?:.|\n {5})+)", section, re.M):
            found[name] = (group, " ".join(about.split()))
    return found


class Command(TyperCommand):
    """A command whose options are listed in groups."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, with the garbage collector, without which the program starts."""
        collector.resume()
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options, group by group."""
        parameters = self.get_params(ctx)
        grouped = sum(each.param_type_name == "option" for each in parameters) >= _GROUPED_FROM
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in parameters:
            group = "Arguments" if each.param_type_name == "argument" else "Options"
            if grouped:
                group = getattr(each, "rich_help_panel", None) or group
            if record := each.get_help_record(ctx):
                groups.setdefault(group, []).append(record)
        _write(formatter, groups)


class Group(TyperGroup):
    """The program: its commands are listed in groups, each with its whole summary."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the name and the summary of each command, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))  # all summaries begin in the same column
        for name, each in self.commands.items():
            command: Any = each
            groups.setdefault(command.rich_help_panel, []).append((name.ljust(width), command.help))
        _write(formatter, groups)


def _write(formatter: Any, groups: dict[str, list[tuple[str, str]]]) -> None:
    for title, rows in groups.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
