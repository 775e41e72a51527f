"""The layout of `--help`: whole summaries, and commands and options in groups."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

_GROUPED_FROM = 8
"""A command with fewer options lists them in one group."""


class Command(TyperCommand):
    """A command whose options are listed in the groups that they name as `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options, group by group."""
        shown = [(each, each.get_help_record(ctx)) for each in self.get_params(ctx)]
        grouped = sum(each.param_type_name == "option" for each, _ in shown) >= _GROUPED_FROM
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each, record in shown:
            title = "Arguments" if each.param_type_name == "argument" else "Options"
            if grouped:
                title = getattr(each, "rich_help_panel", None) or title
            if record is not None:
                groups.setdefault(title, []).append(record)
        _write(formatter, groups)


class Group(TyperGroup):
    """The program: its commands are listed in groups, each with its whole summary."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each command, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            summary = command.get_short_help_str(limit=1000)
            groups.setdefault(command.rich_help_panel, []).append((name, summary))
        # One width for the names, so that all summaries begin in the same column.
        width = max(len(name) for name in self.list_commands(ctx))
        padded = {
            title: [(name.ljust(width), text) for name, text in rows]
            for title, rows in groups.items()
        }
        _write(formatter, padded)


def _write(formatter: Any, groups: dict[str, list[tuple[str, str]]]) -> None:
    for title, rows in groups.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
