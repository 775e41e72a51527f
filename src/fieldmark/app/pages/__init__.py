"""The pages: thin, one file each; what they do is in the modules of `fieldmark.app`."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from fieldmark.app.pages import label_next, learn, name, photos, results, review, train
from fieldmark.app.store import Project

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
    for path, show in PAGES.items():
        ui.page(path)(_page(project, show))


def _page(project: Project, show: Callable[[Project], None]) -> Callable[[], None]:
    def page() -> None:
        show(project)

    return page
