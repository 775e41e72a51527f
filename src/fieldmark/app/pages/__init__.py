"""The pages: thin, one file each; what they do is in the modules of `fieldmark.app`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from nicegui import Client, ui

from fieldmark.app.pages import label_next, learn, name, photos, results, review, train
from fieldmark.app.store import Project
from fieldmark.utils.languages import ask_page, spoken

PAGES: dict[str, Callable[[Project], None]] = {
    "/": photos.show,
    "/train": train.show,
    "/name": name.show,
    "/review": review.show,
    "/next": label_next.show,
    "/learn": learn.show,
    "/results": results.show,
}


def register(project: Project) -> None:
    """Make the pages of a project."""
    ask_page(_language_of_page)
    for path, show in PAGES.items():
        _Page(path)(_page(project, show))


_languages: WeakKeyDictionary[Client, str] = WeakKeyDictionary()


def _language_of_page() -> str | None:
    """Return the language in which a page was made, for its events: they come without its request."""
    try:
        return _languages.get(ui.context.client)
    except RuntimeError:  # a thread, or a request that is for no page
        return None


class _Page(ui.page):
    """A page in the language of its reader, which Quasar's own words follow."""

    def resolve_language(self) -> Any:
        """Return the code that Quasar has for the language."""
        return {"en": "en-US", "pt": "pt-BR"}.get(spoken(), spoken())


def _page(project: Project, show: Callable[[Project], None]) -> Callable[[], None]:
    def page() -> None:
        _languages[ui.context.client] = spoken()
        show(project)

    return page
