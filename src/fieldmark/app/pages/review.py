"""Page 4: the wall of named photos, and quick decisions by keys."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from nicegui import ui

from fieldmark.app import decisions, learning, pictures, queues, wording
from fieldmark.app.pages.frame import (
    KEYS_TO_WALL,
    frame,
    heading,
    in_thread,
    reviewer,
    saying_errors,
    species_input,
    step,
)
from fieldmark.app.pages.wall import Act, PhotoWall
from fieldmark.app.queues import Query, Wall
from fieldmark.app.store import EMPTY, Photo, Project
from fieldmark.utils.languages import number, percent, say, to_say

_BY = {
    "species": to_say("Species"),
    "event": to_say("Event"),
    "doubt": to_say("Doubt"),
    "place": to_say("Place"),
}
_ORDER = {"doubt": to_say("Doubtful first"), "likeness": to_say("Alike together")}
_WHICH = {
    "open": to_say("To review"),
    "done": to_say("Reviewed"),
    "all": to_say("All"),
    "disagreements": to_say("Disagreements"),
}
OTHER = "fm-other-name"
_KEYS = (
    ("Enter", to_say("accept")),
    ("1–5", to_say("likeliest")),
    ("/", to_say("other name")),
    ("u", to_say("unknown")),
    ("b", to_say("blank")),
    (to_say("Space"), to_say("choose")),
    ("e", to_say("choose the event or group")),
    (to_say("Shift + arrows"), to_say("choose several")),
    ("z", to_say("zoom")),
    ("Ctrl + Z", to_say("undo")),
)


def show(project: Project) -> None:
    """Show the page."""
    page = Review(project)
    intro = say(
        "Look at the answers, accept the right ones and correct the others. Each decision is kept at once."
    )
    with frame(project, "/review", intro, page.refresh):
        page.build()
        page.refresh()


class Review:
    """The wall, the photo in focus, and what is done with what is chosen."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.photo: Photo | None = None
        self.chosen: list[int] = []

    def build(self) -> None:
        """Add the elements of the page."""
        with ui.row().classes("items-center gap-3 w-full"):
            self.which = ui.toggle(_said(_WHICH), value="open", on_change=self.refresh).props("no-caps")
            self.which.classes("fm-toggle")
            self.which.props["aria-label"] = say("Which photos")
            self.by = ui.select(_said(_BY), value="species", label=say("Grouped by"), on_change=self.refresh)
            self.by.props("outlined dense").classes("w-36")
            self.order = ui.select(_said(_ORDER), value="doubt", label=say("Order"), on_change=self.refresh)
            self.order.props("outlined dense").classes("w-48")
            for select in (self.by, self.order):
                select.on("popup-hide", js_handler=KEYS_TO_WALL)
            self.least = ui.number(say("Accept all from"), value=95, min=0, max=100, suffix="%", step=1)
            self.least.props("outlined dense").classes("w-36")
            ui.button(say("Accept"), icon="done_all", on_click=self.accept_bulk).props("outline")
            self.said = ui.label().classes("fm-dim").props('role="status"')
        self.columns()
        keys = (f"<span><kbd>{say(key)}</kbd> {say(what)}</span>" for key, what in _KEYS)
        ui.html(" · ".join(keys), sanitize=False).classes("fm-keys fm-dim text-sm")

    def columns(self) -> None:
        """Add the wall and what stands beside it."""
        with ui.element("div").classes("fm-columns"):
            with ui.element("div").classes("fm-main"):
                self.wall = PhotoWall(say("Photos to review"), self.look, self.act, field=f".{OTHER} input")
            with ui.element("aside").classes("fm-side") as side:
                side.props["aria-label"] = say("The photo in focus")
                with ui.column().classes("fm-card gap-2"):
                    self.detail()
                    species_input(say("Other name"), self.project.names()).classes(OTHER)
                with ui.column().classes("fm-card gap-2"):
                    heading(2, say("Look-alikes"))
                    ui.label(say("The most similar photos that it learned from")).classes("fm-dim text-sm")
                    self.alike_box = ui.element("div").classes("fm-alike")
                    ui.button(say("Show"), icon="image_search", on_click=self.alike).props("outline dense")
                with ui.column().classes("fm-card gap-1"):
                    self._sliders()

    def _sliders(self) -> None:
        ui.label(say("Brightness")).classes("text-sm")
        bright = ui.slider(min=0.5, max=3, step=0.1, value=1)
        bright.props["aria-label"] = say("Brightness")
        bright.on_value_change(lambda event: self.wall.set_look(brightness=event.value))
        ui.label(say("Size")).classes("text-sm")
        side = ui.slider(min=96, max=360, step=8, value=168)
        side.props["aria-label"] = say("Size of the photos")
        side.on_value_change(lambda event: self.wall.set_look(side=event.value))
        self.bright = bright

    def wanted(self) -> Wall:
        """Return the photos to show."""
        query = Query("new", self.by.value, self.which.value, order=self.order.value)
        return queues.wall(self.project, query)

    def refresh(self) -> None:
        """Show the photos that are to be shown now."""
        self.photo, self.chosen = None, []
        self.wall.show(self.wanted())
        self.detail.refresh()
        self.say()

    def say(self) -> None:
        """Say how many photos are decided."""
        found = queues.progress(self.project)
        who, done = reviewer(self.project), found["decided"]
        self.said.text = say(
            "{done} of {all} reviewed; you are {reviewer}", done=done, all=found["photos"], reviewer=who
        )

    def look(self, photo: int | None, chosen: Sequence[int]) -> None:
        """Show the photo in focus beside the wall."""
        other = photo != (self.photo.id if self.photo else None)
        self.photo, self.chosen = self.project.photo(photo) if photo else None, list(chosen)
        if other:
            self.alike_box.clear()
        self.detail.refresh()

    @ui.refreshable_method
    def detail(self) -> None:
        """Show the photo in focus, its answer, and the five likeliest labels as buttons."""
        if self.photo is None:
            ui.label(say("Choose a photo, or move with the arrow keys.")).classes("fm-dim")
            return
        each = self.photo
        large = ui.element("img").classes("fm-large").on("click", self.zoom)
        large.props["src"], large.props["alt"] = (
            f"/thumb/{each.id}.jpg",
            f"{each.label or each.name}, {each.path.name}",
        )
        if len(self.chosen) > 1:
            chosen = wording.photos(len(self.chosen))
            said = say("{photos} are chosen: a decision is for all of them.", photos=chosen)
            ui.label(said).classes("font-bold")
        about = [each.path.name, each.place, (each.taken or "")[:16].replace("T", " ")]
        ui.label(" · ".join(part for part in about if part)).classes("fm-dim text-sm break-words")
        if each.state in ("person", "unknown"):
            decided = wording.species(each.label or wording.UNKNOWN)
            ui.label(say("Decided: {name}", name=decided)).classes("font-bold")
        self._answers(each)
        with ui.row().classes("gap-2"):
            for act, text, look in (
                ("accept", say("Accept"), "dense icon=check"),
                ("unknown", say("Unknown"), "dense outline"),
                ("blank", say("Blank"), "dense outline"),
            ):
                ui.button(text).props(look).on("click", js_handler=self.wall.act(act))

    def _answers(self, photo: Photo) -> None:
        """Add the likeliest labels of a photo as buttons with their keys."""
        common = queues.common_names(self.project)
        for key, (name, known, score) in enumerate(self.likeliest(photo), 1):
            names = {name: known, **common} if known else common
            button = ui.element("button").classes("fm-answer")
            with button.on("click", js_handler=self.wall.act(f"number{key}")):
                ui.html(f"<kbd>{key}</kbd>", sanitize=False).classes("fm-keys")
                ui.label(queues.shown_name(name, names)).classes("grow")
                ui.label(percent(score)).classes("fm-dim")

    @staticmethod
    def likeliest(photo: Photo) -> list[tuple[str, str, float]]:
        """Return the labels of a photo that have a key: name, common name, probability."""
        return queues.likeliest(photo.record)[: queues.MOST_ANSWERS]

    def act(self, what: Act) -> None:
        """Do what a key or a button asks for."""
        who, ids = reviewer(self.project), what.ids
        with saying_errors():
            match what.act:
                case "zoom":
                    self.zoom()
                    return
                case "undo":
                    step(self.project, "undo")
                case "redo":
                    step(self.project, "redo")
                case "accept":
                    decisions.accept(self.project, ids, reviewer=who)
                case "unknown":
                    decisions.decide(self.project, ids, None, reviewer=who, state="unknown")
                case "blank":
                    decisions.decide(self.project, ids, EMPTY, reviewer=who)
                case "call":
                    decisions.decide(self.project, ids, what.name, reviewer=who)
                case _:
                    photo = self.project.photo(what.focus or 0)
                    answers = self.likeliest(photo) if photo else []
                    name = answers[int(what.act.removeprefix("number")) - 1][0]
                    decisions.decide(self.project, ids, name, reviewer=who)
            self.wall.fresh()
            self.say()

    def accept_bulk(self) -> None:
        """Accept all answers from a probability on, of those that wait, after a question."""
        query = Query("new", "species", "open", least=(self.least.value or 0) / 100)
        ids = queues.wall(self.project, query).ids

        def take() -> None:
            with saying_errors():
                decisions.accept(self.project, ids, reviewer=reviewer(self.project))
                self.refresh()
            dialog.close()

        with ui.dialog(value=True) as dialog, ui.card():
            ui.label(
                say(
                    "Accept the first answer of {photos}, those of {least} or more? Undo takes it back.",
                    photos=wording.photos(len(ids)),
                    least=percent(query.least),
                )
            )
            with ui.row().classes("w-full justify-end"):
                ui.button(say("Cancel"), on_click=dialog.close).props("flat")
                ui.button(say("Accept"), on_click=take)

    def zoom(self) -> None:
        """Show the photo in focus on the whole screen; a click comes nearer."""
        if self.photo is None:
            return
        with ui.dialog(value=True) as dialog, ui.element("div").classes("fm-zoom"):
            dialog.props["aria-label"] = say("The photo, enlarged")
            image = ui.element("img").style(f"filter: brightness({self.bright.value})")
            image.props["src"], image.props["alt"] = f"/photo/{self.photo.id}.jpg", self.photo.path.name
            image.on("click", js_handler="(e) => e.target.classList.toggle('near')")

    async def alike(self) -> None:
        """Show the training photos that are most similar to the photo in focus."""
        classifier, photo = learning.classifier_of(self.project), self.photo
        if classifier is None or photo is None:
            return
        found = await in_thread(pictures.alike, classifier, photo.picture)
        self.alike_box.clear()
        with self.alike_box:
            if not found:
                ui.label(say("None are known for this classifier.")).classes("fm-dim")
            for each in found:
                self._figure(each)

    def _figure(self, each: pictures.Alike) -> None:
        with ui.element("figure"):
            if each.jpeg:
                image = ui.element("img")
                image.props["src"] = f"data:image/jpeg;base64,{base64.b64encode(each.jpeg).decode()}"
                image.props["alt"] = each.name
            with ui.element("figcaption"):
                ui.label(f"{each.name} {number(each.similarity, 2)}")


def _said(words: Mapping[str, str]) -> dict[str, str]:
    return {key: say(word) for key, word in words.items()}
