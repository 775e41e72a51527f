"""Page 3: folders of new photos, and the job that names them."""

from __future__ import annotations

from pathlib import Path

from nicegui import ui

from fieldmark.app import learning, queues
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, in_thread, job_panel, saying_errors
from fieldmark.app.pages.overview import when_and_where
from fieldmark.app.pages.picker import pick
from fieldmark.app.store import Project
from fieldmark.app.watching import SETTING


def show(project: Project) -> None:
    """Show the page."""
    intro = "New photos without names: the classifier names those that it is sure of."
    with frame(project, "/name", intro, lambda: None):
        with ui.column().classes("fm-card gap-3"):
            state(project)

            async def add(path: Path) -> None:
                from fieldmark import inference

                note = ui.notification(f"Looking for photos in {path.name} …", spinner=True, timeout=None)
                with saying_errors():
                    found = await in_thread(inference.find_photos, [path])
                    added = await in_thread(project.add_new, found, path)
                    project.set("new folder", str(path if path.is_dir() else path.parent))
                    known = len(found) - added
                    ui.notify(
                        f"{added:,} photos added; {known:,} are known already."
                        if known
                        else f"{added:,} photos added.",
                        type="positive",
                    )
                note.dismiss()
                state.refresh(project)

            def ask() -> None:
                pick("Folder of new photos, or a list of them", project.setting("new folder"), add)

            def start(again: bool) -> None:
                with saying_errors():
                    learning.name(project, again=again)
                    ui.notify("Naming has started. You may close this page; it goes on.", type="positive")

            with ui.row().classes("gap-2"):
                ui.button("Add new photos", icon="create_new_folder", on_click=ask)
                ui.button("Name them", icon="auto_awesome", on_click=lambda: start(False))
                ui.button("Name all again", icon="refresh", on_click=lambda: start(True)).props(
                    "outline"
                ).tooltip("With the newest classifier: all photos that no person has named")

            _watch(project)

        def done(_job: Job) -> None:
            state.refresh(project)
            ui.notify("The photos are named.", type="positive")

        job_panel(project, ("predict",), done)
        when_and_where(project, "new")


def _watch(project: Project) -> None:
    """Add the switch of the watched folder."""

    async def on(folder: Path) -> None:
        if folder.is_dir():
            project.set(SETTING, str(folder))
            look()
            return
        ui.notify(f"{folder} is no folder: a list cannot be watched.", type="warning")

    def turn() -> None:
        if project.setting(SETTING):
            project.set(SETTING, "")
            look()
        else:
            pick("Folder to watch, such as a camera card", project.setting("new folder"), on)

    def look() -> None:
        folder = project.setting(SETTING)
        button.text = "Stop watching" if folder else "Watch a folder"
        if not folder:
            said.text = "New photos in a folder can be added and named as they come."
        elif not Path(folder).is_dir():
            said.text = f"{folder} is not there now. Its photos are added when it is."
        else:
            said.text = f"{folder} is watched while the application runs: new photos are added and named."
        if (found := queues.progress(project)) != shown:
            shown.update(found)
            state.refresh(project)

    shown = queues.progress(project)
    with ui.row().classes("items-center gap-3"):
        button = ui.button("Watch a folder", icon="visibility", on_click=turn).props("outline")
        said = ui.label().classes("fm-dim").props('role="status"')
    ui.timer(2.0, look)


@ui.refreshable
def state(project: Project) -> None:
    """Show how many photos there are, and what they were named."""
    found, refused = queues.progress(project), queues.refused_counts(project, "new")
    ui.label(
        f"{found['photos']:,} new photos; {found['named']:,} named by the classifier, "
        f"{found['decided']:,} decided by a person"
    )
    if refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in refused.items())
        ui.label(f"Refused: {reasons}").classes("fm-dim")
    counts = [row for row in queues.species_counts(project, "new") if row[0] != "not named"]
    if counts:
        with ui.row().classes("gap-2"):
            for name, count, _ in counts[:12]:
                ui.label(f"{name} ({count:,})").classes("text-sm fm-dim")
    with ui.row().classes("gap-4"):
        if found["named"]:
            ui.link("Review them", "/review")
        if learning.classifier_of(project) is None:
            ui.link("Train a classifier first", "/train")
