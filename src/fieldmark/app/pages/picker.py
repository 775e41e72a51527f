"""A dialog for folders and lists of photos on this computer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from nicegui import ui

from fieldmark.app.pages.frame import heading
from fieldmark.inference.inputs import SUFFIXES
from fieldmark.utils.languages import say, say_count

_LISTS = (".csv", ".tsv", ".xlsx", ".json", ".json.gz", ".parquet")
_MOST = 500  # entries that are shown of a folder


def pick(title: str, start: str, on_pick: Callable[[Path], Awaitable[None]]) -> None:
    """Ask for a folder or a list of photos; it begins in `start`, or the user's own folder."""
    here = Path(start) if start and Path(start).is_dir() else Path.home()

    async def take() -> None:
        path = Path(where.value).expanduser()
        if not path.exists():
            said = say("{path} does not exist: choose a folder from the list.", path=path)
            ui.notify(said, type="warning")
            return
        dialog.close()
        await on_pick(path)

    def go(path: Path) -> None:
        where.value = str(path)
        if path.is_dir():
            shown.refresh(path)

    with ui.dialog(value=True) as dialog, ui.card().classes("w-[640px] max-w-full"):
        heading(2, title)
        where = ui.input(say("Folder or list"), value=str(here)).props("outlined dense").classes("w-full")
        where.on("keydown.enter", lambda: go(Path(where.value).expanduser()))

        @ui.refreshable
        def shown(folder: Path) -> None:
            folders, lists, photos = _entries(folder)
            ui.label(
                say_count(
                    "{count} photo directly in this folder", "{count} photos directly in this folder", photos
                )
            ).classes("fm-dim")
            with ui.scroll_area().classes("w-full h-72").props("tabindex=0"), ui.list().classes("w-full"):
                for icon, name, path in (
                    ("arrow_upward", say("The folder above"), folder.parent),
                    *(("folder", each.name, each) for each in folders),
                    *(("table_view", each.name, each) for each in lists),
                ):
                    with ui.item(on_click=lambda path=path: go(path)).props("dense"):
                        with ui.item_section().props("avatar"):
                            ui.icon(icon)
                        with ui.item_section():
                            ui.item_label(name)

        shown(here)
        with ui.row().classes("w-full justify-end"):
            ui.button(say("Cancel"), on_click=dialog.close).props("flat")
            ui.button(say("Use this"), on_click=take)


def _entries(folder: Path) -> tuple[list[Path], list[Path], int]:
    """Return the folders and lists in a folder, and its number of photos."""
    folders, lists, photos = [], [], 0
    try:
        with os.scandir(folder) as entries:
            for each in entries:
                if each.name.startswith("."):
                    continue
                if each.is_dir():
                    folders.append(Path(each.path))
                elif each.name.lower().endswith(_LISTS):
                    lists.append(Path(each.path))
                photos += Path(each.name).suffix.lower() in SUFFIXES
    except OSError:
        return [], [], 0
    return sorted(folders)[:_MOST], sorted(lists)[:_MOST], photos
