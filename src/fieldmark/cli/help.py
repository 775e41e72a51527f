"""Commands, and what `--help` shows of them: options in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fieldmark.cli.parameters import Option, parameters, summary
from fieldmark.utils import collector

_GROUPED_FROM = 8
"""A command with fewer options lists them in one group."""


class Command(click.Command):
    """A command whose options are listed in groups."""

    group = ""

    @classmethod
    def of(cls, function: Callable[..., None], doc: str, group: str) -> Command:
        """Make a command of this group from a function and the docstring of its module."""
        made = cls(
            function.__name__,
            callback=function,
            params=list(parameters(function, doc)),
            help=summary(doc),
            context_settings={"show_default": True},
        )
        made.group = group
        return made

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with the garbage collector, without which the program starts."""
        collector.resume()
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        shown = self.get_params(ctx)
        grouped = sum(isinstance(each, Option) for each in shown) >= _GROUPED_FROM
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for each in shown:
            group = each.group if grouped and isinstance(each, Option) else "Options"
            if isinstance(each, click.Option) and (record := each.get_help_record(ctx)):
                groups.setdefault(group, []).append(record)
        _write(formatter, groups)


class Group(click.Group):
    """The program: its commands are listed in groups, each with its whole summary."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the name and the summary of each command, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))  # all summaries begin in the same column
        for name, each in self.commands.items():
            group = each.group if isinstance(each, Command) else ""
            groups.setdefault(group, []).append((name.ljust(width), each.help or ""))
        _write(formatter, groups)


def _write(formatter: click.HelpFormatter, groups: dict[str, list[tuple[str, str]]]) -> None:
    for title, rows in groups.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
