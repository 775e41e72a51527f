"""Add the documents outside docs/ to the documentation site: a hook of MkDocs, see mkdocs.yml.

The site's pages are the files of docs/, the documents in `DOCUMENTS`, one page with every public name,
and one that lists the JSON schemas of docs/schemas/. Links between them are those of the repository;
here they become those of the site.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

import fieldmark

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "docs/schemas"

DOCUMENTS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""The documents outside docs/, and their pages."""


def linked(text: str, source: str) -> str:
    """Return a document with links between files of the repository as links between pages.

    Args:
        text: the document, as Markdown.
        source: its path in the repository.
    """
    page = site_path(source)

    def link(found: re.Match[str]) -> str:
        target, mark, anchor = found[1].partition("#")
        if not target or ":" in target:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        relative = posixpath.relpath(site_path(place), posixpath.dirname(page) or ".")
        return f"]({relative}{mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def site_path(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    return DOCUMENTS.get(path, path.removeprefix("docs/"))


def api_page() -> str:
    """Return the page with every public name."""
    names = "\n\n".join(f"::: fieldmark.{name}" for name in sorted(fieldmark.__all__))
    return f"# Python API\n\nThe public names of `fieldmark`; [examples](python.md).\n\n{names}\n"


def schemas_page(folder: Path = SCHEMAS) -> str:
    """Return the page that lists the JSON schemas of a folder."""
    lines = ["# JSON schemas", ""]
    for path in sorted(folder.glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        title = schema.get("title", path.name)
        lines.append(f"- [{title}](schemas/{path.name}): {schema.get('description', path.name)}")
    return "\n".join(lines) + "\n"


def on_config(config: MkDocsConfig) -> None:
    """Add the schemas to the navigation where there are any."""
    if SCHEMAS.is_dir() and config.nav is not None:
        reference = next(each["Reference"] for each in config.nav if "Reference" in each)
        reference.append({"JSON schemas": "schemas.md"})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    from mkdocs.structure.files import File

    pages = {
        page: linked((ROOT / path).read_text(encoding="utf-8"), path) for path, page in DOCUMENTS.items()
    }
    pages["api.md"] = api_page()
    if SCHEMAS.is_dir():
        pages["schemas.md"] = schemas_page()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn a page's links into those of the site."""
    path = page.file.src_uri
    generated = {*DOCUMENTS.values(), "api.md", "schemas.md"}
    return markdown if path in generated else linked(markdown, f"docs/{path}")
