"""The texts that users see hold to docs/glossary.md: none has a word of "Words that are not used"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from fieldmark.cli import COMMANDS as GROUPS
from fieldmark.cli import app

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fieldmark"
COMMANDS: dict[str, Any] = app.commands


def unused_words() -> list[str]:
    """The first column of the glossary's last table; what stands in brackets is an explanation."""
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    table = text.partition("## Words that are not used")[2]
    cells = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)[1:]
    return [word for cell in cells for word in re.sub(r" \(.*?\)", "", cell).split(", ")]


WORD = re.compile(rf"\b({'|'.join(map(re.escape, unused_words()))})\b", re.IGNORECASE)


def found_in(texts: list[str]) -> list[str]:
    """The unused words in some texts, each with what stands around it."""
    joined = (" ".join(text.split()) for text in texts)
    return [
        f"{hit[0]!r} in: {text[max(0, hit.start() - 50) : hit.end() + 50]}"
        for text in joined
        for hit in WORD.finditer(text)
    ]


def prose_of(path: Path) -> list[str]:
    """The texts of a file that users read.

    Of a document: all but code; of a template: all but tags and statements; of a module: the strings
    that are logged, printed or raised.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.M | re.S)]
    if path.suffix == ".html":
        text = re.sub(r"<(script|style).*?</\1>|<[^>]*>|\{#.*?#\}", " ", text, flags=re.S)
        return [re.sub(r"\{[{%].*?[%}]\}", phrases, text, flags=re.S)]
    return list(messages(ast.parse(text)))


def phrases(code: re.Match[str]) -> str:
    """The strings in a template's code that are more than a key."""
    return " ".join(text for text in re.findall(r'"([^"]*)"', code[0]) if " " in text)


def messages(tree: ast.AST) -> Iterator[str]:
    """The strings in the arguments of `logger.…(…)`, `click.echo(…)` and `raise …Error(…)`."""
    for node in ast.walk(tree):
        call: ast.expr | None = node if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Raise):
            call = node.exc
        elif call is not None and not re.match(r"(logger\.|click\.echo)", ast.unparse(node)):
            continue
        if isinstance(call, ast.Call):
            for argument in call.args:
                yield from strings(argument)


def strings(node: ast.AST) -> Iterator[str]:
    """The strings in an expression; `…` stands for what an f-string fills in."""
    if isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        if not isinstance(node, ast.JoinedStr) or isinstance(child, ast.FormattedValue):
            yield from strings(child)


def files() -> list[Path]:
    documents = {*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")}
    documents -= {ROOT / "docs/glossary.md", ROOT / "CHANGELOG.md"}  # the list; what was
    return sorted([*documents, *SOURCE.rglob("*.html"), *SOURCE.rglob("*.py")])


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", files(), ids=name)
def test_documents_pages_and_messages_use_the_words_of_the_glossary(path: Path) -> None:
    assert not found_in(prose_of(path))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_uses_the_words_of_the_glossary(command: str) -> None:
    parameters = COMMANDS[command].params
    assert not found_in([COMMANDS[command].help, *(each.help or "" for each in parameters)])


def test_unused_words_are_read_and_found() -> None:
    assert {"shelf", "spool", "to choose by", "kinds", "arm", "twins"} <= set(unused_words())
    assert len(found_in(["435 to choose\nby", "The Shelf"])) == 2
    assert not found_in(["armed", "shelfful"])


def test_messages_are_found_in_the_source() -> None:
    code = """
logger.info(f"on the {a('shelf')} {b} spool")
click.echo("twins" if c else "arm")
raise InputError(f"a {d}" " bench") from error
x = "strangers"
"""
    hits = found_in(list(messages(ast.parse(code))))
    assert sorted(hit.split("'")[1] for hit in hits) == ["arm", "bench", "shelf", "spool", "twins"]


# The layout of the help


def test_every_command_is_in_a_group_and_every_option_has_a_text() -> None:
    assert sorted(COMMANDS) == sorted(chain.from_iterable(GROUPS.values()))
    for command in COMMANDS.values():
        assert command.help.endswith((".", '".'))
        for each in command.params:
            assert each.help, (command.name, each.name)


def test_help_shows_whole_summaries_in_groups_at_80_columns(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("--help").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    at = [shown.index(f"\n{title}:\n") for title in GROUPS]
    assert at == sorted(at)
    whole = " ".join(shown.split())
    for command in COMMANDS.values():
        assert f"{command.name} {command.help}" in whole
    options = run("train", "--help").out
    assert max(map(len, options.splitlines())) <= 80
    for title in ("Options", "Network", "Search and ensembles", "Training", "Data", "Computing"):
        assert f"\n{title}:\n" in options
