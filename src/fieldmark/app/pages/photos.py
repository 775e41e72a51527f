"""Page 1: folders of labelled photos, what was found in them, and their species."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nicegui import ui

from fieldmark.app import checking, decisions, queues, wording
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import (
    frame,
    heading,
    in_thread,
    job_panel,
    reviewer,
    saying_errors,
    species_input,
)
from fieldmark.app.pages.overview import when_and_where
from fieldmark.app.pages.picker import pick
from fieldmark.app.pages.wall import PhotoWall
from fieldmark.app.queues import Query, Which
from fieldmark.app.store import Project
from fieldmark.utils.languages import number, say, say_count, to_say

_WHICH: dict[str, str] = {"all": to_say("All"), "refused": to_say("Refused")} | dict(checking.TITLES)
_MOST = 400  # species in the list; a field filters them


def show(project: Project) -> None:
    """Show the page."""
    page = _Page(project)
    intro = say("Photos to learn from: a folder for each species, or a table. They stay where they are.")
    with frame(project, "/", intro, page.refresh):
        page.build()


class _Page:
    def __init__(self, project: Project) -> None:
        self.project, self.which, self.species = project, "all", ""
        self.chosen: list[int] = []

    def build(self) -> None:
        with ui.row().classes("items-center gap-2 w-full"):
            ui.button(say("Add photos"), icon="create_new_folder", on_click=self.ask)
            ui.button(say("Check them"), icon="fact_check", on_click=self.check).props("outline").tooltip(
                say("Find copies, bursts, poor photos and suspect labels")
            )
            lists = {key: say(word) for key, word in _WHICH.items()}
            which = ui.select(lists, value="all", label=say("Show"), on_change=self.set_which)
            which.props("outlined dense").classes("w-40")
            self.spare = ui.button(say("Choose all but the best"), icon="filter_none")
            self.spare.props("outline").on_click(self.choose_spare)
            self.said = ui.label().classes("fm-dim").props('role="status"')
        with ui.element("div").classes("fm-columns"):
            with ui.element("div").classes("fm-main"):
                none = say("No photos yet: add a folder that has a folder for each species.")
                self.wall = PhotoWall(say("Photos to learn from"), self.look, drag=True, none=none)
            with ui.element("aside").classes("fm-side") as side:
                side.props["aria-label"] = say("Species")
                self._side()
        when_and_where(self.project, "labelled")
        job_panel(self.project, ("check",), self.checked)
        self.show_wall()

    def _side(self) -> None:
        """Add what is done with the chosen photos, and the species."""
        with ui.column().classes("fm-card gap-2"):
            heading(2, say("Chosen photos"))
            self.count = ui.label(self._chosen()).classes("fm-dim")
            species_input(say("Move them to species"), self.project.names(), self.move)
            out = ui.button(say("Leave out"), icon="remove_circle_outline", on_click=self.leave_out)
            out.props("outline").tooltip(say("They are not learned from; the files stay"))
        with ui.column().classes("fm-card gap-1"):
            heading(2, say("Species"))
            ui.label(say("Drop photos on a species to move them.")).classes("fm-dim text-sm")
            find = ui.input(say("Find"), on_change=self.species_list.refresh)
            self.find = find.props("dense outlined clearable").classes("w-full")
            self.species_list()

    def set_which(self, event: object) -> None:
        self.which = getattr(event, "value", "all")
        self.show_wall()

    def show_wall(self) -> None:
        if listing := checking.listing_of(self.which):
            self.wall.show(checking.wall(self.project, listing))
        else:
            which: Which = "refused" if self.which == "refused" else "all"
            self.wall.show(queues.wall(self.project, Query("labelled", "species", which, self.species)))
        self.spare.visible = self.which in ("copies", "bursts")
        counts = queues.species_counts(self.project, "labelled")
        refused = queues.refused_counts(self.project, "labelled")
        names = sum(name != wording.NOT_NAMED for name, _, _ in counts)
        said = wording.photos_of_species(sum(row[1] for row in counts), names)
        if refused:
            reasons, several = wording.counted_reasons(refused), sum(refused.values())
            said += f"; {say_count('{count} refused', '{count} refused', several)} ({reasons})"
        self.said.text = said

    def refresh(self) -> None:
        self.species_list.refresh()
        self.show_wall()

    def look(self, _photo: int | None, chosen: Sequence[int]) -> None:
        self.chosen = list(chosen)
        self.count.text = self._chosen()

    def _chosen(self) -> str:
        if not self.chosen:
            return say("None. Click a photo; Ctrl or Shift for several.")
        return say_count("{count} chosen", "{count} chosen", len(self.chosen))

    # Checks

    def check(self) -> None:
        with saying_errors():
            checking.check(self.project)
            said = say("The check has started. You may close this page; it goes on.")
            ui.notify(said, type="positive")

    def checked(self, _job: Job) -> None:
        ui.notify(say("The check is done: choose a list in Show."), type="positive")
        self.show_wall()

    def choose_spare(self) -> None:
        if listing := checking.listing_of(self.which):
            self.wall.choose(checking.spare(self.project, listing))

    def leave_out(self) -> None:
        with saying_errors():
            checking.leave_out(self.project, self.chosen, reviewer=reviewer(self.project))
            said = say_count(
                "{count} photo is left out. Undo takes it in again.",
                "{count} photos are left out. Undo takes them in again.",
                len(self.chosen),
            )
            ui.notify(said, type="positive")
            self.refresh()

    # Adding folders

    def ask(self) -> None:
        title = say("Folder with a folder for each species, or a table")
        pick(title, self.project.setting("folder"), self.add)

    async def add(self, path: Path) -> None:
        from fieldmark.data import readers
        from fieldmark.data.locations import with_exif

        reading = say("Reading {folder} …", folder=path.name)
        note = ui.notification(reading, spinner=True, timeout=None)
        with saying_errors():
            table = await in_thread(lambda: with_exif(readers.read(path)))
            added, refused = await in_thread(self.project.add_labelled, table, path)
            self.project.set("folder", str(path if path.is_dir() else path.parent))
            said = say(
                "{photos} added; {refused} of {all} are refused.",
                photos=wording.photos(added),
                refused=refused,
                all=len(table),
            )
            ui.notify(said, type="positive")
        note.dismiss()
        self.refresh()

    # Species

    @ui.refreshable_method
    def species_list(self) -> None:
        part = (self.find.value or "").casefold()
        counts = queues.species_counts(self.project, "labelled")
        common = queues.common_names(self.project)
        found = [row for row in counts if part in queues.shown_name(row[0], common).casefold()]
        with ui.column().classes("w-full gap-0"):
            self._row("", say("All species"), sum(row[1] for row in counts))
            for name, count, _ in found[:_MOST]:
                self._row(name, queues.shown_name(name, common), count)
            if len(found) > _MOST:
                ui.label(say("{count} more: use Find.", count=len(found) - _MOST)).classes("fm-dim")

    def _row(self, name: str, shown: str, count: int) -> None:
        row = ui.element("div").classes("fm-drop").classes("on" if name == self.species else "")
        with row:
            button = ui.button(shown, on_click=lambda: self.only(name)).props("flat dense no-caps align=left")
            button.classes("grow text-left").props("color=inherit")
            ui.label(number(count)).classes("fm-dim")
            if name and name != wording.NOT_NAMED:
                rename = ui.button(icon="edit", on_click=lambda: self.ask_rename(name))
                rename.props("flat round dense size=sm color=inherit")
                rename.props["aria-label"] = say("Rename or merge {name}", name=name)
        if name and name != wording.NOT_NAMED:
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
            said = say_count(
                "{count} photo is now {name}. Undo takes it back.",
                "{count} photos are now {name}. Undo takes it back.",
                len(self.chosen),
                name=found,
            )
            ui.notify(said, type="positive")
            self.refresh()

    def ask_rename(self, name: str) -> None:
        with ui.dialog(value=True) as dialog, ui.card().classes("w-96"):
            heading(2, say("Rename or merge"))
            ui.label(
                say("{name}: type its new name. With the name of another species both become one.", name=name)
            )
            field = ui.input(say("Species name"), value=name, autocomplete=self.project.names())
            field.props("outlined dense autofocus").classes("w-full")

            def take() -> None:
                with saying_errors():
                    decisions.rename(self.project, name, field.value, reviewer=reviewer(self.project))
                    self.species = "" if self.species == name else self.species
                    dialog.close()
                    self.refresh()

            field.on("keydown.enter", take)
            with ui.row().classes("w-full justify-end"):
                ui.button(say("Cancel"), on_click=dialog.close).props("flat")
                ui.button(say("Rename"), on_click=take)
