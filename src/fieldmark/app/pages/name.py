"""Page 3: folders of new photos, and the job that names them."""

from __future__ import annotations

from pathlib import Path

from nicegui import ui

from fieldmark.app import learning, queues, wording
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, in_thread, job_panel, saying_errors
from fieldmark.app.pages.overview import when_and_where
from fieldmark.app.pages.picker import pick
from fieldmark.app.store import Project
from fieldmark.app.watching import SETTING
from fieldmark.utils.languages import number, percent, say, say_count


def show(project: Project) -> None:
    """Show the page."""
    intro = say("New photos without names: the classifier names those that it is sure of.")
    with frame(project, "/name", intro, lambda: None):
        with ui.column().classes("fm-card gap-3"):
            state(project)

            async def add(path: Path) -> None:
                from fieldmark.inference import inputs

                looking = say("Looking for photos in {folder} …", folder=path.name)
                note = ui.notification(looking, spinner=True, timeout=None)
                with saying_errors():
                    found = await in_thread(inputs.find_photos, [path])
                    added = await in_thread(project.add_new, found, path)
                    project.set("new folder", str(path if path.is_dir() else path.parent))
                    ui.notify(_added(added, len(found) - added), type="positive")
                note.dismiss()
                state.refresh(project)

            def ask() -> None:
                pick(say("Folder of new photos, or a list of them"), project.setting("new folder"), add)

            def start(again: bool) -> None:
                with saying_errors():
                    boxes = project.setting(learning.BOXES)
                    learning.name(project, again=again, boxes=Path(boxes) if boxes else None)
                    said = say("Naming has started. You may close this page; it goes on.")
                    ui.notify(said, type="positive")

            with ui.row().classes("gap-2"):
                ui.button(say("Add new photos"), icon="create_new_folder", on_click=ask)
                ui.button(say("Name them"), icon="auto_awesome", on_click=lambda: start(False))
                again = ui.button(say("Name all again"), icon="refresh", on_click=lambda: start(True))
                again.props("outline").tooltip(
                    say("With the newest classifier: all photos that no person has named")
                )

            _boxes(project)
            _watch(project)

        def done(_job: Job) -> None:
            state.refresh(project)
            ui.notify(say("The photos are named."), type="positive")

        job_panel(project, ("predict",), done)
        when_and_where(project, "new")


def _added(added: int, known: int) -> str:
    """Say how many photos were added, and how many the project has already."""
    said = say_count("{count} photo added", "{count} photos added", added)
    if not known:
        return f"{said}."
    return f"{said}; {say_count('{count} is known already.', '{count} are known already.', known)}"


def _boxes(project: Project) -> None:
    """Add the file of boxes: which one it is, and the choice of another one or none."""

    async def take(path: Path) -> None:
        note = ui.notification(say("Reading {folder} …", folder=path.name), spinner=True, timeout=None)
        with saying_errors():
            listed, photos, share = await in_thread(learning.use_boxes, project, path)
            ui.notify(
                say(
                    "It lists {listed} of {photos}; a box counts from a confidence of {share} on.",
                    listed=listed,
                    photos=wording.photos(photos),
                    share=percent(share),
                ),
                type="positive" if listed or not photos else "warning",
            )
        note.dismiss()
        look()

    def choose() -> None:
        pick(say("File of boxes, such as that of MegaDetector"), project.setting("new folder"), take)

    def leave() -> None:
        project.set(learning.BOXES, "")
        look()

    def look() -> None:
        path = project.setting(learning.BOXES)
        none.visible = bool(path)
        said.text = (
            say("Each box of an animal in {path} is named, and reviewed, as a photo of its own.", path=path)
            if path
            else say("Photos are named as a whole. With a file of boxes, each animal is named apart.")
        )

    with ui.row().classes("items-center gap-3"):
        ui.button(say("Choose boxes"), icon="crop_free", on_click=choose).props("outline")
        none = ui.button(say("No boxes"), icon="close", on_click=leave).props("outline")
        said = ui.label().classes("fm-dim break-all")
    look()


def _watch(project: Project) -> None:
    """Add the switch of the watched folder."""

    async def on(folder: Path) -> None:
        if folder.is_dir():
            project.set(SETTING, str(folder))
            look()
            return
        said = say("{folder} is no folder: a list cannot be watched.", folder=folder)
        ui.notify(said, type="warning")

    def turn() -> None:
        if project.setting(SETTING):
            project.set(SETTING, "")
            look()
        else:
            pick(say("Folder to watch, such as a camera card"), project.setting("new folder"), on)

    def look() -> None:
        folder = project.setting(SETTING)
        button.text = say("Stop watching") if folder else say("Watch a folder")
        if not folder:
            said.text = say("New photos in a folder can be added and named as they come.")
        elif not Path(folder).is_dir():
            said.text = say("{folder} is not there now. Its photos are added when it is.", folder=folder)
        else:
            said.text = say(
                "{folder} is watched while the application runs: new photos are added and named.",
                folder=folder,
            )
        if (found := queues.progress(project)) != shown:
            shown.update(found)
            state.refresh(project)

    shown = queues.progress(project)
    with ui.row().classes("items-center gap-3"):
        button = ui.button(say("Watch a folder"), icon="visibility", on_click=turn).props("outline")
        said = ui.label().classes("fm-dim").props('role="status"')
    ui.timer(2.0, look)


@ui.refreshable
def state(project: Project) -> None:
    """Show how many photos there are, and what they were named."""
    found, refused = queues.progress(project), queues.refused_counts(project, "new")
    ui.label(
        say_count(
            "{count} new photo; {named} named by the classifier, {decided} decided by a person",
            "{count} new photos; {named} named by the classifier, {decided} decided by a person",
            found["photos"],
            named=found["named"],
            decided=found["decided"],
        )
    )
    if boxes := queues.boxes(project):
        ui.label(
            say_count("{count} of them is a box of an animal", "{count} of them are boxes of animals", boxes)
        ).classes("fm-dim")
    if refused:
        ui.label(say("Refused: {reasons}", reasons=wording.counted_reasons(refused))).classes("fm-dim")
    counts = [row for row in queues.species_counts(project, "new") if row[0] != wording.NOT_NAMED]
    if counts:
        with ui.row().classes("gap-2"):
            for name, count, _ in counts[:12]:
                ui.label(f"{wording.species(name)} ({number(count)})").classes("text-sm fm-dim")
    with ui.row().classes("gap-4"):
        if found["named"]:
            ui.link(say("Review them"), "/review")
        if learning.classifier_of(project) is None:
            ui.link(say("Train a classifier first"), "/train")
