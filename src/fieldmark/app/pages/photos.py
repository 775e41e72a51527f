"""Page 1: folders of labelled photos, what was found in them, and their species."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nicegui import ui

from fieldmark.app import checking, decisions, queues
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, in_thread, job_panel, reviewer, saying_errors, species_input
from fieldmark.app.pages.overview import when_and_where
from fieldmark.app.pages.picker import pick
from fieldmark.app.pages.wall import PhotoWall
from fieldmark.app.queues import Query
from fieldmark.app.store import Project

_WHICH = {"all": "All", "refused": "Refused"} | {str(name): title for name, title in checking.TITLES.items()}
_MOST = 400  # species in the list; a field filters them


def show(project: Project) -> None:
    """Show the page."""
    page = _Page(project)
    intro = "Photos to learn from: a folder for each species, or a table. They stay where they are."
    with frame(project, "/", intro, page.refresh):
        page.build()


class _Page:
    def __init__(self, project: Project) -> None:
        self.project, self.which, self.species = project, "all", ""
        self.chosen: list[int] = []

    def build(self) -> None:
        with ui.row().classes("items-center gap-2 w-full"):
            ui.button("Add photos", icon="create_new_folder", on_click=self.ask)
            ui.button("Check them", icon="fact_check", on_click=self.check).props("outline").tooltip(
                "Find copies, bursts, poor photos and suspect labels"
            )
            which = ui.select(_WHICH, value="all", label="Show", on_change=self.set_which)
            which.props("outlined dense").classes("w-40")
            self.spare = ui.button("Choose all but the best", icon="filter_none", on_click=self.choose_spare)
            self.spare.props("outline")
            self.said = ui.label().classes("fm-dim").props('role="status"')
        with ui.element("div").classes("fm-columns"):
            with ui.element("div").classes("fm-main"):
                none = "No photos yet: add a folder that has a folder for each species."
                self.wall = PhotoWall("Photos to learn from", self.look, drag=True, none=none)
            with ui.element("aside").classes("fm-side").props('aria-label="Species"'):
                with ui.column().classes("fm-card gap-2"):
                    ui.html("<h2>Chosen photos</h2>", sanitize=False)
                    self.count = ui.label("None. Click a photo; Ctrl or Shift for several.").classes("fm-dim")
                    species_input("Move them to species", self.project.names(), self.move)
                    ui.button("Leave out", icon="remove_circle_outline", on_click=self.leave_out).props(
                        "outline"
                    ).tooltip("They are not learned from; the files stay")
                with ui.column().classes("fm-card gap-1"):
                    ui.html("<h2>Species</h2>", sanitize=False)
                    ui.label("Drop photos on a species to move them.").classes("fm-dim text-sm")
                    find = ui.input("Find", on_change=self.species_list.refresh)
                    self.find = find.props("dense outlined clearable").classes("w-full")
                    self.species_list()
        when_and_where(self.project, "labelled")
        job_panel(self.project, ("check",), self.checked)
        self.show_wall()

    def set_which(self, event: object) -> None:
        self.which = getattr(event, "value", "all")
        self.show_wall()

    def show_wall(self) -> None:
        if self.which in checking.TITLES:
            self.wall.show(checking.wall(self.project, self.which))
        else:
            query = Query("labelled", "species", self.which, self.species)  # type: ignore[arg-type]
            self.wall.show(queues.wall(self.project, query))
        self.spare.visible = self.which in ("copies", "bursts")
        counts = queues.species_counts(self.project, "labelled")
        refused = queues.refused_counts(self.project, "labelled")
        names = sum(name != "not named" for name, _, _ in counts)
        photos, reasons = (
            sum(row[1] for row in counts),
            ", ".join(f"{n:,} {name}" for name, n in refused.items()),
        )
        self.said.text = (
            f"{photos:,} photos of {names:,} species; {sum(refused.values()):,} refused ({reasons})"
            if refused
            else f"{photos:,} photos of {names:,} species"
        )

    def refresh(self) -> None:
        self.species_list.refresh()
        self.show_wall()

    def look(self, _photo: int | None, chosen: Sequence[int]) -> None:
        self.chosen = list(chosen)
        self.count.text = (
            f"{len(chosen):,} chosen" if chosen else "None. Click a photo; Ctrl or Shift for several."
        )

    # Checks

    def check(self) -> None:
        with saying_errors():
            checking.check(self.project)
            ui.notify("The check has started. You may close this page; it goes on.", type="positive")

    def checked(self, _job: Job) -> None:
        ui.notify("The check is done: choose a list in Show.", type="positive")
        self.show_wall()

    def choose_spare(self) -> None:
        self.wall.choose(checking.spare(self.project, self.which))  # type: ignore[arg-type]

    def leave_out(self) -> None:
        with saying_errors():
            checking.leave_out(self.project, self.chosen, reviewer=reviewer(self.project))
            ui.notify(f"{len(self.chosen):,} photos are left out. Undo takes them in again.", type="positive")
            self.refresh()

    # Adding folders

    def ask(self) -> None:
        pick("Folder with a folder for each species, or a table", self.project.setting("folder"), self.add)

    async def add(self, path: Path) -> None:
        from fieldmark.data import readers
        from fieldmark.data.locations import with_exif

        note = ui.notification(f"Reading {path.name} …", spinner=True, timeout=None)
        with saying_errors():
            table = await in_thread(lambda: with_exif(readers.read(path)))
            added, refused = await in_thread(self.project.add_labelled, table, path)
            self.project.set("folder", str(path if path.is_dir() else path.parent))
            ui.notify(f"{added:,} photos added; {refused:,} of {len(table):,} are refused.", type="positive")
        note.dismiss()
        self.refresh()

    # Species

    @ui.refreshable_method
    def species_list(self) -> None:
        part = (self.find.value or "").casefold()
        counts = queues.species_counts(self.project, "labelled")
        found = [row for row in counts if part in row[0].casefold()]
        with ui.column().classes("w-full gap-0"):
            self._row("", "All species", sum(row[1] for row in counts))
            for name, count, _ in found[:_MOST]:
                self._row(name, name, count)
            if len(found) > _MOST:
                ui.label(f"{len(found) - _MOST:,} more: use Find.").classes("fm-dim")

    def _row(self, name: str, shown: str, count: int) -> None:
        row = ui.element("div").classes("fm-drop").classes("on" if name == self.species else "")
        with row:
            button = ui.button(shown, on_click=lambda: self.only(name)).props("flat dense no-caps align=left")
            button.classes("grow text-left").props("color=inherit")
            ui.label(f"{count:,}").classes("fm-dim")
            if name and name != "not named":
                ui.button(icon="edit", on_click=lambda: self.ask_rename(name)).props(
                    f'flat round dense size=sm color=inherit aria-label="Rename or merge {_quoted(name)}"'
                )
        if name and name != "not named":
            row.on(
                "dragover", js_handler="(e) => { e.preventDefault(); e.currentTarget.classList.add('over'); }"
            )
            row.on("dragleave", js_handler="(e) => e.currentTarget.classList.remove('over')")
            row.on("drop.prevent", lambda: self.move(name))

    def only(self, name: str) -> None:
        self.species = name
        self.refresh()

    def move(self, name: str) -> None:
        with saying_errors():
            found = decisions.checked_name(name)
            who = reviewer(self.project)
            decisions.decide(self.project, self.chosen, found, reviewer=who, what=f"moved to {found}")
            ui.notify(f"{len(self.chosen):,} photos are now {found}. Undo takes it back.", type="positive")
            self.refresh()

    def ask_rename(self, name: str) -> None:
        with ui.dialog(value=True) as dialog, ui.card().classes("w-96"):
            ui.html("<h2>Rename or merge</h2>", sanitize=False)
            ui.label(f"{name}: type its new name. With the name of another species both become one.")
            field = ui.input("Name", value=name, autocomplete=self.project.names())
            field.props("outlined dense autofocus").classes("w-full")

            def take() -> None:
                with saying_errors():
                    decisions.rename(self.project, name, field.value, reviewer=reviewer(self.project))
                    self.species = "" if self.species == name else self.species
                    dialog.close()
                    self.refresh()

            field.on("keydown.enter", take)
            with ui.row().classes("w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).props("flat")
                ui.button("Rename", on_click=take)


def _quoted(text: str) -> str:
    """Return a text without what would end an attribute."""
    return "".join(each for each in text if each not in "\"'<>\\")
