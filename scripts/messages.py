"""Renew the catalogues of the messages, and compile them.

    python scripts/messages.py

Messages are the texts given to `say`, `say_count` and `to_say` in the modules, templates and scripts of
src/fieldmark. Each `.po` gets those that are new, without a translation, and loses those that are gone; then
the `.mo` beside it is written. What is left to translate is listed.
"""

from __future__ import annotations

import ast
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jinja2 import Environment, nodes

from fieldmark.utils.languages import DOMAIN, LANGUAGES, LOCALE

Message = tuple[str, str]
"""A message, and its form for several, or ""."""
Catalogue = dict[Message, list[str]]
"""The translations of each message: one, or one for each form of number."""

PLURALS = {
    "de": "nplurals=2; plural=(n != 1);",
    "es": "nplurals=2; plural=(n != 1);",
    "fr": "nplurals=2; plural=(n > 1);",
    "pt": "nplurals=2; plural=(n > 1);",
}
_SAYING = {"say": 1, "to_say": 1, "say_count": 2}  # how many of the first arguments are messages


def main() -> int:
    """Renew all catalogues; return 1 where something is left to translate."""
    found = messages(LOCALE.parent)
    left = 0
    for language in LANGUAGES:
        if language == "en":
            continue
        path = LOCALE / language / "LC_MESSAGES" / f"{DOMAIN}.po"
        known = read(path) if path.exists() else {}
        renewed = {each: known.get(each, [""] * (2 if each[1] else 1)) for each in found}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(renewed, language), encoding="utf-8")
        path.with_suffix(".mo").write_bytes(compiled(renewed, language))
        missing = [message for (message, _), said in renewed.items() if not all(said)]
        left += len(missing)
        for message in missing:
            print(f"{language}: not translated: {message}")  # noqa: T201
    return int(left > 0)


def messages(folder: Path) -> list[Message]:
    """Return the messages of all modules and templates below a folder, each once, in alphabetical order."""
    found: dict[Message, None] = {}
    for path in sorted(each for each in folder.rglob("*") if each.suffix in _READ):
        for name, given in _READ[path.suffix](path.read_text(encoding="utf-8")):
            texts = [each for each in given[: _SAYING.get(name, 0)] if isinstance(each, str)]
            if texts:
                found.setdefault((texts[0], texts[1] if len(texts) > 1 else ""))
    return sorted(found, key=lambda each: each[0].casefold())


def _in_module(text: str) -> Iterator[tuple[str, list[object]]]:
    """Yield the calls in a module: the function's name, and the constants among its arguments."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, [each.value for each in node.args if isinstance(each, ast.Constant)]


def _in_template(text: str) -> Iterator[tuple[str, list[object]]]:
    """Yield the calls in a template, as `_in_module` does."""
    for node in Environment().parse(text).find_all(nodes.Call):
        if isinstance(node.node, nodes.Name):
            yield node.node.name, [each.value for each in node.args if isinstance(each, nodes.Const)]


def _in_script(text: str) -> Iterator[tuple[str, list[object]]]:
    """Yield the messages in a script of a page, as `_in_module` does."""
    for message in re.findall(r'\bsay(?:With)?\("([^"]+)"', text):
        yield "say", [message]


_READ = {".py": _in_module, ".html": _in_template, ".js": _in_script}


def read(path: Path) -> Catalogue:
    """Read a `.po` file; its header is left out."""
    found: Catalogue = {}
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        parts: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if match := re.match(r'(msg\w+(?:\[\d\])?)? ?(".*")$', line):
                key = match[1] or key
                parts[key] = parts.get(key, "") + ast.literal_eval(match[2])
        if parts.get("msgid"):
            forms = [text for name, text in parts.items() if name.startswith("msgstr")]
            found[parts["msgid"], parts.get("msgid_plural", "")] = forms
    return found


def written(catalogue: Catalogue, language: str) -> str:
    """Return the text of a `.po` file."""
    head = "".join(f"{_quoted(line)}\n" for line in _header(language).splitlines(keepends=True))
    blocks = [f'msgid ""\nmsgstr ""\n{head}']
    for (message, several), said in catalogue.items():
        lines = [f"msgid {_quoted(message)}"]
        if several:
            lines.append(f"msgid_plural {_quoted(several)}")
            lines += [f"msgstr[{number}] {_quoted(text)}" for number, text in enumerate(said)]
        else:
            lines.append(f"msgstr {_quoted(said[0])}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def compiled(catalogue: Catalogue, language: str) -> bytes:
    """Return the bytes of a `.mo` file: a table of the messages in their order, one of the translations."""
    pairs = {"": _header(language)}
    for (message, several), said in catalogue.items():
        if all(said):
            pairs[f"{message}\0{several}" if several else message] = "\0".join(said)
    return _table({key.encode(): text.encode() for key, text in pairs.items()})


def _table(pairs: Mapping[bytes, bytes]) -> bytes:
    keys = sorted(pairs)
    start = 7 * 4 + 16 * len(keys)
    data, places = b"", []
    for text in (*keys, *(pairs[key] for key in keys)):
        places += [len(text), start + len(data)]
        data += text + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, start)
    return head + struct.pack(f"<{len(places)}I", *places) + data


def _header(language: str) -> str:
    lines: Iterable[str] = (
        f"Language: {language}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=UTF-8",
        "Content-Transfer-Encoding: 8bit",
        f"Plural-Forms: {PLURALS[language]}",
    )
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


if __name__ == "__main__":
    sys.exit(main())
